"""Objectives."""

import pytest
import torch

from understudy.training import OBJECTIVES, LogProbabilities, UnknownObjective, find_objective, sft


def test_sft_is_the_mean_negative_log_likelihood() -> None:
    chosen = torch.tensor([0.5, 0.25, 0.125]).log().requires_grad_()
    loss = sft(LogProbabilities(chosen))
    assert loss.item() == pytest.approx(torch.tensor(2.0).log().item() * 2)
    loss.backward()  # type: ignore[no-untyped-call]
    assert chosen.grad is not None
    assert torch.allclose(chosen.grad, torch.full((3,), -1 / 3))


def test_objectives_are_found_by_name() -> None:
    assert find_objective("sft") is sft
    assert set(OBJECTIVES) == {"sft"}
    with pytest.raises(UnknownObjective, match="among sft, got 'ppo'"):
        find_objective("ppo")
