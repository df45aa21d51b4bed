"""Activation checkpointing over a frozen context: the same gradients, for less memory."""

import pytest
import torch
from torch import Tensor, nn
from training_models import ARCHITECTURES, random_ids, tiny_model

from understudy.config import TrainingSettings
from understudy.lessons import Example
from understudy.training import (
    Apollo,
    checkpointed,
    continuation_log_probabilities,
    freeze_context,
    parameter_groups,
    run_session,
)


def saved_bytes(model: nn.Module, sparing: bool) -> tuple[int, list[Tensor]]:
    """What the graph of one continuation holds beside the weights, and its gradients."""
    held: dict[int, int] = {}
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    frozen = freeze_context(model, random_ids(100)[None], chunk=64)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        if sparing:
            with checkpointed(model):
                loss = -continuation_log_probabilities(model, frozen, random_ids(30, 1)).mean()
        else:
            loss = -continuation_log_probabilities(model, frozen, random_ids(30, 1)).mean()
    return sum(held.values()), list(torch.autograd.grad(loss, list(model.parameters())))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_are_the_same_to_the_bit(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_model(architecture, dtype)
    plain, expected = saved_bytes(model, sparing=False)
    sparing, found = saved_bytes(model, sparing=True)
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert any(bool(one.any()) for one in found)
    assert sparing < plain / 3


def test_the_layers_are_their_own_again_also_after_an_error() -> None:
    model = tiny_model("qwen3")
    with pytest.raises(RuntimeError, match="stop"), checkpointed(model):
        assert any("forward" in vars(module) for module in model.modules())
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_session_comes_out_the_same(batch_size: int) -> None:
    ids = random_ids(60).tolist()
    examples = [Example(tuple(ids[:n]), tuple(ids[n:])) for n in (20, 40)]
    ends = []
    for sparing in (False, True):
        model = tiny_model("qwen3_5")
        settings = TrainingSettings(
            lr=1e-2, gate=None, replay=0, epochs=2, batch_size=batch_size, activation_checkpointing=sparing
        )
        run_session(model, Apollo(parameter_groups(model, settings), settings), examples, (), settings)
        ends.append({name: weight.detach().clone() for name, weight in model.named_parameters()})
    assert all(torch.equal(ends[0][name], weight) for name, weight in ends[1].items())
