"""Areas are scikit-learn's, and their intervals hold what they say."""

from statistics import NormalDist

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from understudy.concepts.auroc import Auroc, auroc, average_auroc, mean_auroc
from understudy.concepts.errors import BadRows

scores = st.lists(st.integers(-4, 4).map(float), min_size=1, max_size=30)


@given(scores, scores)
def test_the_area_is_scikit_learns_ties_included(positives: list[float], negatives: list[float]) -> None:
    found = auroc(torch.tensor(positives), torch.tensor(negatives))
    expected = roc_auc_score([1] * len(positives) + [0] * len(negatives), positives + negatives)
    assert found.value == pytest.approx(expected, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.sampled_from([-1, 0, 1])),
        min_size=4,
        max_size=40,
    ).filter(lambda rows: {0, 1} <= {label for *_, label in rows})
)
def test_the_mean_area_is_scikit_learns(rows: list[tuple[int, int, int]]) -> None:
    labels = [label for *_, label in rows]
    table = torch.tensor([[float(first), float(second)] for first, second, _ in rows])
    expected = np.mean(
        [
            roc_auc_score([label == concept for label in labels], table[:, concept].numpy())
            for concept in (0, 1)
        ]
    )
    assert mean_auroc(table, labels) == pytest.approx(expected, abs=1e-12)


@given(st.floats(0, 1), st.integers(1, 200), st.integers(1, 200))
def test_an_interval_holds_its_value_and_lies_in_bounds(value: float, positives: int, negatives: int) -> None:
    low, high = Auroc(value, positives, negatives).interval()
    assert 0 <= low <= value + 1e-9
    assert value - 1e-9 <= high <= 1


def test_a_perfect_area_is_not_certain() -> None:
    low, high = Auroc(1.0, 6, 30).interval()
    assert (round(low, 2), high) == (0.8, 1.0)
    assert Auroc(1.0, 60, 300).interval()[0] > low


@pytest.mark.parametrize("apart", [0.0, 1.0, 2.5])
def test_intervals_cover_what_they_say(apart: float) -> None:
    """Normal scores, n = 20 + 40, 2,000 samples: at least 93 % hold the true area (nominal 95)."""
    truth = NormalDist().cdf(apart / 2**0.5)
    draw = torch.Generator().manual_seed(3)
    held = 0
    for _ in range(2000):
        positives = torch.randn(20, generator=draw) + apart
        low, high = auroc(positives, torch.randn(40, generator=draw)).interval()
        held += low <= truth <= high
    assert held / 2000 > 0.93


def test_the_averages_interval_covers_the_truth() -> None:
    truth = NormalDist().cdf(1 / 2**0.5)
    draw = torch.Generator().manual_seed(4)
    labels = [label for label in range(4) for _ in range(25)]
    held = 0
    for _ in range(100):
        table = torch.randn(100, 4, generator=draw)
        table[torch.arange(100), torch.tensor(labels)] += 1
        found = average_auroc(table, labels, draw, resamples=200)
        held += found.low <= truth <= found.high
    assert held >= 88  # of 100, nominal 95: three standard errors below


def test_the_average_is_not_certain_where_each_concept_has_one_text() -> None:
    draw = torch.Generator().manual_seed(5)
    table = torch.randn(8, 8, generator=draw)
    found = average_auroc(table, list(range(8)), draw)
    assert found.low < found.value - 0.1
    assert found.high > found.value + 0.1


def test_what_has_no_score_does_not_count() -> None:
    labels = [0, 0, 1, 1, -1]
    table = torch.tensor([[3.0, 0.0], [torch.nan, 0.0], [1.0, 2.0], [2.0, 3.0], [0.0, torch.nan]])
    expected = (1.0 + 1.0) / 2
    assert mean_auroc(table, labels) == expected
    with pytest.raises(BadRows):
        mean_auroc(torch.full((5, 2), torch.nan), labels)


def test_one_kind_alone_has_no_area() -> None:
    with pytest.raises(BadRows, match="both kinds"):
        auroc(torch.empty(0), torch.ones(3))
