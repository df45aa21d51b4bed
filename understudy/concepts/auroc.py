"""How well scores tell two kinds apart: the area under the ROC curve, with its interval.

Shapes: p positives, n negatives.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import torch

from understudy.concepts.errors import BadRows


@dataclass(frozen=True, slots=True)
class Auroc:
    """The chance that a positive scores above a negative, ties counted half: .5 is chance, 1 is perfect.

    `positives` and `negatives` are how many texts it was measured on.
    """

    value: float
    positives: int
    negatives: int

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """Newcombe 2006, Statistics in Medicine 25, method 5: the areas whose own standard error (Hanley and
        McNeil 1982, for exponential scores) reaches the one that was seen. It is wider than nothing at 1.
        """
        z = NormalDist().inv_cdf(0.5 + confidence / 2)
        low = (
            0.0
            if self.value == 0
            else _root(lambda area: self.value - area - z * self._error(area), 0.0, self.value)
        )
        high = (
            1.0
            if self.value == 1
            else _root(lambda area: area - self.value - z * self._error(area), 1.0, self.value)
        )
        return low, high

    def _error(self, area: float) -> float:
        balanced = (self.positives + self.negatives) / 2 - 1
        spread = 1 + balanced * (1 - area) / (2 - area) + balanced * area / (1 + area)
        return math.sqrt(max(0.0, area * (1 - area) * spread / (self.positives * self.negatives)))

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{self.value:.2f} [{low:.2f}, {high:.2f}] n={self.positives}+{self.negatives}"


def auroc(positives_p: torch.Tensor, negatives_n: torch.Tensor) -> Auroc:
    """The area by ranks: Mann and Whitney's U over p n. Raises BadRows where one kind is missing."""
    if not len(positives_p) or not len(negatives_n):
        raise BadRows(
            f"expected scores of both kinds, got {len(positives_p)} positive and {len(negatives_n)} negative"
        )
    ordered = negatives_n.double().sort().values
    scores = positives_p.double().contiguous()
    below = torch.searchsorted(ordered, scores, right=False)
    upto = torch.searchsorted(ordered, scores, right=True)
    area = (below + upto).double().sum().item() / (2 * len(positives_p) * len(negatives_n))
    return Auroc(area, len(positives_p), len(negatives_n))


@dataclass(frozen=True, slots=True)
class Average:
    """A mean with its interval, and over how many it was taken."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}] n={self.n}"


def mean_auroc(scores_nc: torch.Tensor, labels: Sequence[int]) -> float:
    """The mean over concepts of one against the rest; see average_auroc."""
    counted = torch.ones(1, len(labels), dtype=torch.float64)
    return _by_concept(scores_nc, torch.tensor(labels), counted).mean().item()


def average_auroc(
    scores_nc: torch.Tensor,
    labels: Sequence[int],
    generator: torch.Generator,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
) -> Average:
    """The mean over concepts of one against the rest. Its interval is a bootstrap's over concepts and over
    texts within their kind (percentiles: Efron and Tibshirani 1993, chapter 13): it speaks of concepts like
    these, and stays open where each has few texts.

    `scores_nc` holds each text's score for each concept (NaN where there is none), `labels` which concept
    each text shows (-1: none).
    """
    label_n = torch.tensor(labels)
    counts_rn = torch.zeros(resamples, len(labels), dtype=torch.float64)
    for label in sorted(set(labels)):
        group = torch.nonzero(label_n == label).flatten()
        drawn = group[torch.randint(len(group), (resamples, len(group)), generator=generator)]
        counts_rn.scatter_add_(1, drawn, torch.ones_like(drawn, dtype=torch.float64))
    areas_rk = _by_concept(scores_nc, label_n, counts_rn)
    chosen = torch.randint(areas_rk.shape[1], areas_rk.shape, generator=generator)
    values = areas_rk.gather(1, chosen).mean(1)
    tail = (1 - confidence) / 2
    low, high = values.quantile(torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    return Average(mean_auroc(scores_nc, labels), low, high, len(labels))


def _by_concept(scores_nc: torch.Tensor, label_n: torch.Tensor, counts_rn: torch.Tensor) -> torch.Tensor:
    """The area of each concept that has one, for each row of how often each text counts, [r, k]."""
    found = [
        _areas(column[known], (label_n == concept)[known], counts_rn[:, known])
        for concept, column in enumerate(scores_nc.T)
        if (known := column.isfinite()).any() and 0 < (label_n == concept)[known].sum() < known.sum()
    ]
    if not found:
        raise BadRows("expected scores of both kinds for at least one concept, got none")
    return torch.stack(found, dim=1)


def _areas(scores_n: torch.Tensor, own_n: torch.Tensor, counts_rn: torch.Tensor) -> torch.Tensor:
    """Areas by counts: for each positive, the negatives below it and half of those that tie, [r]."""
    levels, level_n = torch.unique(scores_n, return_inverse=True)
    other_rn = counts_rn * ~own_n
    at_level = counts_rn.new_zeros(len(counts_rn), len(levels)).index_add_(1, level_n, other_rn)
    below = at_level.cumsum(1) - at_level / 2
    own_rn = counts_rn * own_n
    return (own_rn * below[:, level_n]).sum(1) / (own_rn.sum(1) * other_rn.sum(1))


def _root(falls: Callable[[float], float], outer: float, inner: float) -> float:
    """Where `falls` changes sign, between an end where it is positive and one where it is not: bisection."""
    for _ in range(60):
        middle = (outer + inner) / 2
        if falls(middle) > 0:
            outer = middle
        else:
            inner = middle
    return (outer + inner) / 2
