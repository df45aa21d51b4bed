"""Every method finds a direction that was planted, and none where labels were shuffled."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from understudy.concepts.auroc import auroc
from understudy.concepts.errors import BadRows
from understudy.concepts.methods import METHODS, SPAN_RANK, Contrast, Method, find_direction

HIDDEN = 24
TOKENS = 6


def planted(
    seed: int, positives: int = 60, negatives: int = 90, rows: int = 0
) -> tuple[Contrast, torch.Tensor]:
    """Rows whose spans of tokens lean to one direction where they are positive; and that direction.

    Another number for `rows` gives other rows of the same direction.
    """
    draw = torch.Generator().manual_seed(seed)
    direction = torch.nn.functional.normalize(torch.randn(HIDDEN, generator=draw), dim=0)
    count = positives + negatives
    shown = torch.arange(count) < positives
    common = 3 * torch.randn(HIDDEN, generator=draw)  # what all texts share
    draw.manual_seed(1000 * seed + rows)
    spans = [
        common
        + torch.randn(TOKENS, HIDDEN, generator=draw)
        + (2 if own else 0) * direction * (1 + 0.2 * torch.randn(TOKENS, 1, generator=draw))
        for own in shown
    ]
    means = torch.stack([span.mean(0) for span in spans])
    pairs = [(number, number) for number in range(positives)]
    return Contrast(means[:positives], means[positives:], pairs, spans), direction


@pytest.mark.parametrize("method", METHODS)
def test_a_planted_direction_is_found(method: Method) -> None:
    contrast, direction = planted(0)
    found = find_direction(contrast, method)
    assert found.norm() == pytest.approx(1, abs=1e-5)
    assert found @ direction > (0.7 if method == "logistic_l1" else 0.9)  # the lasso's has few coordinates
    fresh, _ = planted(0, rows=1)
    area = auroc(fresh.positives_ph @ found, fresh.negatives_nh @ found)
    assert area.value > 0.99


@pytest.mark.parametrize("method", METHODS)
def test_shuffled_labels_lead_nowhere(method: Method) -> None:
    contrast, _ = planted(1)
    rows = torch.cat([contrast.positives_ph, contrast.negatives_nh])
    fresh, _ = planted(1, rows=1)
    draw = torch.Generator().manual_seed(7)
    areas = []
    for _ in range(24):
        order = torch.randperm(len(rows), generator=draw)
        first, second = order[:60], order[60:]
        spans = [contrast.spans_th[number] for number in (*first.tolist(), *second.tolist())]
        found = find_direction(Contrast(rows[first], rows[second], (), spans), method)
        areas.append(auroc(fresh.positives_ph @ found, fresh.negatives_nh @ found).value)
    mean, error = np.mean(areas), np.std(areas, ddof=1) / np.sqrt(len(areas))
    assert abs(mean - 0.5) < 2.8 * error  # its 99 % interval, by Student's t with 23 degrees


@given(scale=st.floats(1e-3, 1e3), shift=st.floats(-100, 100), seed=st.integers(0, 50))
def test_the_sign_is_the_means(scale: float, shift: float, seed: int) -> None:
    contrast, _ = planted(seed, 8, 9)
    moved = Contrast(
        scale * contrast.positives_ph + shift, scale * contrast.negatives_nh + shift, contrast.pairs
    )
    other = Contrast(moved.negatives_nh[:8], moved.positives_ph, contrast.pairs)
    for method in ("mean_difference", "pair_pca", "whitened_mean"):
        assert find_direction(moved, method) @ moved.mean_difference_h > 0
        assert find_direction(other, method) @ other.mean_difference_h > 0


@pytest.mark.parametrize("method", ["logistic", "logistic_l1"])
def test_logistic_regression_is_scikit_learns(method: Method) -> None:
    contrast, _ = planted(2)
    rows = torch.cat([contrast.positives_ph, contrast.negatives_nh]).numpy().astype(np.float64)
    labels = np.array([1] * 60 + [0] * 90)
    # Minimised by another solver than ours uses, on the same scale.
    scaled = (rows - rows.mean(0)) / rows.std(ddof=1)
    theirs = LogisticRegression(
        l1_ratio=1.0 if method == "logistic_l1" else 0.0,
        solver="saga",
        class_weight="balanced",
        max_iter=50_000,
        tol=1e-8,
        random_state=0,
    ).fit(scaled, labels)
    expected = torch.from_numpy(theirs.coef_[0]).float()
    expected = expected / expected.norm()
    assert find_direction(contrast, method) @ expected > 0.999


def test_the_lasso_uses_fewer_coordinates() -> None:
    contrast, _ = planted(2)
    dense, sparse = (find_direction(contrast, method) for method in ("logistic", "logistic_l1"))
    assert (sparse.abs() < 1e-6).sum() > (dense.abs() < 1e-6).sum()


def test_the_component_of_pairs_is_scikit_learns() -> None:
    contrast, _ = planted(3)
    differences = (contrast.positives_ph - contrast.negatives_nh[:60]).numpy()
    # Each difference and its opposite: their mean is zero, as either of a pair may come first.
    theirs = PCA(1).fit(np.concatenate([differences, -differences])).components_[0]
    cosine = find_direction(contrast, "pair_pca") @ torch.from_numpy(theirs)
    assert cosine.abs() > 0.9999


def test_without_pairs_each_positive_stands_against_the_negatives_mean() -> None:
    contrast, direction = planted(3)
    bare = Contrast(contrast.positives_ph, contrast.negatives_nh)
    assert find_direction(bare, "pair_pca") @ direction > 0.8


@pytest.mark.parametrize("counts", [(60, 90), (5, 6)])
def test_the_whitened_mean_is_fishers_discriminant(counts: tuple[int, int]) -> None:
    contrast, _ = planted(4, *counts)
    within = torch.cat(
        [
            contrast.positives_ph - contrast.positives_ph.mean(0),
            contrast.negatives_nh - contrast.negatives_nh.mean(0),
        ]
    ).double()
    covariance = LedoitWolf(assume_centered=True).fit(within.numpy()).covariance_
    expected = np.linalg.solve(covariance, contrast.mean_difference_h.double().numpy())
    expected /= np.linalg.norm(expected)
    assert find_direction(contrast, "whitened_mean").double() @ torch.from_numpy(expected) > 0.99999


def test_the_whitened_mean_without_shrinkage_is_scikit_learns_discriminant() -> None:
    contrast, _ = planted(4, 4000, 4000)  # so many rows that next to nothing is shrunk
    rows = torch.cat([contrast.positives_ph, contrast.negatives_nh]).numpy()
    theirs = LinearDiscriminantAnalysis(solver="lsqr").fit(rows, [1] * 4000 + [0] * 4000).coef_[0]
    expected = torch.from_numpy(theirs).float()
    # What little is shrunk makes the rest of the difference.
    assert find_direction(contrast, "whitened_mean") @ (expected / expected.norm()) > 0.99


def test_the_common_subspace_by_projections_in_full() -> None:
    contrast, _ = planted(5, 12, 14)
    centre = contrast.negatives_nh.mean(0)

    def projection(span: torch.Tensor) -> torch.Tensor:
        basis: torch.Tensor = torch.linalg.svd(span - centre, full_matrices=False).Vh[:SPAN_RANK]
        return basis.T @ basis

    mean = torch.stack([projection(span) for span in contrast.spans_th[:12]]).mean(0) - torch.stack(
        [projection(span) for span in contrast.spans_th[12:]]
    ).mean(0)
    expected = torch.linalg.eigh(mean).eigenvectors[:, -1]
    assert (find_direction(contrast, "subspace") @ expected).abs() > 0.999


def test_the_subspace_wants_tokens() -> None:
    contrast, _ = planted(5)
    with pytest.raises(BadRows, match="spans"):
        find_direction(Contrast(contrast.positives_ph, contrast.negatives_nh), "subspace")


def test_rows_of_one_kind_have_no_direction() -> None:
    with pytest.raises(BadRows, match="both kinds"):
        Contrast(torch.randn(3, 4), torch.empty(0, 4))


@pytest.mark.parametrize("method", METHODS)
def test_rows_that_do_not_differ_have_no_direction(method: Method) -> None:
    same = torch.ones(4, 8)
    spans = [torch.ones(2, 8)] * 8
    with pytest.raises(BadRows, match="no direction"):
        find_direction(Contrast(same, same, [(0, 0)], spans), method)
