"""Stochastic rounding, so that bf16 weights follow updates far smaller than their spacing.

Round-to-nearest drops most of an Adam-sized step on a bf16 weight: the step is smaller than half the
distance between two neighbouring bf16 numbers. Rounding up with a probability equal to the fraction that
would be dropped keeps the movement right in expectation (Croci et al. 2022, arXiv 2103.13216, section 2).
"""

import torch
from torch import Tensor

_LARGEST = torch.finfo(torch.bfloat16).max

_COLUMNS = 8192
"""Words of one row of noise: a row costs two draws, a column one. Few enough to stay in the cache."""


def round_stochastic_(weight: Tensor, value: Tensor, generator: torch.Generator) -> Tensor:
    """Write the fp32 `value` into the bf16 `weight`, in place, without bias.

    Sixteen random bits are added below the kept ones and the sum is truncated, so a value between two
    neighbours a < b becomes b with probability (value - a) / (b - a); a value that bf16 can hold stays as
    it is. Infinities and NaNs pass through, and what is finite stays finite (at most the largest bf16
    number). The storage of `weight` is written and never replaced: another process may be reading it.

    Raises TypeError unless weight is bfloat16 and value float32, ValueError when their shapes differ.
    """
    if weight.dtype != torch.bfloat16 or value.dtype != torch.float32:
        raise TypeError(
            f"expected a bfloat16 weight and a float32 value, got {weight.dtype} and {value.dtype}: "
            "other weights need no stochastic rounding, add to them directly"
        )
    if weight.shape != value.shape:
        raise ValueError(f"expected a value of shape {tuple(weight.shape)}, got {tuple(value.shape)}")
    value = value.contiguous()
    if _is_tame(value):
        weight.view(torch.int16).copy_(_round(value, generator))
        return weight
    rounded = _round(value.clamp(-_LARGEST, _LARGEST), generator).to(torch.int16).view(torch.bfloat16)
    # Truncation could turn a NaN with a small payload into an infinity, so what is not finite is copied.
    finite = value.abs() <= torch.finfo(torch.float32).max
    return weight.copy_(torch.where(finite, rounded, value.to(torch.bfloat16)))


def add_stochastic_(weight: Tensor, update: Tensor, generator: torch.Generator) -> Tensor:
    """Add the fp32 `update` to the bf16 `weight`, in place: the sum is formed in fp32, then rounded.

    Raises as round_stochastic_ does.
    """
    return round_stochastic_(weight, weight.float() + update, generator)


def _round(value: Tensor, generator: torch.Generator) -> Tensor:
    """The bits of the rounded bf16 numbers, in the lower halves of int32s; right for what is finite."""
    noise = draw_noise(value.numel(), generator).view(value.shape)
    # bf16 is the upper half of fp32: sign, exponent and 7 bits of mantissa.
    return noise.add_(value.view(torch.int32)).bitwise_right_shift_(16)


def _is_tame(value: Tensor) -> bool:
    """Whether nothing in `value` needs care, if that can be known without waiting for the device."""
    if value.device.type != "cpu":
        return False
    # No entry is larger than the norm, and the norm is the fastest pass over them that sees every NaN.
    return bool(torch.linalg.vector_norm(value) < _LARGEST)


def draw_noise(count: int, generator: torch.Generator) -> Tensor:
    """Integers 0 ... 65535, as int32, each value equally likely and any two of them independent.

    Means and variances, of single roundings and of every sum of them, are thus those of independent draws.
    Drawing each would take most of a step's time. Instead words w[r, c] = a[r] x[c] + b[r] modulo 2^32 are
    formed from drawn x, b and odd a (the pairwise independent hash of Carter and Wegman, JCSS 18, 1979), and
    two values are cut from each. Without the factors a, which differ from row to row, the errors of a whole
    matrix would share a direction: their largest singular value would grow with its side, not with its root.
    """
    words = -(-count // 2)
    rows, columns = -(-words // _COLUMNS), min(words, _COLUMNS)
    drawn = torch.empty(rows + -(-columns // 2), dtype=torch.int64, device=generator.device)
    # random_ without bounds would leave the sign bit 0.
    pairs = drawn.random_(-(2**63), None, generator=generator).view(torch.int32)
    factors, offsets = pairs[: 2 * rows].view(rows, 2, 1).unbind(1)
    grid = torch.mul(factors | 1, pairs[2 * rows : 2 * rows + columns]).add_(offsets)
    return grid.view(-1).view(torch.uint16)[:count].to(torch.int32)
