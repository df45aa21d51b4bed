"""One step of a session: gate, losses and gradients of lessons and replay, one write of the weights."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training.activations import checkpointed
from understudy.training.frozen import FrozenContext
from understudy.training.objectives import find_objective
from understudy.training.outcomes import GATED, StepReport
from understudy.training.reading import Reading, freeze_all, read
from understudy.training.usable import lacking


@dataclass(frozen=True, slots=True)
class Turn:
    """A lesson whose turn it is, its place in the session, and the old examples that are due with it.

    `place` is None for a lesson that was learned before and is reviewed.
    """

    place: int | None
    lesson: Example
    replayed: tuple[Example, ...]


class _NotFinite(Exception):
    """A loss or a gradient is not finite; the message says which."""


def take_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    turns: Sequence[Turn],
    settings: TrainingSettings,
    before: Mapping[Example, Reading],
    *,
    numbered: tuple[int, int],
    dry_run: bool,
) -> tuple[StepReport, list[int | None]]:
    """One step over a batch of lessons and their replay, or none when every lesson is known already, or
    something is not finite: then weights, moments and step counters stay as they are. Also returns the
    places of the lessons that were known.

    The loss is the mean over the tokens of all continuations shown, each token weighing its example's
    `weight`. `before` holds what the weights before the session gave the examples that are compared with it.
    """
    started = time.perf_counter()
    step = _Step(model, optimizer, turns, settings, before)
    grad_norm, skipped = 0.0, None
    try:
        if step.show_lessons():
            step.show_replay()
            grad_norm = step.clip()
            if not dry_run:
                optimizer.step()
        else:
            skipped = GATED
    except _NotFinite as reason:
        skipped = str(reason)
    optimizer.zero_grad()
    report = StepReport(
        *numbered,
        loss=step.loss,
        tokens=step.tokens,
        grad_norm=grad_norm,
        gated=len(step.known),
        taken=skipped is None,
        seconds=time.perf_counter() - started,
        replayed=step.replayed,
        skipped=skipped,
    )
    return report, [turns[known].place for known in step.known]


class _Step:
    """Losses and gradients of a step as they gather, one example's graph at a time.

    Lessons are shown before any replay, since a lesson that is known takes its replay with it. Until then
    each example's share of the loss is its share of all that may be shown; `show_replay` corrects it.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        turns: Sequence[Turn],
        settings: TrainingSettings,
        before: Mapping[Example, Reading],
    ) -> None:
        self._model = model
        self._weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        self._turns = turns
        self._settings = settings
        self._before = before
        self._objective = find_objective(settings.objective)
        self._otherwise = find_objective("sft")
        self._whole = sum(_weight(shown) for turn in turns for shown in (turn.lesson, *turn.replayed))
        self.loss = 0.0
        self.tokens = sum(len(turn.lesson.continuation_ids) for turn in turns)
        self.replayed = 0
        self.known: dict[int, float] = {}

    def show_lessons(self) -> bool:
        """Gradients of the lessons that are not known yet; False when all are."""
        contexts = [turn.lesson.context_ids for turn in self._turns]
        for place, frozen in freeze_all(self._model, contexts, self._settings):
            self._show(frozen, self._turns[place].lesson, place)
            del frozen  # before the next is read
        if len(self.known) < len(self._turns):
            return True
        lessons = [turn.lesson for turn in self._turns]
        losses = (self.known[place] * _weight(lesson) for place, lesson in enumerate(lessons))
        self.loss = sum(losses) / sum(_weight(lesson) for lesson in lessons)
        return False

    def show_replay(self) -> None:
        """Gradients of the replay that is due with those lessons, and every share put right."""
        turns = [turn for place, turn in enumerate(self._turns) if place not in self.known]
        replayed = [example for turn in turns for example in turn.replayed]
        self.replayed = len(replayed)
        self.tokens += sum(len(example.continuation_ids) for example in replayed)
        for place, frozen in freeze_all(
            self._model, [example.context_ids for example in replayed], self._settings
        ):
            self._show(frozen, replayed[place])
            del frozen
        if self.known:
            shown = sum(_weight(example) for turn in turns for example in (turn.lesson, *turn.replayed))
            factor = self._whole / shown
            self.loss *= factor
            for weight in self._weights:
                if weight.grad is not None:
                    weight.grad.mul_(factor)

    def clip(self) -> float:
        """The norm of the whole gradient, which is scaled down to `max_grad_norm` when it is longer."""
        norm = nn.utils.get_total_norm([weight.grad for weight in self._weights if weight.grad is not None])
        if not math.isfinite(norm.item()):
            raise _NotFinite(f"gradient norm is {norm.item()}")
        if self._settings.max_grad_norm is not None:
            nn.utils.clip_grads_with_norm_(self._weights, self._settings.max_grad_norm, norm)
        return norm.item()

    def _show(self, frozen: FrozenContext, example: Example, lesson: int | None = None) -> None:
        """Add the example's gradient, unless it is a lesson (by its place) under the gate."""
        objective = self._objective if lacking(example, self._objective) is None else self._otherwise
        sparing = checkpointed(self._model) if self._settings.activation_checkpointing else nullcontext()
        with sparing:
            given = read(self._model, frozen, example, objective, self._before.get(example))
        if lesson is not None and self._settings.gate is not None:
            known = -given.chosen.detach().mean().item()
            if known < self._settings.gate:
                self.known[lesson] = known
                return
        part = objective(given, self._settings) * (_weight(example) / self._whole)
        self.loss += part.item()
        if not math.isfinite(self.loss):
            raise _NotFinite(f"loss is {self.loss}")
        part.backward()  # type: ignore[no-untyped-call]


def _weight(example: Example) -> float:
    return example.weight * len(example.continuation_ids)
