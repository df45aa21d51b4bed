"""Stochastic rounding: unbiased, exact where bf16 is exact, safe at the edges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.training import add_stochastic_, round_stochastic_


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


finite = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)


@given(finite, st.integers(0, 2**31))
def test_result_is_one_of_the_two_neighbours(number: float, seed: int) -> None:
    value = torch.full((64,), number)
    weight = torch.zeros(64, dtype=torch.bfloat16)
    round_stochastic_(weight, value, generator(seed))
    largest = torch.finfo(torch.bfloat16).max
    below = (value.view(torch.int32) >> 16 << 16).view(torch.float32)
    above = ((value.view(torch.int32) >> 16 << 16) + (1 << 16)).view(torch.float32).clamp(-largest, largest)
    exact = weight.float()
    assert bool(((exact == below.clamp(-largest, largest)) | (exact == above)).all())
    assert bool(exact.isfinite().all())


@given(st.integers(-(2**15), 2**15 - 1), st.integers(0, 2**31))
def test_every_bfloat16_stays_as_it_is(bits: int, seed: int) -> None:
    number = torch.tensor([bits], dtype=torch.int16).view(torch.bfloat16)
    weight = torch.zeros(1, dtype=torch.bfloat16)
    round_stochastic_(weight, number.float(), generator(seed))
    if bool(number.isnan()):
        assert bool(weight.isnan())
    else:
        assert torch.equal(weight.view(torch.int16), number.view(torch.int16))


def test_infinities_and_nans_pass_through() -> None:
    small_payload = torch.tensor([0x7F800001], dtype=torch.int32).view(torch.float32)
    edge = torch.tensor([torch.inf, -torch.inf, torch.nan, torch.finfo(torch.float32).max])
    value = torch.cat([edge, small_payload]).repeat(1000)
    weight = torch.zeros(5000, dtype=torch.bfloat16)
    round_stochastic_(weight, value, generator())
    rows = weight.view(1000, 5)
    assert bool((rows[:, 0] == torch.inf).all()) and bool((rows[:, 1] == -torch.inf).all())
    assert bool(rows[:, 2].isnan().all()) and bool(rows[:, 4].isnan().all())
    assert bool((rows[:, 3] == torch.finfo(torch.bfloat16).max).all())


@pytest.mark.parametrize("share", [0.01, 0.25, 0.5, 0.9])
def test_the_chance_of_rounding_up_is_the_dropped_fraction(share: float) -> None:
    spacing = 2.0**-7  # of bf16 numbers between 1 and 2
    draws = 200_000
    for sign in (1.0, -1.0):
        weight = torch.zeros(draws, dtype=torch.bfloat16)
        round_stochastic_(weight, torch.full((draws,), sign * (1 + share * spacing)), generator(1))
        up = (weight.float().abs() > 1).double().mean().item()
        assert up == pytest.approx(share, abs=5 * (share * (1 - share) / draws) ** 0.5)


def test_equal_generators_round_equally_and_others_do_not() -> None:
    value = torch.randn(1001, generator=generator(3))
    first, second, third = (torch.zeros(1001, dtype=torch.bfloat16) for _ in range(3))
    round_stochastic_(first, value, generator(7))
    round_stochastic_(second, value, generator(7))
    round_stochastic_(third, value, generator(8))
    assert torch.equal(first, second)
    assert not torch.equal(first, third)


def test_the_storage_is_written_never_replaced() -> None:
    weight = torch.zeros(7, 3, dtype=torch.bfloat16)
    other_view = weight.view(-1)
    before = weight.data_ptr()
    add_stochastic_(weight, torch.ones(7, 3), generator())
    assert weight.data_ptr() == before
    assert bool((other_view == 1).all())


def test_wrong_dtypes_and_shapes_are_refused() -> None:
    with pytest.raises(TypeError, match="expected a bfloat16 weight"):
        round_stochastic_(torch.zeros(3), torch.zeros(3), generator())
    with pytest.raises(ValueError, match="expected a value of shape"):
        round_stochastic_(torch.zeros(3, dtype=torch.bfloat16), torch.zeros(4), generator())
