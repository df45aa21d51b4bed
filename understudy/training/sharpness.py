"""How sharply the loss bends along an update, and what two optimizers would make of the same gradients.

Directional sharpness is v' H v / |v|^2: the second derivative of the loss along the unit vector of an
update v. Pan and Li (arXiv 2306.00204) found it to tell Adam from SGD; Zhu et al. (arXiv 2412.05270, their
section on why APOLLO can be better than AdamW) say that APOLLO's updates have less of it than AdamW's.

A loss here is a callable that computes it anew from the weights as they are. Over frozen contexts that
callable decides what is measured: contexts frozen once beforehand give the curvature of the objective
that is trained; contexts frozen within it give, in `loss_along`, the loss of the model as it would be
served. `curvature_along` wants the first kind: its gradients do not pass through a context.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from understudy.config import ApolloSettings
from understudy.training.apollo import Apollo, parameter_groups

Loss = Callable[[], Tensor]
"""The loss at the weights as they are now, a scalar."""

Method = Literal["exact", "differences"]
Optimizer = Literal["apollo", "adamw"]

_STEP = {torch.float32: 1e-5, torch.float64: 1e-8}
"""Distance of a central difference over the weights' norm. On random hybrids, whose loss bends within a
thousandth of that norm, these agree best with what is differentiated twice."""


class NotMeasurable(ValueError):
    """A direction, or weights, along which no curvature can be measured."""


@dataclass(frozen=True, slots=True)
class Curvature:
    """The loss along the unit vector of a direction v, to second order, per unit of distance.

    `sharpness` is v' H v / |v|^2, `slope` is g' v / |v|, `norm` is |v|. Moving by v changes the loss by about
    slope |v| + sharpness |v|^2 / 2.
    """

    sharpness: float
    slope: float
    norm: float
    method: Method

    @property
    def expected_change(self) -> float:
        """The loss's change over the whole of v, if it were a parabola."""
        return self.slope * self.norm + self.sharpness * self.norm**2 / 2


def curvature_along(
    loss: Loss,
    weights: Sequence[Tensor],
    direction: Sequence[Tensor],
    *,
    method: Method = "exact",
    step: float | None = None,
) -> Curvature:
    """The curvature of `loss` along `direction`, one tensor of it for each of `weights`.

    `exact` differentiates twice (Pearlmutter 1994: the Hessian times a vector), which needs kernels whose
    backward pass can be differentiated; attention is computed by its plain formula meanwhile. `differences`
    is the central difference of the gradient over a distance of `step` on either side (by default a small
    part of the weights' norm), for kernels that cannot; the weights are put back bit for bit.

    Raises NotMeasurable for a direction of zeros, shapes that do not fit, weights that are not fp32 or
    fp64, and when the kernels cannot be differentiated twice.
    """
    _check(weights, direction)
    norm = _norm(direction)
    if method == "differences":
        distance = step or _STEP[weights[0].dtype] * _norm(weights)
        back, here, forth = (
            _slope_at(loss, weights, direction, scale) / norm
            for scale in (-distance / norm, 0.0, distance / norm)
        )
        return Curvature((forth - back) / (2 * distance), here, norm, method)

    with sdpa_kernel(SDPBackend.MATH):
        gradients = torch.autograd.grad(loss(), weights, create_graph=True, allow_unused=True)
        slope = _dot(gradients, direction)
        try:
            bent = torch.autograd.grad(slope, weights, allow_unused=True)
        except RuntimeError as error:
            raise NotMeasurable(
                f"expected kernels whose backward pass can be differentiated, got: {error}; use differences"
            ) from error
    return Curvature(_dot(bent, direction).item() / norm**2, slope.item() / norm, norm, method)


@torch.no_grad()
def loss_along(
    loss: Loss, weights: Sequence[Tensor], direction: Sequence[Tensor], scales: Sequence[float]
) -> tuple[float, ...]:
    """The loss at `weights` + scale x `direction`, for each scale; the weights are put back bit for bit.

    Raises NotMeasurable as curvature_along does.
    """
    _check(weights, direction)
    found = []
    for scale in scales:
        with _moved(weights, direction, scale):
            found.append(float(loss()))
    return tuple(found)


def proposed_update(
    model: nn.Module,
    gradients: Sequence[Mapping[str, Tensor]],
    settings: ApolloSettings,
    optimizer: Optimizer = "apollo",
) -> dict[str, Tensor]:
    """What an optimizer's last step would add to the weights after these gradients, in fp32, by name.

    Each item of `gradients` is one step's, by parameter name; the ones before the last fill the moments.
    The model is not touched and nothing is rounded. `adamw` gives every parameter torch's AdamW with the
    same rate, betas and eps. Raises NotMeasurable when there is no gradient.
    """
    if not gradients:
        raise NotMeasurable("expected the gradients of at least 1 step, got none")
    shadows = {
        name: nn.Parameter(weight.detach().to(torch.float32, copy=True))
        for name, weight in model.named_parameters()
        if weight.requires_grad
    }
    chosen = _optimizer(model, shadows, settings, optimizer)
    before: dict[str, Tensor] = {}
    for found in gradients:
        before = {name: shadow.detach().clone() for name, shadow in shadows.items()}
        for name, shadow in shadows.items():
            shadow.grad = found[name].to(torch.float32) if name in found else None
        chosen.step()
    return {name: shadow.detach() - before[name] for name, shadow in shadows.items()}


def _optimizer(
    model: nn.Module, shadows: Mapping[str, nn.Parameter], settings: ApolloSettings, name: Optimizer
) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(
            shadows.values(),
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
        )
    groups: list[dict[str, Any]] = parameter_groups(model, settings)
    for group in groups:  # in the model's order: the same projections as the trainer draws
        group["params"] = [shadows[name] for name in group["param_names"]]
    return Apollo(groups, settings)


# ---------------------------------------------------------------------- along a direction


@contextmanager
def _moved(weights: Sequence[Tensor], direction: Sequence[Tensor], scale: float) -> Iterator[None]:
    """The weights at `scale` x `direction` from here, and back bit for bit, whatever happens."""
    held = [weight.detach().clone() for weight in weights]
    try:
        with torch.no_grad():
            for weight, part in zip(weights, direction, strict=True):
                weight.add_(part.to(weight.dtype), alpha=scale)
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, held, strict=True):
                weight.copy_(value)


def _slope_at(loss: Loss, weights: Sequence[Tensor], direction: Sequence[Tensor], scale: float) -> float:
    """g'v at `scale` x `direction` from here."""
    with _moved(weights, direction, scale):
        return _dot(torch.autograd.grad(loss(), weights, allow_unused=True), direction).item()


def _dot(found: Sequence[Tensor | None], direction: Sequence[Tensor]) -> Tensor:
    """In fp64: millions of products of very different size are summed."""
    parts = [
        (one.double() * other.double()).sum()
        for one, other in zip(found, direction, strict=True)
        if one is not None
    ]
    return torch.stack(parts).sum() if parts else torch.zeros((), dtype=torch.float64)


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(tensor.detach().double().square().sum()) for tensor in tensors))


def _check(weights: Sequence[Tensor], direction: Sequence[Tensor]) -> None:
    shapes = [tuple(weight.shape) for weight in weights], [tuple(part.shape) for part in direction]
    if not weights or shapes[0] != shapes[1]:
        raise NotMeasurable(f"expected a direction of shapes {shapes[0]}, got {shapes[1]}")
    wrong = sorted({str(weight.dtype) for weight in weights if weight.dtype not in _STEP})
    if wrong:
        raise NotMeasurable(
            f"expected fp32 or fp64 weights, got {', '.join(wrong)}: small moves would be rounded away; "
            "measure on a copy in fp32"
        )
    norm = _norm(direction)
    if not 0 < norm < float("inf"):
        raise NotMeasurable(f"expected a direction of finite length, got {norm}")
