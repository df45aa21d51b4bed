"""Stochastic rounding: unbiased, exact where bf16 is exact, safe at the edges."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from understudy.training import add_stochastic_, round_stochastic_
from understudy.training.rounding import draw_noise


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


def test_what_is_finite_is_rounded_the_same_beside_a_nan() -> None:
    value = torch.randn(3, 1001, generator=generator(3))
    alone, beside = (torch.zeros(3, 1001, dtype=torch.bfloat16) for _ in range(2))
    round_stochastic_(alone, value, generator(7))
    value[1, 5] = torch.nan
    value[2, 7] = -torch.inf
    round_stochastic_(beside, value, generator(7))
    same = value.isfinite()
    assert torch.equal(alone[same], beside[same])
    assert bool(beside[1, 5].isnan()) and bool(beside[2, 7] == -torch.inf)


@given(st.integers(1, 40_000), st.integers(0, 2**31))
def test_noise_has_any_length_and_sixteen_bits(count: int, seed: int) -> None:
    noise = draw_noise(count, generator(seed))
    assert noise.shape == (count,) and noise.dtype == torch.int32
    assert int(noise.min()) >= 0 and int(noise.max()) <= 65535


def test_every_bit_of_the_noise_is_fair() -> None:
    noise = draw_noise(1_000_000, generator(1))
    for half in (noise[0::2], noise[1::2]):  # the halves of the words that the noise is cut from
        for bit in range(16):
            assert (half >> bit & 1).double().mean().item() == pytest.approx(0.5, abs=0.005)


# Rows as long as the noise's own, as half of them, and not in step with them.
@pytest.mark.parametrize("shape", [(256, 16384), (512, 8192), (1000, 1000)])
@pytest.mark.parametrize("alike", [True, False])
def test_the_errors_of_a_matrix_have_no_direction(shape: tuple[int, int], alike: bool) -> None:
    """As large a singular value as independent errors have, sigma (sqrt(m) + sqrt(n)), also where all values
    lie equally far between their neighbours; and their sum has the variance of independent errors."""
    share = torch.full(shape, 0.5) if alike else torch.rand(shape, generator=generator(2))
    value = 1 + share * 2.0**-7  # between two neighbouring bf16 numbers
    weight = torch.zeros(shape, dtype=torch.bfloat16)
    round_stochastic_(weight, value, generator(3))
    error = (weight.float() - value) * 2.0**7
    deviation = (share * (1 - share)).mean().sqrt().item()
    largest = torch.linalg.matrix_norm(error, 2).item()
    assert largest < 1.15 * deviation * (shape[0] ** 0.5 + shape[1] ** 0.5)
    sums = error.sum(1) / deviation / shape[1] ** 0.5
    assert sums.square().mean().item() == pytest.approx(1, abs=5 * (2 / shape[0]) ** 0.5)
    assert error.sum().abs().item() < 5 * deviation * error.numel() ** 0.5
