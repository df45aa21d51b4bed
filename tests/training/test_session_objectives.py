"""Sessions with objectives that compare: what they reach, against what, and what is reported of it."""

import copy
import math
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
    ExampleOutcome,
    LogProbabilities,
    SessionResult,
    StepReport,
    UnusableExample,
    find_objective,
    parameter_groups,
    run_session,
)


def ids(tokens: int, seed: int) -> tuple[int, ...]:
    return tuple(random_ids(tokens, seed).tolist())


def example(seed: int, **changes: Any) -> Example:
    """A pair of different lengths, and a teacher's context that begins as the context does."""
    context = ids(20, seed)
    criticised = (*context[:12], *ids(9, 300 + seed))
    given = Example(context, ids(5, 100 + seed), ids(7, 200 + seed), teacher_context_ids=criticised)
    return replace(given, **changes)


LESSONS = tuple(example(seed) for seed in range(3))
PLAIN = TrainingSettings(lr=1e-2, rank=1, gate=None, replay=0.0, max_grad_norm=None, epochs=4)


def settings_of(objective: str, **changes: Any) -> TrainingSettings:
    return PLAIN.model_copy(update={"objective": objective, **changes})


def run(
    model: nn.Module,
    examples: tuple[Example, ...],
    settings: TrainingSettings,
    pool: tuple[Example, ...] = (),
    **options: Any,
) -> SessionResult:
    optimizer = Apollo(parameter_groups(model, settings), settings)
    return run_session(model, optimizer, examples, pool, settings, **options)


@torch.no_grad()
def logits(model: nn.Module, context: tuple[int, ...], answer: tuple[int, ...]) -> torch.Tensor:
    """Of the answer, by one full pass: (T, V)."""
    found: torch.Tensor = model(input_ids=torch.tensor([[*context, *answer]])).logits
    return found[0, len(context) - 1 : -1].float()


def token_log_probabilities(
    model: nn.Module, context: tuple[int, ...], answer: tuple[int, ...] | None
) -> torch.Tensor:
    assert answer is not None
    return logits(model, context, answer).log_softmax(-1)[torch.arange(len(answer)), list(answer)]


def given(model: nn.Module, start: nn.Module, shown: Example) -> LogProbabilities:
    """All that an objective may ask for, by full passes; the reference and the teacher are `start`."""
    assert shown.teacher_context_ids is not None
    return LogProbabilities(
        token_log_probabilities(model, shown.context_ids, shown.continuation_ids),
        token_log_probabilities(model, shown.context_ids, shown.rejected_ids),
        token_log_probabilities(start, shown.context_ids, shown.continuation_ids),
        token_log_probabilities(start, shown.context_ids, shown.rejected_ids),
        logits(model, shown.context_ids, shown.continuation_ids).log_softmax(-1),
        logits(start, shown.teacher_context_ids, shown.continuation_ids).log_softmax(-1),
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("objective", ["dpo", "orpo", "distillation"])
def test_every_objective_falls(objective: str, architecture: str, dtype: torch.dtype) -> None:
    model, settings = tiny_model(architecture, dtype), settings_of(objective)
    start = copy.deepcopy(model)
    measured = find_objective(objective)
    before, after = [], []
    run(model, LESSONS, settings)
    for lesson in LESSONS:
        before.append(measured(given(start, start, lesson), settings).item())
        after.append(measured(given(model, start, lesson), settings).item())
    assert sum(after) < 0.8 * sum(before)
    assert all(weight.grad is None for weight in model.parameters())


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("objective", ["dpo", "orpo", "distillation"])
def test_references_and_teacher_are_the_weights_before_the_session(objective: str, batch_size: int) -> None:
    """At every step of two epochs, not only at the first, whose weights they are too."""
    model, settings = tiny_model("qwen3_5"), settings_of(objective, batch_size=batch_size, epochs=2)
    start, measured = copy.deepcopy(model), find_objective(objective)
    now = [copy.deepcopy(model)]
    reports: list[StepReport] = []

    def look(report: StepReport) -> None:
        now.append(copy.deepcopy(model))
        reports.append(report)

    run(model, LESSONS, settings, report=look)
    batches = [LESSONS] if batch_size == 3 else [(lesson,) for lesson in LESSONS]
    for weights, report, batch in zip(now, reports, batches * 2, strict=False):
        expected = sum(measured(given(weights, start, lesson), settings).item() for lesson in batch)
        assert report.loss == pytest.approx(expected / len(batch), rel=2e-3)
    assert len(reports) == 6 // batch_size


def test_margins_are_reported_per_token_and_for_the_whole_sequence() -> None:
    model = tiny_model("qwen3")
    start = copy.deepcopy(model)
    result = run(model, LESSONS, settings_of("dpo"))
    for outcome, lesson in zip(result.outcomes, LESSONS, strict=True):
        old, new = given(start, start, lesson), given(model, start, lesson)
        assert old.rejected is not None and new.rejected is not None
        assert (outcome.tokens, outcome.rejected_tokens) == (5, 7)
        for now, whole, token, chosen, rejected in (
            (
                old,
                outcome.margin_before,
                outcome.token_margin_before,
                outcome.chosen_log_probability_before,
                outcome.rejected_log_probability_before,
            ),
            (
                new,
                outcome.margin_after,
                outcome.token_margin_after,
                outcome.chosen_log_probability_after,
                outcome.rejected_log_probability_after,
            ),
        ):
            assert now.rejected is not None
            assert whole == pytest.approx((now.chosen.sum() - now.rejected.sum()).item(), rel=1e-3)
            assert token == pytest.approx(
                (now.chosen.mean() - now.rejected.mean()).item(), rel=1e-3, abs=1e-4
            )
            assert chosen == pytest.approx(now.chosen.sum().item(), rel=1e-4)
            assert rejected == pytest.approx(now.rejected.sum().item(), rel=1e-4)
        assert outcome.margin_before is not None and outcome.margin_after is not None
        assert outcome.margin_after > outcome.margin_before + 1


def test_margins_are_measured_whatever_the_objective_and_absent_without_a_rejected_answer() -> None:
    model = tiny_model("qwen3")
    compared, alone = run(
        model, (LESSONS[0], replace(LESSONS[1], rejected_ids=None)), settings_of("sft")
    ).outcomes
    assert compared.margin_after is not None and compared.margin_before is not None
    assert compared.margin_after > compared.margin_before
    assert (alone.rejected_tokens, alone.rejected_loss_before, alone.rejected_loss_after) == (0, None, None)
    assert alone.margin_before is None and alone.token_margin_after is None
    assert alone.rejected_log_probability_before is None and alone.rejected_log_probability_after is None


def corrected_tokens(model: nn.Module) -> tuple[Example, ...]:
    """The model's own answer is rejected, and the chosen one differs from it in one token near its start."""
    pairs = []
    for seed in range(4):
        context, said = ids(20, 400 + seed), list[int]()
        for _ in range(12):
            said.append(int(logits(model, (*context, *said), (0,)).argmax()))
        wanted = (said[0], (said[1] + 1) % 97, *said[2:])
        pairs.append(Example(context, wanted, tuple(said)))
    return tuple(pairs)


def test_the_guard_keeps_the_chosen_answer_from_falling() -> None:
    """Plain dpo parts the answers at the chosen one's cost too; with the guard they part, and it rises."""
    fell = {}
    for guard in (0.0, TrainingSettings().chosen_guard):
        model, settings = tiny_model("qwen3"), settings_of("dpo", chosen_guard=guard, beta=1.0, epochs=10)
        outcomes = run(model, corrected_tokens(model), settings).outcomes
        for outcome in outcomes:
            assert outcome.margin_before is not None and outcome.margin_after is not None
            assert outcome.margin_after > outcome.margin_before + 1
        fell[guard] = [outcome.fell for outcome in outcomes]
    assert fell == {0.0: [True] * 4, TrainingSettings().chosen_guard: [False] * 4}


def test_fell_is_about_the_chosen_answer_alone() -> None:
    outcome = ExampleOutcome(1.0, 1.5, 0.1, 0.1, False, 4, 4, 1.0, 9.0)
    assert outcome.fell and outcome.margin_before == 0 and outcome.margin_after == 30
    assert not replace(outcome, loss_after=1.0).fell


@pytest.mark.parametrize(
    ("objective", "bad", "message"),
    [
        ("dpo", {"rejected_ids": None}, "example 1: the objective 'dpo' compares .* rejected_ids, got none"),
        (
            "orpo",
            {"rejected_ids": None},
            "example 1: the objective 'orpo' compares .* rejected_ids, got none",
        ),
        ("dpo", {"rejected_ids": LESSONS[1].continuation_ids}, "expected one that differs .* got the same"),
        (
            "distillation",
            {"teacher_context_ids": None},
            "example 1: .* expected teacher_context_ids, got none",
        ),
    ],
)
def test_lessons_that_lack_what_the_objective_needs_are_refused_before_anything_is_trained(
    objective: str, bad: dict[str, Any], message: str
) -> None:
    model = tiny_model("qwen3")
    start = copy.deepcopy(model.state_dict())
    with pytest.raises(UnusableExample, match=message):
        run(model, (LESSONS[0], replace(LESSONS[1], **bad)), settings_of(objective))
    assert all(torch.equal(now, start[name]) for name, now in model.state_dict().items())


@pytest.mark.parametrize("objective", ["dpo", "distillation"])
def test_replay_without_what_the_objective_needs_is_trained_with_sft(objective: str) -> None:
    """Of two old examples one has it, and is compared with what the weights before the session gave it."""
    model, start = tiny_model("qwen3"), tiny_model("qwen3")
    plain, compared = Example(ids(10, 1), ids(8, 2), kept=True), example(7)
    settings = settings_of(objective, replay=0.67, contrast_share=0.5, epochs=1)
    reports: list[StepReport] = []
    now: list[nn.Module] = [copy.deepcopy(model)]

    def look(report: StepReport) -> None:
        now.append(copy.deepcopy(model))
        reports.append(report)

    run(model, LESSONS, settings, (plain, compared), report=look)
    assert [report.replayed for report in reports] == [2, 2, 2]
    loss = find_objective(objective)
    for weights, lesson, report in zip(now, LESSONS, reports, strict=False):
        sft = -token_log_probabilities(weights, plain.context_ids, plain.continuation_ids).mean().item()
        expected = (
            5 * loss(given(weights, start, lesson), settings).item()
            + 8 * sft
            + 5 * loss(given(weights, start, compared), settings).item()
        ) / 18
        assert report.loss == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize("objective", ["dpo", "orpo", "distillation"])
def test_a_dry_run_changes_nothing_and_reports_the_first_step(objective: str) -> None:
    model, settings = tiny_model("qwen3", torch.bfloat16), settings_of(objective, epochs=1)
    start = copy.deepcopy(model)
    result = run(model, LESSONS, settings, dry_run=True)
    assert all(map(torch.equal, model.parameters(), start.parameters()))
    assert all(outcome.rejected_loss_after == outcome.rejected_loss_before for outcome in result.outcomes)
    assert run(model, LESSONS, settings).losses[0] == result.losses[0]


def test_the_gate_asks_for_the_chosen_answer_s_loss() -> None:
    model, settings = tiny_model("qwen3"), settings_of("dpo", gate=0.5, lr=1e-2, epochs=40, chosen_guard=0.0)
    model.requires_grad_(True)
    reports: list[StepReport] = []
    sft = settings_of("sft", gate=0.5, epochs=60)
    run(model, LESSONS[:1], sft)
    result = run(model, LESSONS[:1], settings, report=reports.append)
    assert reports[0].gated == 1 and not reports[0].taken
    assert reports[0].loss == pytest.approx(result.outcomes[0].loss_before)
    assert result.outcomes[0].gated and math.isfinite(reports[-1].loss)
