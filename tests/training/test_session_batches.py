"""Several lessons to a step: the gradient of one by one, shared contexts read once, one graph at a time."""

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from training_models import ARCHITECTURES, InFloat64, random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Apollo,
    Replay,
    SessionResult,
    StepReport,
    continuation_log_probabilities,
    freeze_context,
    parameter_groups,
    run_session,
)

SETTINGS = TrainingSettings(rank=1, gate=None, replay=0.0, batch_size=4, max_grad_norm=None)


def ids(tokens: int, seed: int) -> tuple[int, ...]:
    return tuple(random_ids(tokens, seed).tolist())


def thread() -> tuple[Example, ...]:
    """Four answers along one thread and a branch of it: each context begins as the one before."""
    root, branch = ids(30, 0), ids(12, 9)
    return (
        Example(root, ids(4, 1), rejected_ids=ids(6, 11), weight=2.0),
        Example(root + ids(4, 1) + ids(8, 2), ids(5, 3), rejected_ids=ids(3, 12)),
        Example(root + ids(4, 1) + ids(8, 2) + ids(5, 3) + ids(6, 4), ids(3, 5), rejected_ids=ids(4, 13)),
        Example(root + branch, ids(6, 6), rejected_ids=ids(5, 14)),
    )


class Kept(torch.optim.SGD):
    """Keeps the gradients of its steps."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), lr=0.0)
        self.gradients: list[list[torch.Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        weights = self.param_groups[0]["params"]
        self.gradients.append([weight.grad.clone() for weight in weights if weight.grad is not None])
        return super().step(closure)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_gradient_of_a_batch_is_that_of_its_lessons_read_one_by_one(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    with InFloat64():
        optimizer = Kept(model)
        reports: list[StepReport] = []
        run_session(model, optimizer, thread(), (), SETTINGS, report=reports.append)
        whole = sum(example.weight * len(example.continuation_ids) for example in thread())
        loss = torch.zeros((), dtype=torch.float64)
        for example in thread():
            frozen = freeze_context(model, torch.tensor([example.context_ids]))
            found = continuation_log_probabilities(model, frozen, torch.tensor(example.continuation_ids))
            loss = loss - example.weight * found.sum() / whole
        expected = torch.autograd.grad(loss, list(model.parameters()))
    assert reports[0].loss == pytest.approx(loss.item(), rel=1e-9)
    for ours, flat in zip(optimizer.gradients[0], expected, strict=True):
        assert (ours - flat).abs().max() <= 1e-9 * max(1.0, flat.abs().max().item())


def test_steps_do_not_reach_over_the_end_of_an_epoch() -> None:
    settings = SETTINGS.model_copy(update={"batch_size": 3, "epochs": 2})
    reports: list[StepReport] = []
    result = run(tiny_model("qwen3"), settings, report=reports.append)
    assert [(report.step, report.of, report.tokens) for report in reports] == [
        (1, 4, 12),
        (2, 4, 6),
        (3, 4, 12),
        (4, 4, 6),
    ]
    assert (result.steps, len(result.outcomes), result.tokens) == (4, 4, 36)


def test_the_replay_of_a_batch_is_that_of_its_lessons() -> None:
    pool = (Example(ids(9, 50), ids(7, 51), kept=True), Example(ids(9, 52), ids(8, 53)))
    settings = SETTINGS.model_copy(update={"replay": 0.5})
    reports: list[StepReport] = []
    run(tiny_model("qwen3"), settings, pool, report=reports.append)
    assert (reports[0].replayed, reports[0].tokens) == (4, 18 + 2 * (7 + 8))


def test_known_lessons_of_a_batch_are_left_out_with_their_replay() -> None:
    """The gradient and the loss are those of a batch that never had them."""
    model = tiny_model("qwen3", torch.float64)
    losses = [outcome.loss_before for outcome in run(model, SETTINGS, dry_run=True).outcomes]
    gate = sum(sorted(losses)[1:3]) / 2  # the two likeliest are known
    known = [place for place, loss in enumerate(losses) if loss < gate]
    pool = tuple(Example(ids(9, 50 + seed), ids(3 + seed, 60 + seed), kept=seed < 2) for seed in range(4))
    settings = SETTINGS.model_copy(update={"gate": gate, "replay": 0.5})
    with InFloat64():
        optimizer = Kept(model)
        reports: list[StepReport] = []
        result = run_session(model, optimizer, thread(), pool, settings, report=reports.append)
        loss, whole = torch.zeros((), dtype=torch.float64), 0.0
        shown = [example for place, example in enumerate(thread()) if place not in known]
        for example in [*shown, *due(pool, settings, known)]:
            frozen = freeze_context(model, torch.tensor([example.context_ids]))
            found = continuation_log_probabilities(model, frozen, torch.tensor(example.continuation_ids))
            loss, whole = loss - example.weight * found.sum(), whole + example.weight * len(found)
        expected = torch.autograd.grad(loss / whole, list(model.parameters()))
    assert (reports[0].gated, reports[0].replayed, reports[0].taken) == (2, 2, True)
    assert [place for place, outcome in enumerate(result.outcomes) if outcome.gated] == known
    assert (result.gated, result.steps) == (2, 1)
    assert reports[0].loss == pytest.approx((loss / whole).item(), rel=1e-9)
    for ours, flat in zip(optimizer.gradients[0], expected, strict=True):
        assert (ours - flat).abs().max() <= 1e-9 * max(1.0, flat.abs().max().item())


def test_a_batch_of_known_lessons_takes_no_step() -> None:
    model = tiny_model("qwen3")
    start = copy.deepcopy(model)
    reports: list[StepReport] = []
    settings = SETTINGS.model_copy(update={"gate": 100.0})
    result = run(model, settings, report=reports.append)
    assert (reports[0].gated, reports[0].taken, reports[0].skipped) == (4, False, "gated")
    weights = [example.weight * len(example.continuation_ids) for example in thread()]
    losses = [outcome.loss_before for outcome in result.outcomes]
    mean = sum(weight * loss for weight, loss in zip(weights, losses, strict=True)) / sum(weights)
    assert reports[0].loss == pytest.approx(mean, rel=1e-5)
    assert all(map(torch.equal, model.parameters(), start.parameters()))


class Watch:
    """Counts tokens read without gradients."""

    def __init__(self, model: nn.Module) -> None:
        self.frozen_tokens = 0
        model.get_submodule("model").register_forward_pre_hook(self._read, with_kwargs=True)

    def _read(self, module: nn.Module, args: Any, kwargs: dict[str, Any]) -> None:
        if not torch.is_grad_enabled():
            self.frozen_tokens += kwargs["input_ids"].shape[1]


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_what_contexts_share_is_read_once_and_both_answers_share_theirs(objective: str) -> None:
    longest = len(thread()[2].context_ids) - 1
    branch = 12
    model, settings = tiny_model("qwen3"), SETTINGS.model_copy(update={"objective": objective})
    watch = Watch(model)
    counted: list[int] = []
    run(model, settings, report=lambda _: counted.append(watch.frozen_tokens))
    answers = sum(
        max(2, len(answer))
        for example in thread()
        for answer in (example.continuation_ids, example.rejected_ids or ())
    )
    measured = longest + branch + answers  # before the session; answers are read without gradients there
    assert counted[0] == pytest.approx(
        measured + longest + branch, abs=4
    )  # each run's end: one token either way


class Graphs:
    """How many saved activations are alive, and the most at any time."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def pack(self, tensor: torch.Tensor) -> "Saved":
        return Saved(tensor, self)


class Saved:
    def __init__(self, tensor: torch.Tensor, graphs: Graphs) -> None:
        self.tensor, self.graphs = tensor, graphs
        graphs.now += 1
        graphs.most = max(graphs.most, graphs.now)

    def __del__(self) -> None:
        self.graphs.now -= 1


@pytest.mark.parametrize("objective", ["sft", "dpo"])
def test_one_example_s_graph_is_alive_at_a_time(objective: str) -> None:
    most = {}
    for lessons in (thread()[:1], thread()):
        settings = SETTINGS.model_copy(update={"objective": objective})
        model, graphs = tiny_model("qwen3"), Graphs()
        optimizer = Apollo(parameter_groups(model, settings), settings)
        with torch.autograd.graph.saved_tensors_hooks(graphs.pack, lambda saved: saved.tensor):
            run_session(model, optimizer, lessons, (), settings)
        most[len(lessons)] = graphs.most
        assert graphs.now == 0
    assert most[4] == most[1] > 0


def run(
    model: nn.Module, settings: TrainingSettings, pool: tuple[Example, ...] = (), **options: Any
) -> SessionResult:
    optimizer = Apollo(parameter_groups(model, settings), settings)
    return run_session(model, optimizer, thread(), pool, settings, **options)


def due(pool: tuple[Example, ...], settings: TrainingSettings, known: list[int]) -> Iterator[Example]:
    """The replay due with the lessons that are not known."""
    schedule = Replay(pool, settings.replay, settings.contrast_share, settings.lesson_share, settings.seed)
    for place in range(len(thread())):
        if place not in known:
            yield from schedule.due(place + 1)
