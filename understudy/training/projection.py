"""APOLLO's mathematics: gradients seen through a small random projection, and what Adam makes of them.

For many matrices at a time, since each has dozens of small tensors whose calls would cost more than their
numbers. Symbols as in `Apollo`.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

_SMALLEST_NORM = 1e-30
"""A channel whose projected gradient is below this has no direction in fp32: it stays where it is."""


@dataclass(frozen=True, slots=True)
class ProjectedMatrix:
    """A gradient G, the norms of its channels, its projection `low` (R), and the parameter's state.

    Channels are what sums over dimension `across` leave, or all entries together (None); `scale` is alpha.
    """

    gradient: Tensor
    norms: Tensor | None
    low: Tensor
    state: dict[str, Any]
    across: int | None
    scale: float


def draw_projection(
    rank: int, size: int, *, seed: int, parameter: int, renewal: int, device: torch.device
) -> Tensor:
    """P of shape (rank, size), entries N(0, 1/rank) in fp32, a function of its arguments alone.

    `parameter` is the parameter's place among all of the optimizer's, `renewal` counts the projections it
    has had before.
    """
    draw = seeded_generator(device, seed, parameter, "projection", renewal)
    return torch.randn((rank, size), device=device, generator=draw).div_(math.sqrt(rank))


def seeded_generator(device: torch.device, *source: int | str) -> torch.Generator:
    """A generator whose state depends on `source` alone."""
    digest = hashlib.blake2b(repr(source).encode(), digest_size=8).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest, "big") >> 1)


def project(raw: Tensor, gradient: Tensor, projection: Tensor, *, wide: bool) -> Tensor:
    """R, in the dtype of `gradient`, which is `raw` in the precision of the moments.

    A bf16 gradient is multiplied as it is where the processor does that (sums are formed in fp32): several
    times as fast, and R is rounded no coarser than the gradient was.
    """
    if raw.dtype == torch.bfloat16 and projection.shape[0] > 1 and _multiplies_bfloat16(raw.device):
        factor, matrix = projection.bfloat16(), raw
    else:
        factor, matrix = projection.to(gradient.dtype), gradient
    return (factor @ matrix if wide else matrix @ factor.T).to(gradient.dtype)


def scale_channels(matrices: Sequence[ProjectedMatrix], group: dict[str, Any]) -> list[Tensor]:
    """alpha s, limited in growth: what to multiply each gradient with, for matrices of one dtype and device.

    Updates the moments and the limiter's memory.
    """
    squares = torch._foreach_mul([matrix.low for matrix in matrices], [matrix.low for matrix in matrices])
    lows = [_norm(square, matrix.across) for square, matrix in zip(squares, matrices, strict=True)]
    normalized, corrections = _adam(matrices, squares, group)
    torch._foreach_mul_(normalized, normalized)
    factors = [
        torch.where(low > _SMALLEST_NORM, _norm(square, matrix.across) / low, 0.0)
        for square, low, matrix in zip(normalized, lows, matrices, strict=True)
    ]
    torch._foreach_mul_(factors, [c * matrix.scale for c, matrix in zip(corrections, matrices, strict=True)])
    if group["norm_growth_limit"] is not None:
        _limit_growth(factors, matrices, group["norm_growth_limit"])
    return factors


def _adam(
    matrices: Sequence[ProjectedMatrix], squares: tuple[Tensor, ...], group: dict[str, Any]
) -> tuple[list[Tensor], list[float]]:
    """Adam's normalized steps, each but for a number that is returned beside it, after updating the moments
    with `squares`, the squared R (arXiv 1412.6980, algorithm 1). With the corrections c1 = 1 - beta1^t and
    c2 = 1 - beta2^t,

        R~ = (M / c1) / (sqrt(V / c2) + eps) = (sqrt(c2) / c1) M / (sqrt(V) + eps sqrt(c2)).
    """
    beta1, beta2 = group["betas"]
    first = [matrix.state["first_moment"] for matrix in matrices]
    second = [matrix.state["second_moment"] for matrix in matrices]
    torch._foreach_lerp_(first, [matrix.low for matrix in matrices], 1 - beta1)
    torch._foreach_mul_(second, beta2)
    torch._foreach_add_(second, squares, alpha=1 - beta2)
    steps = [matrix.state["step"] for matrix in matrices]
    roots = [math.sqrt(1 - beta2**step) for step in steps]
    deviations = torch._foreach_sqrt(second)
    torch._foreach_add_(deviations, [group["eps"] * root for root in roots])
    normalized = torch._foreach_div(first, deviations)
    return list(normalized), [root / (1 - beta1**step) for root, step in zip(roots, steps, strict=True)]


def _limit_growth(factors: list[Tensor], matrices: Sequence[ProjectedMatrix], limit: float) -> None:
    """Scale down the factors of updates that grew by more than `limit`; the sizes that are not 0 become the
    ones to compare with."""
    sizes = torch._foreach_mul([matrix.norms for matrix in matrices if matrix.norms is not None], factors)
    norm = torch.stack(torch._foreach_norm(sizes))
    befores = [matrix.state["update_norm"] for matrix in matrices]
    before = torch.stack(befores)
    allowed = torch.where(before > 0, before * limit, norm)
    shrunk = torch.where(norm > allowed, allowed / norm, 1.0)
    torch._foreach_copy_(befores, list(torch.where(norm > 0, norm * shrunk, before).unbind()))
    torch._foreach_mul_(factors, list(shrunk.unbind()))


def channel_norms(gradient: Tensor, across: int | None) -> Tensor:
    """The 2-norm of each channel, with the summed dimension kept, or of the whole tensor."""
    if across == 0:  # vector_norm is 8 times slower down the columns
        return _norm(gradient.square(), 0)
    norm: Tensor = torch.linalg.vector_norm(gradient, dim=across, keepdim=across is not None)
    return norm


def _norm(squares: Tensor, across: int | None) -> Tensor:
    total = squares.sum() if across is None else squares.sum(across, keepdim=True)
    return total.sqrt_()


def _multiplies_bfloat16(device: torch.device) -> bool:
    return device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()
