"""Keeping the largest entries of a tensor, or a random share of them, without holding the tensor.

The k-th largest magnitude is found exactly by two counting passes: the bits of a non-negative float32,
read as an integer, are ordered as its values are. Among equal magnitudes the first ones are kept.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import torch

Rescale = Literal["none", "density", "l1"]
"""What makes up for dropped entries: nothing, division by the share kept (DARE's equation 3), or a factor
that restores the sum of magnitudes (as mergekit does; nearly the same for large tensors)."""

Runs = Callable[[], Iterable[torch.Tensor]]
"""A tensor laid flat, in runs from first to last; can be read again."""

Sparsify = Callable[[torch.Tensor], torch.Tensor]
"""Takes the runs of one tensor in order, and returns each with its dropped entries at zero."""

_HALF_BITS = 16


@dataclass(frozen=True, slots=True)
class Cut:
    """Kept are all magnitudes whose float32 bits exceed `bits`, and the first `ties` of those equal to it."""

    bits: int
    ties: int


def find_cut(runs: Runs, keep: int) -> Cut:
    """The cut that keeps exactly `keep` entries, 1 or more."""
    high, above = _place(_histogram(_bits(run) >> _HALF_BITS for run in runs()), keep)
    mask = (1 << _HALF_BITS) - 1

    def low() -> Iterator[torch.Tensor]:
        for run in runs():
            bits = _bits(run)
            yield bits[(bits >> _HALF_BITS) == high] & mask

    rest, above_in_bucket = _place(_histogram(low()), keep - above)
    return Cut(high << _HALF_BITS | rest, keep - above - above_in_bucket)


def keep_largest(runs: Runs, elements: int, density: float, rescale: Rescale = "none") -> Sparsify:
    """Keep the share `density` of the entries with the largest magnitude: TIES' trimming, per tensor.

    The number kept is rounded down, and is 1 at least when `density` is above 0.
    """
    if density >= 1 or not elements:
        return _same
    if density <= 0:
        return torch.zeros_like
    cut = find_cut(runs, max(1, int(density * elements)))
    return _rescaled(runs, lambda: _Largest(cut), density, rescale)


def keep_random(runs: Runs, density: float, rescale: Rescale, seed: int) -> Sparsify:
    """Keep each entry with probability `density`: DARE (arXiv 2311.03099), the same for the same seed.

    Entries are drawn one after the other, so the choice does not depend on how the tensor is cut into runs.
    """
    if density >= 1:
        return _same
    if density <= 0:
        return torch.zeros_like
    return _rescaled(runs, lambda: _Random(density, seed), density, rescale)


class _Largest:
    def __init__(self, cut: Cut) -> None:
        self._cut = cut
        self._left = cut.ties

    def __call__(self, run: torch.Tensor) -> torch.Tensor:
        bits = _bits(run)
        kept = bits > self._cut.bits
        if self._left:
            equal = bits == self._cut.bits
            found = int(equal.sum())
            if found > self._left:
                equal &= equal.cumsum(0, dtype=torch.int32) <= self._left
            self._left -= min(found, self._left)
            kept |= equal
        return run * kept


class _Random:
    def __init__(self, density: float, seed: int) -> None:
        self._density = density
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(self, run: torch.Tensor) -> torch.Tensor:
        # the element type in which torch draws decides how many random bits each draw takes
        wide = run.dtype if run.dtype == torch.bfloat16 else torch.float32
        chances = torch.full(run.shape, self._density, dtype=wide)
        return (run * torch.bernoulli(chances, generator=self._generator)).to(run.dtype)


_SMALLEST_L1 = 1e-7
"""Below it there is nothing to restore, and a quotient would be noise: as mergekit."""


def _rescaled(runs: Runs, fresh: Callable[[], Sparsify], density: float, rescale: Rescale) -> Sparsify:
    keep = fresh()
    if rescale == "none":
        return keep
    if rescale == "density":
        return lambda run: keep(run) / density
    trial = fresh()
    before = after = 0.0
    for run in runs():
        before += float(run.abs().sum(dtype=torch.float64))
        after += float(trial(run).abs().sum(dtype=torch.float64))
    factor = before / after if min(before, after) > _SMALLEST_L1 else 1.0
    return lambda run: keep(run) * factor


def _same(run: torch.Tensor) -> torch.Tensor:
    return run


def _bits(run: torch.Tensor) -> torch.Tensor:
    return run.float().abs().view(torch.int32)


def _histogram(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    counts = torch.zeros(1 << _HALF_BITS, dtype=torch.int64)
    for part in parts:
        counts += torch.bincount(part, minlength=1 << _HALF_BITS)
    return counts


def _place(counts: torch.Tensor, keep: int) -> tuple[int, int]:
    """The bin of the `keep`-th largest entry, and how many entries lie above that bin."""
    from_top = counts.flip(0).cumsum(0)
    steps = int(torch.searchsorted(from_top, keep))
    place = counts.numel() - 1 - steps
    return place, int(from_top[steps]) - int(counts[place])
