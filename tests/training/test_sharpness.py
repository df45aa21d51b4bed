"""Curvature along an update: against a quadratic that is known, and one way of measuring against another."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from training_models import ARCHITECTURES, InFloat64, random_ids, tiny_model

from understudy.config import ApolloSettings
from understudy.training import (
    Apollo,
    NotMeasurable,
    continuation_log_probabilities,
    curvature_along,
    freeze_context,
    loss_along,
    parameter_groups,
    proposed_update,
)


def quadratic(seed: int) -> tuple[Callable[[], Tensor], list[Tensor], list[Tensor], Tensor, Tensor]:
    """w'Aw/2 + b'w over two tensors; A symmetric and indefinite."""
    draw = torch.Generator().manual_seed(seed)
    root = torch.randn(7, 7, generator=draw, dtype=torch.float64)
    matrix, linear = root + root.T, torch.randn(7, generator=draw, dtype=torch.float64)
    weights = [
        torch.randn(size, generator=draw, dtype=torch.float64).requires_grad_() for size in ((3,), (2, 2))
    ]
    direction = [torch.randn(size, generator=draw, dtype=torch.float64) for size in ((3,), (2, 2))]

    def loss() -> Tensor:
        flat = torch.cat([weight.flatten() for weight in weights])
        return flat @ matrix @ flat / 2 + linear @ flat

    return loss, weights, direction, matrix, linear


@given(seed=st.integers(0, 10_000))
def test_a_quadratic_has_the_curvature_of_its_matrix(seed: int) -> None:
    loss, weights, direction, matrix, linear = quadratic(seed)
    flat = torch.cat([weight.detach().flatten() for weight in weights])
    along = torch.cat([part.flatten() for part in direction])
    norm = along.norm().item()
    for method in ("exact", "differences"):
        found = curvature_along(loss, weights, direction, method=method)
        assert found.sharpness == pytest.approx((along @ matrix @ along).item() / norm**2, abs=1e-6)
        assert found.slope == pytest.approx(((matrix @ flat + linear) @ along).item() / norm, abs=1e-9)
        assert found.norm == pytest.approx(norm)
        assert found.expected_change == pytest.approx(
            loss_along(loss, weights, direction, [1.0])[0] - loss().item(), abs=1e-4
        )


def frozen_loss(model: nn.Module) -> Callable[[], Tensor]:
    """Of two continuations whose contexts were frozen beforehand."""
    contexts = [freeze_context(model, random_ids(tokens, seed)[None]) for tokens, seed in ((70, 0), (20, 1))]

    def loss() -> Tensor:
        parts = [
            continuation_log_probabilities(model, frozen, random_ids(6, seed)).mean()
            for frozen, seed in zip(contexts, (2, 3), strict=True)
        ]
        return -sum(parts, torch.zeros(())) / len(parts)

    return loss


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_twice_differentiated_equals_differences_of_gradients(architecture: str) -> None:
    with InFloat64():
        model = tiny_model(architecture, torch.float64)
        loss, weights = frozen_loss(model), list(model.parameters())
        before = [weight.detach().clone() for weight in weights]
        gradients = torch.autograd.grad(loss(), weights)
        exact = curvature_along(loss, weights, gradients)
        apart = curvature_along(loss, weights, gradients, method="differences")
    assert exact.sharpness != 0
    assert apart.sharpness == pytest.approx(exact.sharpness, rel=1e-4)
    assert apart.slope == pytest.approx(exact.slope, rel=1e-9) and exact.slope > 0
    assert all(torch.equal(weight, held) for weight, held in zip(weights, before, strict=True))
    assert all(weight.grad is None for weight in weights)


def test_in_fp32_both_ways_still_agree() -> None:
    model = tiny_model("qwen3_5")
    loss, weights = frozen_loss(model), list(model.parameters())
    gradients = torch.autograd.grad(loss(), weights)
    exact = curvature_along(loss, weights, gradients)
    apart = curvature_along(loss, weights, gradients, method="differences")
    assert apart.sharpness == pytest.approx(exact.sharpness, rel=0.05)


def test_the_loss_along_a_line_leaves_the_weights_and_is_the_loss_there() -> None:
    model = tiny_model("qwen3")
    loss, weights = frozen_loss(model), list(model.parameters())
    before = [weight.detach().clone() for weight in weights]
    gradients = torch.autograd.grad(loss(), weights)
    here, down, far = loss_along(loss, weights, gradients, [0.0, -1e-3, -3e-3])
    assert here == loss().item()
    assert far < down < here
    assert all(torch.equal(weight, held) for weight, held in zip(weights, before, strict=True))
    with torch.no_grad():
        for weight, part in zip(weights, gradients, strict=True):
            weight.add_(part, alpha=-1e-3)
    assert loss().item() == down


def step_gradients(model: nn.Module, steps: int) -> list[dict[str, Tensor]]:
    draw = torch.Generator().manual_seed(5)
    return [
        {name: torch.randn(weight.shape, generator=draw) for name, weight in model.named_parameters()}
        for _ in range(steps)
    ]


@pytest.mark.parametrize("rank", [1, 4])
def test_the_proposed_update_is_what_the_optimizer_does(rank: int) -> None:
    model = tiny_model("qwen3_5")
    settings = ApolloSettings(rank=rank, lr=1e-3)
    gradients = step_gradients(model, 3)
    start = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    proposed = proposed_update(model, gradients, settings)
    assert all(torch.equal(weight, start[name]) for name, weight in model.named_parameters())
    optimizer = Apollo(parameter_groups(model, settings), settings)
    for found in gradients:
        before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
        for name, weight in model.named_parameters():
            weight.grad = found[name].clone()
        optimizer.step()
    for name, weight in model.named_parameters():
        assert torch.allclose(proposed[name], weight.detach() - before[name], atol=1e-7)


def test_adamw_moves_every_entry_by_the_rate_at_first() -> None:
    model = tiny_model("llama")
    update = proposed_update(model, step_gradients(model, 1), ApolloSettings(lr=1e-3), "adamw")
    for part in update.values():
        assert torch.allclose(part.abs(), torch.full_like(part, 1e-3), rtol=0.02)


def test_what_cannot_be_measured_says_so() -> None:
    loss, weights, direction, _, _ = quadratic(0)
    with pytest.raises(NotMeasurable, match="finite length"):
        curvature_along(loss, weights, [torch.zeros_like(part) for part in direction])
    with pytest.raises(NotMeasurable, match="shapes"):
        loss_along(loss, weights, direction[:1], [1.0])
    with pytest.raises(NotMeasurable, match="finite length"):
        curvature_along(loss, weights, [part * math.inf for part in direction])
    halves = [weight.detach().bfloat16().requires_grad_() for weight in weights]
    with pytest.raises(NotMeasurable, match="copy in fp32"):
        curvature_along(lambda: halves[0].sum(), halves, direction)
    with pytest.raises(NotMeasurable, match="at least 1 step"):
        proposed_update(tiny_model("llama"), [], ApolloSettings())


class _OnceOnly(torch.autograd.Function):
    """The sum of squares, with a backward pass that cannot be differentiated."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor) -> Tensor:
        ctx.save_for_backward(weight)
        return weight.square().sum()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        doubled: Tensor = 2 * ctx.saved_tensors[0]
        return doubled * upstream[0]


def test_kernels_that_differentiate_only_once_are_measured_by_differences() -> None:
    weight = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64, requires_grad=True)
    direction = [torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)]

    def loss() -> Tensor:
        found: Tensor = _OnceOnly.apply(weight)  # type: ignore[no-untyped-call]
        return found

    with pytest.raises(NotMeasurable, match="use differences"):
        curvature_along(loss, [weight], direction)
    found = curvature_along(loss, [weight], direction, method="differences")
    assert found.sharpness == pytest.approx(2.0)
