"""A session: what it computes, what it skips, what it leaves alone, and when it stops."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from training_models import ARCHITECTURES, random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Apollo,
    ContextTooLong,
    ReplayError,
    SessionResult,
    StepReport,
    UnusableExample,
    parameter_groups,
    run_session,
)


def example(seed: int, context: int = 20, continuation: int = 5, **changes: Any) -> Example:
    ids = random_ids(context + continuation, seed).tolist()
    return Example(tuple(ids[:context]), tuple(ids[context:]), **changes)


LESSONS = tuple(example(seed) for seed in range(3))
POOL = (example(10, kept=True), example(11, continuation=9), example(12, kept=True), example(13))
PLAIN = TrainingSettings(lr=1e-2, gate=None, replay=0.0, max_grad_norm=None)


def run(
    model: nn.Module,
    examples: tuple[Example, ...],
    settings: TrainingSettings,
    pool: tuple[Example, ...] = (),
    **options: Any,
) -> SessionResult:
    optimizer = options.pop("optimizer", None) or Apollo(parameter_groups(model, settings), settings)
    return run_session(model, optimizer, examples, pool, settings, **options)


def full_loss(model: nn.Module, shown: Example) -> torch.Tensor:
    """Summed negative log-likelihood of the continuation, by one full pass."""
    ids = torch.tensor([[*shown.context_ids, *shown.continuation_ids]])
    logits = model(input_ids=ids).logits[0, len(shown.context_ids) - 1 : -1]
    return nn.functional.cross_entropy(logits, torch.tensor(shown.continuation_ids), reduction="sum")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_session_teaches(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_model(architecture, dtype)
    before = [full_loss(model, lesson).item() / 5 for lesson in LESSONS]
    start = [weight.detach().clone() for weight in model.parameters()]
    result = run(model, LESSONS, PLAIN.model_copy(update={"epochs": 6}))
    assert (result.steps, result.gated, len(result.losses)) == (18, 0, 18)
    assert result.tokens == 18 * 5
    tolerance = 1e-4 if dtype == torch.float32 else 3e-2
    for outcome, old, lesson in zip(result.outcomes, before, LESSONS, strict=True):
        assert outcome.loss_before == pytest.approx(old, rel=tolerance)
        assert outcome.loss_after < 0.7 * outcome.loss_before
        assert outcome.loss_after == pytest.approx(full_loss(model, lesson).item() / 5, rel=tolerance)
        assert outcome.first_token_after > outcome.first_token_before
    assert all(
        not torch.equal(weight.detach(), old) for weight, old in zip(model.parameters(), start, strict=True)
    )
    assert all(weight.grad is None for weight in model.parameters())


def test_the_loss_is_the_mean_over_weighted_tokens_of_lesson_and_replay() -> None:
    model = tiny_model("qwen3")
    settings = PLAIN.model_copy(update={"replay": 0.75, "contrast_share": 0.5})
    pool = (replace(POOL[0], weight=3.0), POOL[1])
    expected = (
        full_loss(model, LESSONS[0]) + 3 * 2 * full_loss(model, pool[0]) + full_loss(model, pool[1])
    ) / (5 + 3 * 2 * 5 + 9)
    reports: list[StepReport] = []
    run(model, LESSONS[:1], settings, pool, report=reports.append)
    assert reports[0].replayed == 3  # kept, other, kept
    assert reports[0].loss == pytest.approx(expected.item(), rel=1e-5)
    assert reports[0].tokens == 5 + 5 + 9 + 5
    assert (reports[0].step, reports[0].of) == (1, 1)
    assert reports[0].seconds > 0
    assert reports[0].taken and reports[0].skipped is None and reports[0].kl is None


def test_replay_continues_over_short_sessions() -> None:
    settings = PLAIN.model_copy(update={"replay": 0.25})
    replayed = []
    for lesson in range(6):
        reports: list[StepReport] = []
        run(
            tiny_model("qwen3"),
            LESSONS[:1],
            settings,
            POOL,
            lessons_before=lesson,
            report=reports.append,
            dry_run=True,
        )
        replayed.append(reports[0].replayed)
    assert replayed == [0, 0, 1, 0, 0, 1]


def test_a_review_teaches_what_was_forgotten_and_passes_over_what_holds() -> None:
    model = tiny_model("qwen3")
    forgotten, known = (replace(lesson, learned=True) for lesson in LESSONS[1:3])
    settings = TrainingSettings(lr=1e-2, gate=0.5, replay=0, warmup_steps=0)
    run(model, (known,), settings.model_copy(update={"epochs": 60}))
    assert full_loss(model, known).item() < 0.5 * len(known.continuation_ids)
    reports: list[StepReport] = []
    reviewed = settings.model_copy(update={"epochs": 2, "reviews": 3})
    pool = (*POOL, known, forgotten, known)
    dry = run(model, LESSONS[:1], reviewed, pool, report=reports.append, dry_run=True)
    assert (dry.turns, dry.relearned, len(dry.outcomes)) == (2 + 3 * 3, 3, 1)
    assert [bool(one.gated) for one in reports] == [False, False, *[True, False, False] * 3]

    many = settings.model_copy(update={"epochs": 30, "reviews": 30})
    result = run(model, LESSONS[:1], many, pool)
    assert 0 < result.relearned < 60
    for lesson in (LESSONS[0], known, forgotten):
        assert full_loss(model, lesson).item() < 0.6 * len(lesson.continuation_ids)


def test_without_reviews_learned_lessons_have_no_turns() -> None:
    pool = (*POOL, replace(LESSONS[1], learned=True))
    result = run(tiny_model("qwen3"), LESSONS[:1], PLAIN.model_copy(update={"epochs": 3}), pool)
    assert (result.turns, result.steps, result.relearned) == (3, 3, 0)


def test_a_review_of_lessons_without_a_rejected_answer_trains_them_with_sft() -> None:
    settings = PLAIN.model_copy(update={"objective": "dpo", "reviews": 1})
    lesson = replace(LESSONS[0], rejected_ids=(9, 8, 7))
    past = (replace(LESSONS[1], learned=True), replace(LESSONS[2], rejected_ids=(3, 4), learned=True))
    result = run(tiny_model("qwen3"), (lesson,), settings, past)
    assert (result.turns, result.steps, result.relearned) == (4, 4, 2)


def test_known_lessons_are_gated_with_their_replay() -> None:
    model = tiny_model("qwen3")
    settings = TrainingSettings(lr=1e-2, gate=0.5, replay=0.5, epochs=60)
    reports: list[StepReport] = []
    result = run(model, LESSONS[:1], settings, POOL, report=reports.append)
    gated = [report for report in reports if report.gated]
    taken = [report for report in reports if not report.gated]
    assert gated and taken
    assert all(report.loss < 0.5 and report.replayed == 0 and report.grad_norm == 0 for report in gated)
    assert all((report.gated, report.taken, report.skipped) == (1, False, "gated") for report in gated)
    assert all(report.replayed == 1 for report in taken)
    assert (result.steps, result.gated) == (len(taken), len(gated))
    assert result.outcomes[0].gated


def test_a_session_of_known_lessons_changes_nothing() -> None:
    model = tiny_model("qwen3")
    settings = TrainingSettings(gate=100.0, replay=0.5)
    optimizer = Apollo(parameter_groups(model, settings), settings)
    before = copy.deepcopy(model.state_dict())
    result = run(model, LESSONS, settings, POOL, optimizer=optimizer)
    assert (result.steps, result.gated) == (0, 3)
    assert all(outcome.gated and outcome.loss_after == outcome.loss_before for outcome in result.outcomes)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert not optimizer.state


def test_gradients_are_clipped_to_the_whole_norm() -> None:
    norms: list[float] = []

    class Watched(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            gradients = [weight.grad for weight in self.param_groups[0]["params"]]
            norms.append(nn.utils.get_total_norm(gradients).item())
            return super().step(closure)

    reported: list[float] = []
    for largest in (None, 0.1):
        model = tiny_model("qwen3")
        settings = PLAIN.model_copy(update={"max_grad_norm": largest})
        optimizer = Watched(model.parameters(), lr=1e-9)
        run(
            model,
            LESSONS[:1],
            settings,
            optimizer=optimizer,
            report=lambda report: reported.append(report.grad_norm),
        )
    assert norms[0] > 0.2
    assert norms[1] == pytest.approx(0.1, rel=1e-4)
    assert reported == pytest.approx([norms[0], norms[0]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_dry_run_changes_nothing(dtype: torch.dtype) -> None:
    model = tiny_model("qwen3_5", dtype).train()
    settings = PLAIN.model_copy(update={"replay": 0.5, "max_grad_norm": 1.0})
    optimizer = Apollo(parameter_groups(model, settings), settings)
    run(model, LESSONS, settings, POOL, optimizer=optimizer)
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())

    result = run(model, LESSONS, settings, POOL, optimizer=optimizer, dry_run=True)
    assert (result.steps, len(result.losses)) == (3, 3)
    assert all(outcome.loss_after == outcome.loss_before for outcome in result.outcomes)
    for name, weight in model.state_dict().items():
        assert torch.equal(weight.view(torch.uint8), weights[name].view(torch.uint8))
    after = optimizer.state_dict()
    assert after["param_groups"] == state["param_groups"]
    for index, held in state["state"].items():
        for key, value in held.items():
            assert torch.equal(torch.as_tensor(after["state"][index][key]), torch.as_tensor(value))
    assert all(weight.grad is None for weight in model.parameters())
    assert model.training

    first = run(model, LESSONS[:1], settings, POOL, optimizer=optimizer)
    assert first.losses[0] == result.losses[0]


def test_warm_up_begins_with_a_small_step_and_goes_on_in_the_next_session() -> None:
    """The step is a quarter of itself at the first of four, and whole from the fourth on."""
    moved: dict[int, list[float]] = {}
    for warmup in (0, 4):
        model = tiny_model("qwen3", torch.float64)
        settings = PLAIN.model_copy(update={"warmup_steps": warmup, "norm_growth_limit": None, "lr": 1e-6})
        optimizer = Apollo(parameter_groups(model, settings), settings)
        weight = model.get_parameter("model.layers.1.mlp.up_proj.weight")
        moved[warmup] = []
        for _ in range(5):
            before = weight.detach().clone()
            run(model, LESSONS[:1], settings, optimizer=optimizer)
            moved[warmup].append((weight.detach() - before).norm().item())
    shares = [warm / full for warm, full in zip(moved[4], moved[0], strict=True)]
    assert shares == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0], rel=1e-3)


def test_cancelling_keeps_the_steps_taken() -> None:
    model, other = tiny_model("qwen3"), tiny_model("qwen3")
    reports: list[StepReport] = []
    result = run(model, LESSONS, PLAIN, report=reports.append, cancelled=lambda: len(reports) == 2)
    assert result.cancelled and result.steps == 2
    assert len(result.outcomes) == 3
    assert not run(other, LESSONS[:2], PLAIN).cancelled
    for one, same in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, same)


def test_sessions_are_deterministic() -> None:
    settings = PLAIN.model_copy(update={"replay": 0.5})
    results = [run(tiny_model("qwen3_5", torch.bfloat16), LESSONS, settings, POOL) for _ in range(2)]
    assert results[0].losses == results[1].losses
    assert results[0].outcomes == results[1].outcomes


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (Example((1,), ()), "example 1: expected a continuation of at least 1 token"),
        (Example((1, 97), (1,)), "example 1: expected token ids from 0 to 96, got 97"),
        (Example((1,), (-1,)), "example 1: expected token ids from 0 to 96, got -1"),
        (Example((), (1, 2)), "example 1: expected a context of at least 1 token"),
        (Example((1,), (2,), weight=0.0), "example 1: expected a positive weight, got 0.0"),
        (Example((1,), (2,), rejected_ids=()), "example 1: expected a rejected answer of at least 1 token"),
        (Example((1,), (2,), rejected_ids=(97,)), "example 1: expected token ids from 0 to 96, got 97"),
        (
            Example((1,), (2,), teacher_context_ids=(98,)),
            "example 1: expected token ids from 0 to 96, got 98",
        ),
    ],
)
def test_unusable_examples_are_refused_before_anything_is_trained(bad: Example, message: str) -> None:
    model = tiny_model("qwen3")
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UnusableExample, match=message):
        run(model, (LESSONS[0], bad), PLAIN)
    assert all(torch.equal(now, before[name]) for name, now in model.state_dict().items())


def test_too_long_examples_and_missing_replay_are_refused() -> None:
    model = tiny_model("qwen3", max_position_embeddings=24)
    with pytest.raises(ContextTooLong, match="example 0: expected at most 24 tokens, got 25"):
        run(model, LESSONS, PLAIN)
    with pytest.raises(ContextTooLong, match="replay example 1: expected at most 24 tokens, got 29"):
        run(model, (example(1, context=4),), PLAIN, (example(2, context=4), POOL[1]))
    with pytest.raises(ContextTooLong, match="example 0: expected at most 24 tokens, got 26"):
        run(model, (example(1, context=4, rejected_ids=(1,) * 22),), PLAIN)
    with pytest.raises(ReplayError):
        run(model, LESSONS, PLAIN.model_copy(update={"replay": 0.25}))


@pytest.mark.parametrize(("context", "continuation"), [(1, 1), (1, 4), (2, 1), (20, 1)])
def test_short_examples_are_right(context: int, continuation: int) -> None:
    model = tiny_model("qwen3_5")
    short = example(1, context, continuation)
    expected = full_loss(model, short).item() / continuation
    result = run(model, (short,), PLAIN)
    assert result.losses[0] == pytest.approx(expected, rel=1e-4)
    assert result.outcomes[0].loss_after < expected


def test_an_empty_context_starts_from_the_beginning_of_a_text() -> None:
    model = tiny_model("llama", bos_token_id=7)
    lesson = example(1, 0, 4)
    expected = full_loss(model, replace(lesson, context_ids=(7,))).item() / 4
    assert run(model, (lesson,), PLAIN).losses[0] == pytest.approx(expected, rel=1e-4)
