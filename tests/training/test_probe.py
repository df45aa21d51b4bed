"""The probe against an independent divergence; the bound, and that what broke it is undone bit for bit."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from training_models import ARCHITECTURES, random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Apollo,
    MissingProbe,
    SessionResult,
    StepReport,
    UnusableExample,
    parameter_groups,
    run_session,
)


def example(seed: int, context: int = 20, continuation: int = 5) -> Example:
    ids = random_ids(context + continuation, seed).tolist()
    return Example(tuple(ids[:context]), tuple(ids[context:]))


LESSONS = tuple(example(seed) for seed in range(3))
PROBE = tuple(example(seed, continuation=length) for seed, length in ((20, 6), (21, 3), (22, 8)))
SETTINGS = TrainingSettings(lr=1e-3, rank=1, gate=None, replay=0.0, epochs=2)


def changed(**changes: Any) -> TrainingSettings:
    return SETTINGS.model_copy(update=changes)


def run(
    model: nn.Module, optimizer: Apollo | None, settings: TrainingSettings, **options: Any
) -> SessionResult:
    optimizer = optimizer or Apollo(parameter_groups(model, settings), settings)
    options.setdefault("probe", PROBE)
    return run_session(model, optimizer, options.pop("lessons", LESSONS), (), settings, **options)


def divergences(before: nn.Module, after: nn.Module, probe: Example, tokens: int) -> list[float]:
    """KL(before || after) at each position, by full passes and torch's own formula, in float64."""
    ids = torch.tensor([[*probe.context_ids, *probe.continuation_ids]])
    first = len(probe.context_ids) - 1
    with torch.no_grad():
        old, new = (
            torch.distributions.Categorical(
                logits=model(input_ids=ids).logits[0, first : first + tokens].double()
            )
            for model in (before, after)
        )
    found: list[float] = torch.distributions.kl_divergence(old, new).tolist()
    return found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_divergence_is_measured_against_the_weights_before_the_session(
    architecture: str, dtype: torch.dtype
) -> None:
    model = tiny_model(architecture, dtype)
    start = copy.deepcopy(model)
    kl = run(model, None, changed(lr=1e-2)).kl
    expected = [divergences(start, model, probe, len(probe.continuation_ids)) for probe in PROBE]
    flat = [position for found in expected for position in found]
    assert kl is not None and (kl.n, kl.examples) == (17, 3)
    assert kl.mean == pytest.approx(sum(flat) / 17, rel=1e-3 if dtype == torch.float32 else 0.1)
    assert kl.mean > 1e-3


def test_the_standard_error_is_that_of_examples_not_of_positions() -> None:
    model = tiny_model("qwen3")
    start = copy.deepcopy(model)
    kl = run(model, None, SETTINGS).kl
    found = [divergences(start, model, probe, len(probe.continuation_ids)) for probe in PROBE]
    mean = sum(map(sum, found)) / 17
    squares = sum((sum(example) - mean * len(example)) ** 2 for example in found)
    assert kl is not None
    assert kl.standard_error == pytest.approx(math.sqrt(3 / 2 * squares) / 17, rel=1e-3)


@pytest.mark.parametrize(("tokens", "examples"), [(1, 1), (6, 1), (7, 2), (10, 3), (100, 3)])
def test_the_first_positions_are_taken(tokens: int, examples: int) -> None:
    model = tiny_model("qwen3")
    start = copy.deepcopy(model)
    kl = run(model, None, changed(probe_tokens=tokens)).kl
    assert kl is not None and (kl.n, kl.examples) == (min(tokens, 17), examples)
    flat = [one for probe in PROBE for one in divergences(start, model, probe, len(probe.continuation_ids))]
    assert kl.mean == pytest.approx(sum(flat[: kl.n]) / kl.n, rel=1e-3)
    assert math.isfinite(kl.standard_error) and (kl.standard_error > 0) is (tokens > 1)


def test_weights_that_did_not_move_diverge_by_nothing() -> None:
    kl = run(tiny_model("qwen3_5"), None, changed(gate=100.0)).kl
    assert kl is not None and (kl.mean, kl.standard_error) == (0.0, 0.0)


def test_measuring_changes_no_number_of_the_session() -> None:
    models = [tiny_model("qwen3_5") for _ in range(3)]
    results = [
        run(models[0], None, SETTINGS, probe=()),
        run(models[1], None, SETTINGS),
        run(models[2], None, changed(max_kl=1e9)),
    ]
    assert results[0].kl is None
    assert results[0].losses == results[1].losses == results[2].losses
    assert results[0].outcomes == results[1].outcomes == results[2].outcomes
    for other in models[1:]:
        assert all(map(torch.equal, models[0].parameters(), other.parameters()))


def test_no_probe_no_divergence() -> None:
    model = tiny_model("qwen3")
    assert run(model, None, changed(probe_tokens=0)).kl is None
    assert run(model, None, SETTINGS, dry_run=True).kl is None


def state_of(optimizer: Apollo) -> list[Any]:
    held = copy.deepcopy(optimizer.state_dict())
    return [held["param_groups"], [(index, sorted(state)) for index, state in held["state"].items()]] + [
        torch.as_tensor(state[key]) for state in held["state"].values() for key in sorted(state)
    ]


def assert_equal(ours: list[Any], theirs: list[Any]) -> None:
    assert ours[:2] == theirs[:2]
    assert all(map(torch.equal, ours[2:], theirs[2:]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_beyond_the_bound_is_undone_bit_for_bit_and_the_last(dtype: torch.dtype) -> None:
    free: list[StepReport] = []
    run(tiny_model("qwen3", dtype), None, changed(max_kl=1e9), report=free.append)
    divergence = [report.kl for report in free]
    assert all(one is not None for one in divergence) and len(divergence) == 6
    largest = max(one for one in divergence[:3] if one is not None)
    last = next(place for place, one in enumerate(divergence) if one is not None and one > largest)
    assert last == 3

    model, settings = tiny_model("qwen3", dtype), changed(max_kl=largest)
    optimizer = Apollo(parameter_groups(model, settings), settings)
    reports: list[StepReport] = []
    result = run(model, optimizer, settings, report=reports.append)
    assert [report.taken for report in reports] == [True, True, True, False]
    assert [report.kl for report in reports] == divergence[:4]
    assert result.steps == 3 and result.skipped == 0
    assert result.kl is not None and result.kl.mean == divergence[2]
    assert result.stopped is not None and "step 4 of 6" in result.stopped
    assert result.stopped.endswith("was undone; the 3 steps before it were kept")
    assert reports[3].skipped is not None and reports[3].skipped.startswith("max_kl")

    plain = tiny_model("qwen3", dtype)
    other = Apollo(parameter_groups(plain, settings), settings)
    run(plain, other, changed(epochs=1), probe=())
    assert all(map(torch.equal, model.parameters(), plain.parameters()))
    assert_equal(state_of(optimizer), state_of(other))
    for each, its in ((model, optimizer), (plain, other)):  # and they go on alike
        run(each, its, changed(epochs=1), probe=())
    assert all(map(torch.equal, model.parameters(), plain.parameters()))


def test_when_the_first_step_breaks_the_bound_nothing_remains() -> None:
    model, settings = tiny_model("qwen3_5", torch.bfloat16), changed(max_kl=1e-9)
    places = [weight.data_ptr() for weight in model.parameters()]
    start, optimizer = copy.deepcopy(model), Apollo(parameter_groups(model, settings), settings)
    fresh = state_of(optimizer)
    result = run(model, optimizer, settings)
    assert (result.steps, len(result.losses)) == (0, 1)
    assert result.kl is not None and result.kl.mean == 0
    assert result.stopped is not None and "the 0 steps before it were kept" in result.stopped
    assert all(outcome.loss_after == outcome.loss_before for outcome in result.outcomes)
    assert all(map(torch.equal, model.parameters(), start.parameters()))
    assert [weight.data_ptr() for weight in model.parameters()] == places  # others read this memory
    assert_equal(state_of(optimizer), fresh)


def test_a_bound_that_cannot_be_measured_is_refused() -> None:
    model = tiny_model("qwen3")
    with pytest.raises(MissingProbe, match=r"to hold max_kl 0\.1, got 0 examples and 256 tokens"):
        run(model, None, changed(max_kl=0.1), probe=())
    with pytest.raises(MissingProbe, match="got 3 examples and 0 tokens"):
        run(model, None, changed(max_kl=0.1, probe_tokens=0))
    with pytest.raises(UnusableExample, match="probe example 1: expected a continuation"):
        run(model, None, SETTINGS, probe=(PROBE[0], Example((1,), ())))
