"""How far behaviours stand in each other's way: their task vectors compared, entry by entry.

Vectors that want opposite signs in the same entries lose when they are added; vectors that lie in other
entries, or at right angles, do not.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch

from understudy.weights.errors import WeightsMismatch
from understudy.weights.methods import MergeSource, Slab
from understudy.weights.stored import StoredTensors
from understudy.weights.trimming import keep_largest
from understudy.weights.vectors import read_origin


@dataclass(frozen=True, slots=True)
class Conflict:
    """Two vectors in one matrix, or in the whole model.

    `cosine`: of the two laid flat (0 where one of them is zero). `disagreement`: of the entries that both
    move, the share with opposite signs. `overlap`: of each one's largest entries, the share that is among the
    other's; by chance it would be the density. `overlap_disagreement`: of those shared, the share with
    opposite signs. Shares of nothing are 0.
    """

    elements: int
    norms: tuple[float, float]
    cosine: float
    disagreement: float
    overlap: float
    overlap_disagreement: float

    def as_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class PairConflict:
    """Two vectors compared: whole, and by matrix."""

    first: Path
    second: Path
    whole: Conflict
    matrices: dict[str, Conflict]


@dataclass(frozen=True, slots=True)
class ConflictReport:
    """Every two of the vectors. `density` is the share of a matrix's entries that count as its largest.

    `same_base`: all vectors start from the same weights.
    """

    density: float
    same_base: bool
    pairs: tuple[PairConflict, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data, matrices with the strongest opposition (lowest cosine) first."""
        return {
            "density": self.density,
            "same_base": self.same_base,
            "pairs": [
                {
                    "first": str(pair.first),
                    "second": str(pair.second),
                    "whole": pair.whole.as_json(),
                    "matrices": [
                        {"name": name, **found.as_json()}
                        for name, found in sorted(pair.matrices.items(), key=lambda item: item[1].cosine)
                    ],
                }
                for pair in self.pairs
            ],
        }


def measure_conflicts(vectors: Sequence[Path], *, density: float = 0.2) -> ConflictReport:
    """Compare task vectors, tensor by tensor and run by run.

    `density` defaults to the share of entries that TIES keeps (arXiv 2306.01708, section 4). Raises
    WeightsMismatch when they are not of one model, or fewer than two; NotTensors when one is no vector.
    """
    if len(vectors) < 2:
        raise WeightsMismatch(f"expected two vectors or more to compare, got {len(vectors)}")
    if not 0 < density <= 1:
        raise WeightsMismatch(f"density: expected a share above 0 and up to 1, got {density}")
    with ExitStack() as opened:
        stored = [opened.enter_context(StoredTensors.open(path)) for path in vectors]
        origins = [read_origin(held) for held in stored]
        for held, origin in zip(stored[1:], origins[1:], strict=True):
            if origin.architecture != origins[0].architecture:
                raise WeightsMismatch(f"{held.path} is a vector of another model than {vectors[0]}")
        tallies = _compare(stored, density)
        for held in stored:
            held.check_unchanged()
    pairs = []
    for pair, by_name in tallies.items():
        total = _Tally()
        for tally in by_name.values():
            total.add(tally)
        pairs.append(
            PairConflict(
                vectors[pair[0]],
                vectors[pair[1]],
                total.conflict,
                {name: tally.conflict for name, tally in by_name.items()},
            )
        )
    return ConflictReport(density, len({origin.base for origin in origins}) == 1, tuple(pairs))


@dataclass(slots=True)
class _Tally:
    """Counts and sums for two vectors."""

    elements: int = 0
    first_squares: float = 0.0
    second_squares: float = 0.0
    product: float = 0.0
    both_move: int = 0
    opposite: int = 0
    largest: int = 0
    other_largest: int = 0
    shared: int = 0
    shared_opposite: int = 0

    def count(
        self, first: torch.Tensor, second: torch.Tensor, top: torch.Tensor, other: torch.Tensor
    ) -> None:
        """Add a run of both vectors, and of what is left of them when trimmed to their largest entries."""
        wide, other_wide = first.double(), second.double()
        self.elements += first.numel()
        self.first_squares += float(wide.dot(wide))
        self.second_squares += float(other_wide.dot(other_wide))
        self.product += float(wide.dot(other_wide))
        signs = first.sign() * second.sign()
        self.both_move += int(signs.count_nonzero())
        self.opposite += int((signs < 0).sum())
        shared = (top != 0) & (other != 0)
        self.largest += int(top.count_nonzero())
        self.other_largest += int(other.count_nonzero())
        self.shared += int(shared.sum())
        self.shared_opposite += int((shared & (signs < 0)).sum())

    def add(self, other: "_Tally") -> None:
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def conflict(self) -> Conflict:
        norms = math.sqrt(self.first_squares), math.sqrt(self.second_squares)
        return Conflict(
            elements=self.elements,
            norms=norms,
            cosine=self.product / (norms[0] * norms[1]) if all(norms) else 0.0,
            disagreement=_share(self.opposite, self.both_move),
            overlap=_share(self.shared, max(self.largest, self.other_largest)),
            overlap_disagreement=_share(self.shared_opposite, self.shared),
        )


def _compare(stored: Sequence[StoredTensors], density: float) -> dict[tuple[int, int], dict[str, _Tally]]:
    sources = [MergeSource(held, vector=True) for held in stored]
    tallies: dict[tuple[int, int], dict[str, _Tally]] = {
        pair: {} for pair in combinations(range(len(stored)), 2)
    }
    for name in stored[0].kinds:
        slab = Slab(name, None, sources, torch.float32)
        trims = [
            keep_largest(partial(slab.differences, place), slab.elements, density)
            for place in range(len(stored))
        ]
        for by_name in tallies.values():
            by_name[name] = _Tally()
        for start, stop in slab.spans():
            runs = [slab.difference(place, start, stop) for place in range(len(stored))]
            largest = [trim(run) for trim, run in zip(trims, runs, strict=True)]
            for (i, j), by_name in tallies.items():
                by_name[name].count(runs[i], runs[j], largest[i], largest[j])
    return tallies


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
