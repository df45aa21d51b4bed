"""A session: a run of steps over lessons, mixed with replay. `examples/train_one_lesson.py` is one, flat."""

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.objectives import find_objective
from understudy.training.outcomes import GATED, ExampleOutcome, SessionResult, StepReport, TrainingDiverged
from understudy.training.probe import Bound, Probe
from understudy.training.reading import Reading, measure
from understudy.training.replay import Replay
from understudy.training.step import Turn, take_step
from understudy.training.usable import check_examples, lacking


def _ignore(_: StepReport) -> None: ...


def run_session(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    examples: Sequence[Example],
    replay: Sequence[Example],
    settings: TrainingSettings,
    *,
    probe: Sequence[Example] = (),
    lessons_before: int = 0,
    report: Callable[[StepReport], None] = _ignore,
    cancelled: Callable[[], bool] = lambda: False,
    dry_run: bool = False,
) -> SessionResult:
    """Teach the model the examples, `settings.batch_size` to a step, in order, `settings.epochs` times over,
    then `settings.reviews` times all lessons: those of the pool that were learned before, and the examples.

    Each example is measured before and after; so is the divergence on `probe`. A lesson whose mean negative
    log-likelihood is under `settings.gate` is passed over with its replay, since replay alone would move the
    weights for nothing. A step that is not finite is skipped. With `settings.max_kl`, a step that moves the
    probe further than that is undone, optimizer included, and is the last one.

    `replay` is the pool to draw on; `lessons_before` how many lessons earlier sessions had, so that the
    shares hold over many short ones. `cancelled` is asked before each step; the steps taken until then stay.
    A dry run computes losses and gradients and changes nothing; each of its steps is the one that would be
    taken first.

    Raises UnknownObjective, UnusableExample, ContextTooLong, MissingProbe or ReplayError before anything is
    trained, and TrainingDiverged when no step was finite or the weights no longer are. That, and whatever
    else comes through (out of memory, for one), leaves a session that the caller must undo. However this
    ends, the model leaves without gradients and in the mode it came in.
    """
    started = time.perf_counter()
    objective = find_objective(settings.objective)
    steps = _plan(examples, replay, settings, lessons_before)
    check_examples(model, examples, replay, probe, objective, settings)
    reports: list[StepReport] = []
    gated: set[int] = set()
    broken: list[StepReport] = []
    relearned = 0
    was_cancelled = False
    with _as_served(model, optimizer):
        before = measure(model, examples, settings, teacher=objective.teacher)
        references = _references(model, examples, before, steps, settings)
        drift = Probe(model, probe, settings) if probe and settings.probe_tokens and not dry_run else None
        bound = Bound(model, optimizer, drift, settings) if drift and settings.max_kl is not None else None
        for number, turns in enumerate(steps, start=1):
            was_cancelled = cancelled()
            if was_cancelled:
                break
            numbered = (number, len(steps))
            done, known = take_step(
                model, optimizer, turns, settings, references, numbered=numbered, dry_run=dry_run
            )
            if not done.taken and done.gated < len(turns):
                broken.append(done)
            if bound is not None:
                done = bound.hold(done)
            gated.update(place for place in known if place is not None)
            if done.taken:
                relearned += sum(turn.place is None for turn in turns) - known.count(None)
            reports.append(done)
            report(done)
            if bound is not None and bound.stopped is not None:
                break
        after = before if dry_run else measure(model, examples, settings)
        kl = drift.measure(model) if drift is not None else None
    result = SessionResult(
        steps=sum(done.taken for done in reports),
        gated=sum(done.gated for done in reports),
        skipped=len(broken),
        outcomes=tuple(
            _outcome(*readings, place in gated)
            for place, readings in enumerate(zip(before, after, strict=True))
        ),
        losses=tuple(done.loss for done in reports),
        tokens=sum(done.tokens for done in reports),
        seconds=time.perf_counter() - started,
        cancelled=was_cancelled,
        kl=kl,
        stopped=bound.stopped if bound is not None else None,
        turns=sum(map(len, steps)),
        relearned=relearned,
    )
    _check_finite(result, reports, broken)
    return result


@contextmanager
def _as_served(model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """The function that serves, without dropout, and no gradients before or after, whatever happens."""
    was_training = model.training
    model.eval()
    optimizer.zero_grad()
    try:
        yield
    finally:
        optimizer.zero_grad()
        model.train(was_training)


def _plan(
    examples: Sequence[Example], replay: Sequence[Example], settings: TrainingSettings, lessons_before: int
) -> list[list[Turn]]:
    """The turns of every step. A step does not reach over the end of an epoch or of a review."""
    schedule = Replay(
        tuple(replay), settings.replay, settings.contrast_share, settings.lesson_share, settings.seed
    )
    lessons = list(enumerate(examples))
    past = [(None, example) for example in dict.fromkeys(replay) if example.learned]
    passes = [lessons] * settings.epochs + [past + lessons] * settings.reviews
    numbers = itertools.count(lessons_before + 1)
    size = settings.batch_size
    return [
        [Turn(place, example, schedule.due(next(numbers))) for place, example in one[first : first + size]]
        for one in passes
        for first in range(0, len(one), size)
    ]


def _references(
    model: nn.Module,
    examples: Sequence[Example],
    before: Sequence[Reading],
    steps: Sequence[Sequence[Turn]],
    settings: TrainingSettings,
) -> dict[Example, Reading]:
    """What the weights before the session give the examples that the objective compares with that: all
    lessons, and what was learned before and will be shown and has what the objective needs.
    """
    objective = find_objective(settings.objective)
    if not (objective.reference or objective.teacher):
        return {}
    turns = [turn for step in steps for turn in step]
    reviewed = [turn.lesson for turn in turns if turn.place is None]
    shown = dict.fromkeys([*reviewed, *(example for turn in turns for example in turn.replayed)])
    compared = [example for example in shown if lacking(example, objective) is None]
    readings = measure(model, compared, settings, teacher=objective.teacher)
    return {**dict(zip(compared, readings, strict=True)), **dict(zip(examples, before, strict=True))}


def _outcome(before: Reading, after: Reading, gated: bool) -> ExampleOutcome:
    return ExampleOutcome(
        loss_before=before.loss,
        loss_after=after.loss,
        first_token_before=before.first_token,
        first_token_after=after.first_token,
        gated=gated,
        tokens=len(before.chosen),
        rejected_tokens=0 if before.rejected is None else len(before.rejected),
        rejected_loss_before=before.rejected_loss,
        rejected_loss_after=after.rejected_loss,
    )


def _check_finite(result: SessionResult, reports: Sequence[StepReport], broken: Sequence[StepReport]) -> None:
    """Raise TrainingDiverged for a session of which nothing may remain."""
    advice = "undo the session; lower lr, or revert to an earlier weight commit"
    wanted = [done for done in reports if done.skipped != GATED]
    if broken and len(broken) == len(wanted) and not result.cancelled:
        raise TrainingDiverged(
            f"expected finite losses and gradients, got none in {len(broken)} of {len(wanted)} steps "
            f"(step {broken[0].step}: {broken[0].skipped}): {advice}"
        )
    for place, outcome in enumerate(result.outcomes):
        for name in ("loss", "rejected_loss"):
            then, now = getattr(outcome, f"{name}_before"), getattr(outcome, f"{name}_after")
            if now is not None and math.isfinite(then) and not math.isfinite(now):
                raise TrainingDiverged(
                    f"example {place}: expected a finite {name} after the session, got {now}: {advice}"
                )
    if result.kl is not None and not math.isfinite(result.kl.mean):
        raise TrainingDiverged(
            f"expected a finite divergence on the probe, got {result.kl.mean} nats per token: {advice}"
        )
