"""A session: a run of steps over lessons, mixed with replay. `examples/train_one_lesson.py` is one, flat."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.frozen import ContextTooLong, continuation_log_probabilities, freeze_context
from understudy.training.objectives import LogProbabilities, Objective, find_objective
from understudy.training.replay import Replay


class SessionError(Exception):
    """A session that cannot go on."""


class UnusableExample(SessionError, ValueError):
    """An example that this model cannot be trained on."""


class TrainingDiverged(SessionError, RuntimeError):
    """A loss or a gradient is not finite. The step was not taken; steps before it were."""


@dataclass(frozen=True, slots=True)
class ExampleOutcome:
    """What the session did to one example: mean negative log-likelihood of its continuation in nats per
    token, and the probability of the continuation's first token, which moves before any greedy answer does.

    `gated`: at least one of its steps was skipped because it was known already.
    """

    loss_before: float
    loss_after: float
    first_token_before: float
    first_token_after: float
    gated: bool


@dataclass(frozen=True, slots=True)
class StepReport:
    """Step `step` of `of`. `loss` is the step's whole loss, that of the lesson alone when it was gated;
    `tokens` were supervised, `replayed` examples among them; `grad_norm` is measured before clipping.
    """

    step: int
    of: int
    loss: float
    tokens: int
    grad_norm: float
    gated: bool
    seconds: float
    replayed: int


@dataclass(frozen=True, slots=True)
class SessionResult:
    """What a session did. `steps` were taken (in a dry run: would be), `gated` were skipped.

    `losses` has one entry per report; `outcomes` one per example.
    """

    steps: int
    gated: int
    outcomes: tuple[ExampleOutcome, ...]
    losses: tuple[float, ...]
    tokens: int
    seconds: float
    cancelled: bool


def _ignore(_: StepReport) -> None: ...


def run_session(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    replay: Sequence[Example],
    settings: TrainingSettings,
    *,
    lessons_before: int = 0,
    report: Callable[[StepReport], None] = _ignore,
    cancelled: Callable[[], bool] = lambda: False,
    dry_run: bool = False,
) -> SessionResult:
    """Teach the model the examples, one step each, in order, `settings.epochs` times over.

    A step's loss is the mean over the tokens of the lesson and of the replay due with it, each token
    weighing its example's `weight`. An example whose mean negative log-likelihood is already under
    `settings.gate` is gated: no step is taken and its replay is not shown, since replay alone would
    move the weights for nothing.

    `replay` is the pool to draw on; `lessons_before` how many lessons earlier sessions had, so that the
    shares hold over many short sessions. `cancelled` is asked before each step; the steps taken until
    then stay. A dry run computes losses and gradients and changes nothing; each of its steps is the one
    that would be taken first.

    Raises UnusableExample or ReplayError before anything is trained, and TrainingDiverged before a step
    that would not be finite. The model leaves without gradients, in the mode it came in.
    """
    started = time.perf_counter()
    objective = find_objective(settings.objective)
    schedule = Replay(tuple(replay), settings.replay, settings.contrast_share, settings.seed)
    for place, example in enumerate([*examples, *replay]):
        _check(model, example, place, len(examples))
    lessons = [place for _ in range(settings.epochs) for place in range(len(examples))]
    was_training = model.training
    model.eval()  # the same function that serves: no dropout
    optimizer.zero_grad()
    try:
        before = [_measure(model, example) for example in examples]
        reports: list[StepReport] = []
        gated: set[int] = set()
        stopped = False
        for step, place in enumerate(lessons, start=1):
            stopped = cancelled()
            if stopped:
                break
            done = _step(
                model,
                optimizer,
                examples[place],
                schedule.due(lessons_before + step),
                settings,
                objective,
                numbered=(step, len(lessons)),
                dry_run=dry_run,
            )
            if done.gated:
                gated.add(place)
            reports.append(done)
            report(done)
        after = before if dry_run else [_measure(model, example) for example in examples]
    finally:
        optimizer.zero_grad()
        model.train(was_training)
    return SessionResult(
        steps=sum(not done.gated for done in reports),
        gated=sum(done.gated for done in reports),
        outcomes=tuple(
            ExampleOutcome(loss, new_loss, first, new_first, place in gated)
            for place, ((loss, first), (new_loss, new_first)) in enumerate(zip(before, after, strict=True))
        ),
        losses=tuple(done.loss for done in reports),
        tokens=sum(done.tokens for done in reports),
        seconds=time.perf_counter() - started,
        cancelled=stopped,
    )


def _step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    lesson: Example,
    replayed: Sequence[Example],
    settings: TrainingSettings,
    objective: Objective,
    *,
    numbered: tuple[int, int],
    dry_run: bool,
) -> StepReport:
    """One step, or none when the lesson is known already."""
    started = time.perf_counter()
    step, of = numbered
    tokens = len(lesson.continuation_ids)
    chosen = _log_probabilities(model, lesson)
    known = -chosen.detach().mean().item()
    if settings.gate is not None and known < settings.gate:
        return StepReport(step, of, known, tokens, 0.0, True, time.perf_counter() - started, 0)

    shown = [lesson, *replayed]
    total = sum(example.weight * len(example.continuation_ids) for example in shown)
    loss = 0.0
    for example in shown:
        if example is not lesson:
            chosen = _log_probabilities(model, example)
        share = example.weight * len(example.continuation_ids) / total
        part = objective(LogProbabilities(chosen)) * share
        loss += part.item()
        if not math.isfinite(loss):
            optimizer.zero_grad()
            raise TrainingDiverged(f"step {step} of {of}: expected a finite loss, got {loss}: {_ADVICE}")
        part.backward()  # type: ignore[no-untyped-call]
        del chosen, part  # one example's graph at a time
    grad_norm = _clip(optimizer, settings.max_grad_norm)
    if not math.isfinite(grad_norm):
        optimizer.zero_grad()
        raise TrainingDiverged(
            f"step {step} of {of}: expected a finite gradient, got norm {grad_norm}: {_ADVICE}"
        )
    if not dry_run:
        optimizer.step()
    optimizer.zero_grad()
    return StepReport(
        step,
        of,
        loss,
        sum(len(example.continuation_ids) for example in shown),
        grad_norm,
        False,
        time.perf_counter() - started,
        len(replayed),
    )


_ADVICE = "the weights are as before this step; lower lr, or revert to an earlier weight commit"


def _log_probabilities(model: nn.Module, example: Example) -> Tensor:
    """Of the example's continuation after its frozen context, shape (T,)."""
    device = next(model.parameters()).device
    frozen = freeze_context(model, torch.tensor([example.context_ids], dtype=torch.long, device=device))
    continuation_ids = torch.tensor(example.continuation_ids, dtype=torch.long, device=device)
    return continuation_log_probabilities(model, frozen, continuation_ids)


@torch.no_grad()
def _measure(model: nn.Module, example: Example) -> tuple[float, float]:
    """Mean negative log-likelihood and the first token's probability."""
    found = _log_probabilities(model, example)
    return -found.mean().item(), found[0].exp().item()


def _clip(optimizer: torch.optim.Optimizer, largest: float | None) -> float:
    """The norm of the whole gradient, which is scaled down to `largest` when it is longer."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    norm = nn.utils.get_total_norm([weight.grad for weight in weights if weight.grad is not None])
    if largest is not None:
        nn.utils.clip_grads_with_norm_(weights, largest, norm)
    return norm.item()


def _check(model: nn.Module, example: Example, place: int, lessons: int) -> None:
    """Raise UnusableExample for what would fail, or train nonsense, in the middle of a session."""
    name = f"example {place}" if place < lessons else f"replay example {place - lessons}"
    if not example.continuation_ids:
        raise UnusableExample(f"{name}: expected a continuation of at least 1 token, got none")
    if not (example.weight > 0 and math.isfinite(example.weight)):
        raise UnusableExample(f"{name}: expected a positive weight, got {example.weight}")
    config = model.config.get_text_config()  # type: ignore[operator,union-attr]
    for ids in (example.context_ids, example.continuation_ids):
        wrong = [token for token in ids if not 0 <= token < config.vocab_size]
        if wrong:
            raise UnusableExample(
                f"{name}: expected token ids from 0 to {config.vocab_size - 1}, got {wrong[0]}: "
                "was it made with another model's tokenizer?"
            )
    if not example.context_ids and config.bos_token_id is None:
        raise UnusableExample(
            f"{name}: expected a context of at least 1 token, got none, and the model has no bos_token_id"
        )
    limit = getattr(config, "max_position_embeddings", None)
    tokens = len(example.context_ids) + len(example.continuation_ids)
    if limit is not None and tokens > limit:
        raise ContextTooLong(f"{name}: expected at most {limit} tokens, got {tokens}: shorten the context")
