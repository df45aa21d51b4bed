"""Flat or sharp: how the loss bends along APOLLO's update and along AdamW's, from the same gradients."""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Curvature,
    FrozenContext,
    continuation_log_probabilities,
    curvature_along,
    freeze_context,
    loss_along,
    proposed_update,
)
from understudy.watching.laboratory import Laboratory
from understudy.watching.learning import Say
from understudy.watching.margins import Contrast

SCALES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
"""Where the loss along an update is looked at, in units of the update."""

LESSONS = 16
"""Lessons whose mean loss is bent."""

OPTIMIZERS: tuple[tuple[str, int | None], ...] = (
    ("APOLLO rank 1", 1),
    ("APOLLO rank 4", 4),
    ("APOLLO rank 16", 16),
    ("APOLLO rank 64", 64),
    ("AdamW", None),
)


@dataclass(frozen=True, slots=True)
class Bend:
    """One optimizer's update at one moment of learning.

    `curvature` is that of the lessons' mean loss, contexts held still; `apart` the sharpness by differences
    of gradients instead of differentiating twice. The lines are losses in nats per token of the model as it
    would be served at SCALES times the update: of the lessons, and of held-out directions. The `level`
    lines go as far as AdamW's update goes, whatever the optimizer's own length.
    """

    optimizer: str
    steps_before: int
    curvature: Curvature
    apart: float
    lessons: tuple[float, ...]
    held_out: tuple[float, ...]
    level_lessons: tuple[float, ...]
    level_held_out: tuple[float, ...]


def compare_bending(
    laboratory: Laboratory,
    contrasts: Sequence[Contrast],
    settings: TrainingSettings,
    steps_before: Sequence[int] = (0, 10),
    lessons: int = LESSONS,
    say: Say = lambda _: None,
) -> tuple[Bend, ...]:
    """At the start and after some AdamW steps over other lessons, so that no optimizer is on its own path.

    Computed on a copy in fp32. Each optimizer is given the gradients of all steps until then, one lesson
    each, and of one lesson more, as a session would; what it would do then is its update.
    """
    found = []
    model = _float_copy(laboratory)
    taught = laboratory.lessons(0, lessons)
    held_out = [contrast.example for contrast in contrasts]
    weights = list(model.parameters())
    names = [name for name, _ in model.named_parameters()]
    reference = torch.optim.AdamW(weights, lr=settings.lr, betas=settings.betas, weight_decay=0.0)
    gradients: list[dict[str, Tensor]] = []
    for step in range(max(steps_before) + 1):
        gradients.append(_gradient(model, taught[step % lessons], settings))
        if step in steps_before:
            frozen = [freeze_context(model, torch.tensor([one.context_ids])) for one in taught]
            updates = {
                name: list(_update(model, gradients, settings, rank, names)) for name, rank in OPTIMIZERS
            }
            level = _length(updates["AdamW"])
            for name, update in updates.items():
                bend = _bend(model, weights, update, name, step, taught, held_out, frozen, level)
                found.append(bend)
                say(f"after {step} steps, {name}: sharpness {bend.curvature.sharpness:.3g}")
        for name, weight in model.named_parameters():
            weight.grad = gradients[-1][name].clone()
        reference.step()
        reference.zero_grad()
    return tuple(found)


def _bend(
    model: nn.Module,
    weights: Sequence[Tensor],
    update: Sequence[Tensor],
    name: str,
    step: int,
    lessons: Sequence[Example],
    held_out: Sequence[Example],
    frozen: Sequence[FrozenContext],
    level: float,
) -> Bend:
    def still() -> Tensor:
        return _mean_loss(model, lessons, frozen)

    def served(examples: Sequence[Example]) -> Callable[[], Tensor]:
        return lambda: _mean_loss(model, examples, None)

    stretched = [part * (level / _length(update)) for part in update]
    return Bend(
        name,
        step,
        curvature_along(still, weights, update),
        curvature_along(still, weights, update, method="differences").sharpness,
        loss_along(served(lessons), weights, update, SCALES),
        loss_along(served(held_out), weights, update, SCALES),
        loss_along(served(lessons), weights, stretched, SCALES),
        loss_along(served(held_out), weights, stretched, SCALES),
    )


def _update(
    model: nn.Module,
    gradients: Sequence[dict[str, Tensor]],
    settings: TrainingSettings,
    rank: int | None,
    names: Sequence[str],
) -> Iterator[Tensor]:
    chosen = settings.model_copy(update={"rank": rank or settings.rank, "weight_decay": 0.0})
    found = proposed_update(model, gradients, chosen, "apollo" if rank else "adamw")
    return (found[name] for name in names)


def _gradient(model: nn.Module, lesson: Example, settings: TrainingSettings) -> dict[str, Tensor]:
    """Of one lesson, clipped as a session does."""
    named = dict(model.named_parameters())
    found = torch.autograd.grad(_mean_loss(model, [lesson], None), list(named.values()), allow_unused=True)
    gradients = {
        name: torch.zeros_like(weight) if one is None else one
        for (name, weight), one in zip(named.items(), found, strict=True)
    }
    norm = _length(list(gradients.values()))
    limit = settings.max_grad_norm
    shrink = limit / norm if limit is not None and norm > limit else 1.0
    return {name: one * shrink for name, one in gradients.items()}


def _mean_loss(
    model: nn.Module, examples: Sequence[Example], frozen: Sequence[FrozenContext] | None
) -> Tensor:
    """Mean over examples of nats per token; contexts are read anew when none are given."""
    losses = []
    for place, example in enumerate(examples):
        context = (
            freeze_context(model, torch.tensor([example.context_ids])) if frozen is None else frozen[place]
        )
        ids = torch.tensor(example.continuation_ids)
        losses.append(-continuation_log_probabilities(model, context, ids).mean())
    return torch.stack(losses).mean()


def _length(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.double().square().sum()) for tensor in tensors))


def _float_copy(laboratory: Laboratory) -> nn.Module:
    laboratory.reset()
    model: nn.Module = copy.deepcopy(laboratory.engine.model).float().eval()
    return model.requires_grad_(True)
