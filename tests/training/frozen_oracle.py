"""Full passes whose context carries no gradient, and what to compare with them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers.models.qwen3_5.modeling_qwen3_5 as modeling_qwen3_5
from torch import Tensor, nn
from transformers.cache_utils import LinearAttentionLayer

from understudy.training import FrozenContext, continuation_log_probabilities

Gradients = dict[str, Tensor]


def detach_before(tensor: Tensor, position: int) -> Tensor:
    """Positions are the second dimension."""
    context, rest = tensor[:, :position], tensor[:, position:]
    return torch.cat([context.detach(), rest], 1)


@contextmanager
def detached_context(model: nn.Module, architecture: str, position: int) -> Iterator[None]:
    """A full pass whose keys, values and delta-rule inputs carry no gradient before `position`."""
    keys = "k_proj" if architecture == "llama" else "k_norm"
    hooks = [
        module.register_forward_hook(lambda _, __, output: detach_before(output, position))
        for name, module in model.named_modules()
        if name.rpartition(".")[2] in (keys, "v_proj", "in_proj_qkv")
    ]
    rule = modeling_qwen3_5.torch_chunk_gated_delta_rule

    def detached_rule(query: Tensor, key: Tensor, value: Tensor, g: Tensor, beta: Tensor, **rest: Any) -> Any:
        inputs = (detach_before(tensor, position) for tensor in (query, key, value))
        return rule(*inputs, g=detach_before(g, position), beta=detach_before(beta, position), **rest)

    modeling_qwen3_5.torch_chunk_gated_delta_rule = detached_rule
    try:
        yield
    finally:
        modeling_qwen3_5.torch_chunk_gated_delta_rule = rule
        for hook in hooks:
            hook.remove()


def gradients_of(model: nn.Module, loss: Tensor) -> Gradients:
    model.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    found = {
        name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None
    }
    model.zero_grad()
    return found


def frozen_loss(model: nn.Module, frozen: FrozenContext, continuation: Tensor) -> Tensor:
    return -continuation_log_probabilities(model, frozen, continuation).mean()


def detached_gradients(
    model: nn.Module, architecture: str, context: Tensor, continuation: Tensor
) -> Gradients:
    ids = torch.cat([context, continuation])[None]
    with detached_context(model, architecture, len(context) - 1):
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, len(context) - 1 :]
        return gradients_of(model, nn.functional.cross_entropy(logits, continuation))


def worst_difference(found: Gradients, expected: Gradients) -> float:
    """Relative to the largest entry of each parameter's gradient (one that is next to 0: of all)."""
    assert found.keys() == expected.keys()
    floor = 1e-6 * max(gradient.abs().max().item() for gradient in expected.values())
    return max(
        (found[name] - expected[name]).abs().max().item() / max(expected[name].abs().max().item(), floor)
        for name in expected
    )


def states_of(frozen: FrozenContext) -> list[Tensor]:
    assert frozen.cache is not None
    states: list[Tensor] = []
    for layer in frozen.cache.layers:
        if isinstance(layer, LinearAttentionLayer):
            states += [layer.conv_states[0], layer.recurrent_states[0]]
        else:
            states += [*layer.key_pieces, *layer.value_pieces]
    return states
