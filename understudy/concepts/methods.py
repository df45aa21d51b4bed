"""From rows that show a concept and rows that do not to the direction in which they differ.

Shapes: p positives, n negatives, k pairs, t tokens of a span, h hidden size.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from understudy.concepts.errors import BadRows

Method = Literal["mean_difference", "pair_pca", "logistic", "logistic_l1", "subspace", "whitened_mean"]
"""How a direction is found; see the functions of these names."""

METHODS: tuple[Method, ...] = get_args(Method)

LOGISTIC_STRENGTH = 1.0
"""scikit-learn's C, over rows scaled to unit deviation: its default."""
SPAN_RANK = 4
"""Directions that a span of tokens is taken to lie in, at most."""


@dataclass(frozen=True)
class Contrast:
    """What a direction is made from. `pairs` are numbers of a positive and the negative that it stands
    against. `spans`, one of each positive and then of each negative, are asked for by `subspace` alone.
    """

    positives_ph: torch.Tensor
    negatives_nh: torch.Tensor
    pairs: Sequence[tuple[int, int]] = ()
    spans_th: Sequence[torch.Tensor] = ()

    def __post_init__(self) -> None:
        if not len(self.positives_ph) or not len(self.negatives_nh):
            raise BadRows(
                f"expected rows of both kinds, got {len(self.positives_ph)} positive and "
                f"{len(self.negatives_nh)} negative: a direction is a difference"
            )

    @property
    def mean_difference_h(self) -> torch.Tensor:
        """The mean of the positives less that of the negatives: its length is how far they are apart."""
        return self.positives_ph.mean(0) - self.negatives_nh.mean(0)


def find_direction(contrast: Contrast, method: Method) -> torch.Tensor:
    """The direction by `method`, [h], of length 1, pointing from the negatives' mean to the positives'.

    Raises BadRows where there is none: the rows do not differ.
    """
    if not contrast.mean_difference_h.any():
        raise BadRows("expected rows that differ, positives and negatives have the same mean: no direction")
    found = _FINDERS[method](contrast).float()
    length = found.norm().item()
    if not 0 < length < torch.inf:
        raise BadRows(f"expected rows that differ in some direction, {method} finds no direction in them")
    backwards = bool(found @ contrast.mean_difference_h < 0)
    unit_h: torch.Tensor = found / (-length if backwards else length)
    return unit_h


def mean_difference(contrast: Contrast) -> torch.Tensor:
    """Contrastive activation addition: Rimsky et al. 2024, arXiv 2312.06681, section 3."""
    return contrast.mean_difference_h


def pair_pca(contrast: Contrast) -> torch.Tensor:
    """The first principal component of the differences within pairs, about zero since either may come first:
    the linear artificial tomography of Zou et al. 2023, arXiv 2310.01405, section 3.1.

    Without pairs each positive is set against the negatives' mean.
    """
    if contrast.pairs:
        first, second = (torch.tensor(numbers) for numbers in zip(*contrast.pairs, strict=True))
        differences_kh = contrast.positives_ph[first] - contrast.negatives_nh[second]
    else:
        differences_kh = contrast.positives_ph - contrast.negatives_nh.mean(0)
    first_h: torch.Tensor = torch.linalg.svd(differences_kh, full_matrices=False).Vh[0]
    return first_h


def logistic(contrast: Contrast) -> torch.Tensor:
    """The normal of the plane that ridge-penalised logistic regression puts between both, classes weighed
    alike: scikit-learn's, after all columns were divided by one number, the rows' deviation.
    """
    return _logistic(contrast, l1_ratio=0.0)


def logistic_l1(contrast: Contrast) -> torch.Tensor:
    """As `logistic`, with the lasso's penalty: few coordinates take part."""
    return _logistic(contrast, l1_ratio=1.0)


def _logistic(contrast: Contrast, l1_ratio: float) -> torch.Tensor:
    from sklearn.linear_model import LogisticRegression

    rows = torch.cat([contrast.positives_ph, contrast.negatives_nh]).double()
    rows = (rows - rows.mean(0)) / rows.std().clamp_min(1e-12)
    labels = [1] * len(contrast.positives_ph) + [0] * len(contrast.negatives_nh)
    model = LogisticRegression(
        C=LOGISTIC_STRENGTH,
        l1_ratio=l1_ratio,
        solver="liblinear",
        class_weight="balanced",
        max_iter=1000,
        random_state=0,
    )
    return torch.from_numpy(model.fit(rows.numpy(), labels).coef_[0])


def subspace(contrast: Contrast) -> torch.Tensor:
    """The direction that the positives' token spans have most in common and the negatives' least.

    Each span is taken as the subspace of its first right singular vectors; the mean of the projections onto
    the positives' subspaces, less that onto the negatives', has the direction as its first eigenvector
    (of the positives alone it is the flag mean: Draper et al. 2014, Linear Algebra and its Applications 451).
    """
    count = len(contrast.positives_ph)
    if len(contrast.spans_th) != count + len(contrast.negatives_nh):
        raise BadRows("expected the tokens of every text, `subspace` is made from them: collect with spans")
    centre_h = contrast.negatives_nh.mean(0)
    positive, negative = (
        [_basis(span_th - centre_h) for span_th in spans]
        for spans in (contrast.spans_th[:count], contrast.spans_th[count:])
    )
    # The difference of two sums of projections has its range in the bases' span: work there.
    frame = torch.cat([*positive, *negative])
    basis = torch.linalg.qr(frame.T).Q
    matrix = basis.new_zeros(basis.shape[1], basis.shape[1])
    for bases, weight in ((positive, 1 / len(positive)), (negative, -1 / len(negative))):
        inside = torch.cat(bases) @ basis
        matrix += weight * (inside.T @ inside)
    last: torch.Tensor = torch.linalg.eigh(matrix).eigenvectors[:, -1]
    common_h: torch.Tensor = basis @ last
    return common_h


def _basis(span_th: torch.Tensor) -> torch.Tensor:
    """The span's first right singular vectors, [rank, h], without those that nothing lies in."""
    found = torch.linalg.svd(span_th, full_matrices=False)
    rank = int((found.S / found.S[0] > 1e-6).sum()) if found.S[0] > 0 else 0
    basis: torch.Tensor = found.Vh[: min(SPAN_RANK, rank)]
    return basis


def whitened_mean(contrast: Contrast) -> torch.Tensor:
    """The difference of means in the metric of what varies within both kinds: Fisher's discriminant, with the
    covariance shrunk as Ledoit and Wolf 2004 do (scikit-learn's estimate of how much).

    The covariance is never formed: with fewer rows than columns its inverse acts by Woodbury's identity.
    """
    from sklearn.covariance import ledoit_wolf_shrinkage

    within = torch.cat(
        [
            contrast.positives_ph - contrast.positives_ph.mean(0),
            contrast.negatives_nh - contrast.negatives_nh.mean(0),
        ]
    ).double()
    rows, columns = within.shape
    shrinkage = float(ledoit_wolf_shrinkage(within.numpy(), assume_centered=True))
    scale = (within.square().sum() / (rows * columns)).item()
    difference = contrast.mean_difference_h.double()
    if scale == 0 or shrinkage >= 1:
        return difference
    ridge, weight = shrinkage * scale, (1 - shrinkage) / rows
    if ridge <= 1e-9 * scale:  # many rows, few columns: the covariance itself
        covariance = weight * within.T @ within + 1e-9 * scale * torch.eye(columns, dtype=torch.float64)
        solved: torch.Tensor = torch.linalg.solve(covariance, difference)
        return solved
    inner = torch.eye(rows, dtype=torch.float64) * (ridge / weight) + within @ within.T
    inside: torch.Tensor = torch.linalg.solve(inner, within @ difference)
    return (difference - within.T @ inside) / ridge


_FINDERS: Mapping[Method, Callable[[Contrast], torch.Tensor]] = {
    "mean_difference": mean_difference,
    "pair_pca": pair_pca,
    "logistic": logistic,
    "logistic_l1": logistic_l1,
    "subspace": subspace,
    "whitened_mean": whitened_mean,
}
