"""Stochastic rounding, so that bf16 weights follow updates far smaller than their spacing.

Round-to-nearest drops most of an Adam-sized step on a bf16 weight: the step is smaller than half the
distance between two neighbouring bf16 numbers. Rounding up with a probability equal to the fraction that
would be dropped keeps the movement right in expectation (Croci et al. 2022, arXiv 2103.13216, section 2).
"""

import torch
from torch import Tensor

_KEPT_BITS = -65536  # 0xFFFF0000: sign, exponent and the 7 bits of mantissa that bf16 shares with fp32
_LARGEST = torch.finfo(torch.bfloat16).max


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
    bits = value.clamp(-_LARGEST, _LARGEST).view(torch.int32)
    rounded = _noise(value, generator).add_(bits).bitwise_and_(_KEPT_BITS).view(torch.float32)
    # Truncation could turn a NaN with a small payload into an infinity, so what is not finite is copied.
    # (abs and a comparison: torch's isfinite is five times slower on a CPU.)
    finite = value.abs() <= torch.finfo(torch.float32).max
    return weight.copy_(torch.where(finite, rounded, value))


def add_stochastic_(weight: Tensor, update: Tensor, generator: torch.Generator) -> Tensor:
    """Add the fp32 `update` to the bf16 `weight`, in place: the sum is formed in fp32, then rounded.

    Raises as round_stochastic_ does.
    """
    return round_stochastic_(weight, weight.float() + update, generator)


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    """Independent integers 0 ... 65535, as int32, in the shape of `like`; two are cut from each draw."""
    pairs = torch.empty((like.numel() + 1) // 2, dtype=torch.int64, device=like.device)
    # random_ without bounds would leave the sign bit 0.
    pairs.random_(-(2**63), None, generator=generator)
    return pairs.view(torch.int32)[: like.numel()].bitwise_and_(0xFFFF).view(like.shape)
