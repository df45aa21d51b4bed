"""The chosen tokens' distribution, against transformers' own warpers."""

import pytest
import torch
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from understudy.engine import Sampling
from understudy.engine.sampling import pick, token_logprobs

GRID = 40_001


def shares(logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
    """How much of [0, 1) leads to each token."""
    uniforms = torch.arange(GRID, dtype=torch.float64) / GRID
    chosen = pick(logits.expand(GRID, -1), uniforms, sampling)
    return torch.bincount(chosen, minlength=logits.shape[-1]) / GRID


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.8])
@pytest.mark.parametrize("top_k", [0, 1, 7, 500])
@pytest.mark.parametrize("top_p", [0.05, 0.5, 0.9, 1.0])
def test_distribution_equals_that_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    logits = 2 * torch.randn(1, 50, generator=torch.Generator().manual_seed(0))
    warped = TemperatureLogitsWarper(temperature)(None, logits)
    if top_k:
        warped = TopKLogitsWarper(top_k)(None, warped)
    warped = TopPLogitsWarper(top_p)(None, warped)
    expected = warped.softmax(-1)[0]
    found = shares(logits, Sampling(temperature=temperature, top_k=top_k, top_p=top_p))
    assert (found - expected).abs().max() < 2 / GRID + 1e-6
    assert set(found.nonzero().flatten().tolist()) <= set(expected.nonzero().flatten().tolist())


def test_the_largest_draw_never_leads_to_a_token_without_mass() -> None:
    logits = torch.tensor([[0.0, 1.0, -float("inf"), -float("inf")]])
    almost_one = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert pick(logits, almost_one, Sampling(temperature=1.0)).item() == 1
    assert pick(logits, almost_one, Sampling(temperature=1.0, top_p=0.99)).item() in (0, 1)


def test_logprobs_are_natural_logarithms_of_the_softmax() -> None:
    logits = torch.randn(3, 11, generator=torch.Generator().manual_seed(1))
    chosen = torch.tensor([4, 0, 10])
    expected = logits.double().softmax(-1).log()
    for row, token in enumerate(token_logprobs(logits, chosen, 20)):
        assert token.token_id == chosen[row]
        assert token.logprob == pytest.approx(expected[row, token.token_id].item(), abs=1e-6)
        assert len(token.top) == 11  # all there are
        assert [i for i, _ in token.top] == expected[row].argsort(descending=True).tolist()
