"""Keeping the largest entries, or random ones: exact, and independent of how a tensor is cut into runs."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from understudy.weights.trimming import Cut, Sparsify, find_cut, keep_largest, keep_random

FEW_VALUES = st.lists(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 1e-30, -3e38]), min_size=1, max_size=60
)
ANY_VALUES = st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=60)


def cut_up(tensor: torch.Tensor, size: int) -> Iterator[torch.Tensor]:
    for start in range(0, tensor.numel(), size):
        yield tensor[start : start + size]


def carried_out(keep: Sparsify, tensor: torch.Tensor, size: int) -> torch.Tensor:
    return torch.cat([keep(run) for run in cut_up(tensor, size)])


@settings(deadline=None)
@given(FEW_VALUES | ANY_VALUES, st.floats(0.01, 1), st.integers(1, 70))
def test_exactly_the_largest_are_kept_and_of_equals_the_first(
    values: list[float], density: float, size: int
) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    keep = keep_largest(lambda: cut_up(tensor, size), tensor.numel(), density)
    count = max(1, int(density * len(values))) if density < 1 else len(values)
    order = sorted(range(len(values)), key=lambda n: (-abs(float(tensor[n])), n))
    expected = torch.zeros_like(tensor)
    for place in order[:count]:
        expected[place] = tensor[place]
    assert torch.equal(carried_out(keep, tensor, size), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_large_tensor_against_a_stable_sort(dtype: torch.dtype) -> None:
    tensor = torch.randn(100_003, generator=torch.Generator().manual_seed(1)).to(dtype)
    keep = keep_largest(lambda: cut_up(tensor, 4096), tensor.numel(), 0.2)
    kept = torch.argsort(tensor.abs().float(), descending=True, stable=True)[:20_000]
    expected = torch.zeros_like(tensor)
    expected[kept] = tensor[kept]
    assert torch.equal(carried_out(keep, tensor, 999), expected)


def test_a_cut_names_the_kth_magnitude() -> None:
    tensor = torch.tensor([1.0, -4.0, 2.0, 4.0, 4.0])
    bits = int(torch.tensor([4.0]).view(torch.int32))
    assert find_cut(lambda: [tensor], 2) == Cut(bits, 2)
    assert find_cut(lambda: [tensor], 4) == Cut(int(torch.tensor([2.0]).view(torch.int32)), 1)


@settings(deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 500), st.integers(1, 500), st.floats(0.05, 0.95))
def test_random_entries_do_not_depend_on_the_runs(seed: int, size: int, other: int, density: float) -> None:
    tensor = torch.arange(1, 400, dtype=torch.float32)
    once = carried_out(keep_random(lambda: cut_up(tensor, size), density, "none", seed), tensor, size)
    again = carried_out(keep_random(lambda: cut_up(tensor, other), density, "none", seed), tensor, other)
    assert torch.equal(once, again)
    assert set(once.tolist()) <= {0.0, *tensor.tolist()}


def test_random_entries_are_kept_at_the_rate_asked_for_and_the_mean_stays() -> None:
    tensor = torch.ones(40_000)
    kept = carried_out(keep_random(lambda: [tensor], 0.3, "none", 5), tensor, 1000)
    assert stats.binomtest(int(kept.sum()), 40_000, 0.3).pvalue > 1e-4
    scaled = carried_out(keep_random(lambda: [tensor], 0.3, "density", 5), tensor, 1000)
    assert torch.allclose(scaled, kept / 0.3)
    restored = carried_out(keep_random(lambda: [tensor], 0.3, "l1", 5), tensor, 1000)
    assert float(restored.sum()) == pytest.approx(40_000, rel=1e-5)


def test_all_or_nothing() -> None:
    tensor = torch.tensor([1.0, 2.0])
    for keep in (keep_largest(lambda: [tensor], 2, 1.0), keep_random(lambda: [tensor], 1.0, "l1", 0)):
        assert torch.equal(keep(tensor), tensor)
    for keep in (keep_largest(lambda: [tensor], 2, 0.0), keep_random(lambda: [tensor], 0.0, "l1", 0)):
        assert torch.equal(keep(tensor), torch.zeros(2))
