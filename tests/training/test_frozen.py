"""The frozen context against full passes: logits, gradients, reuse, edges."""

from typing import Any

import pytest
import torch
import transformers.models.qwen3_5.modeling_qwen3_5 as modeling_qwen3_5
from frozen_oracle import (
    Gradients,
    detached_gradients,
    frozen_loss,
    gradients_of,
    states_of,
    worst_difference,
)
from torch import Tensor, nn
from training_models import (
    ARCHITECTURES,
    InFloat64,
    random_ids,
    recompute_activations,
    tiny_model,
)
from transformers.cache_utils import LinearAttentionLayer

from understudy.training import (
    ContextTooLong,
    EmptyContext,
    FrozenContextUnsupported,
    continuation_log_probabilities,
    continuation_logits,
    freeze_context,
    self_test,
)
from understudy.training.cache_layers import FrozenAttention, FrozenLinearAttention, GrowingLinearAttention


# Contexts of less than, exactly, one past, and more than two of the delta rule's 64-token chunks.
@pytest.mark.parametrize("context_tokens", [2, 3, 40, 65, 66, 150])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_equal_the_detached_full_pass(architecture: str, context_tokens: int) -> None:
    model = tiny_model(architecture, torch.float64)
    context, continuation = random_ids(context_tokens, 1), random_ids(9, 2)
    with InFloat64():
        expected = detached_gradients(model, architecture, context, continuation)
        frozen = freeze_context(model, context[None])
        found = gradients_of(model, frozen_loss(model, frozen, continuation))
    assert worst_difference(found, expected) < 1e-9
    assert all(bool(gradient.any()) for gradient in found.values())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_freezing_changes_the_gradient(architecture: str) -> None:
    """The reference above is no tautology: without detaching, gradients differ."""
    model = tiny_model(architecture, torch.float64)
    context, continuation = random_ids(40, 1), random_ids(9, 2)
    ids = torch.cat([context, continuation])[None]
    with InFloat64():
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits[0, 39:]
        full = gradients_of(model, nn.functional.cross_entropy(logits, continuation))
        found = gradients_of(model, frozen_loss(model, freeze_context(model, context[None]), continuation))
    assert worst_difference(found, full) > 1e-2


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 3e-2), (torch.float64, 1e-4)]
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_equal_one_full_pass(architecture: str, dtype: torch.dtype, tolerance: float) -> None:
    model = tiny_model(architecture, dtype)
    context, continuation = random_ids(80, 1), random_ids(9, 2)
    with torch.no_grad():
        ids = torch.cat([context, continuation])[None]
        full = model(input_ids=ids[:, :-1], use_cache=False).logits[0, 79:]
        alone = model(input_ids=ids[:, 79:-1], use_cache=False).logits[0]
        found = continuation_logits(model, freeze_context(model, context[None]), continuation)
        log_probabilities = continuation_log_probabilities(
            model, freeze_context(model, context[None]), continuation
        )
    assert found.dtype == dtype
    assert (found - full).abs().max() < tolerance * full.abs().max()
    assert (alone - full).abs().max() > 0.1 * full.abs().max()  # the context matters
    expected = full.double().log_softmax(-1)[torch.arange(9), continuation]
    assert torch.allclose(log_probabilities.double(), expected, atol=0.2 if dtype == torch.bfloat16 else 1e-3)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_context_is_reused_and_never_changes(architecture: str) -> None:
    model = tiny_model(architecture)
    frozen = freeze_context(model, random_ids(70, 1)[None])
    before = [state.clone() for state in states_of(frozen)]
    first, second = random_ids(9, 2), random_ids(5, 3)
    wanted = gradients_of(model, frozen_loss(model, frozen, first))
    for _ in range(3):
        gradients_of(model, frozen_loss(model, frozen, second))
        with torch.no_grad():
            frozen_loss(model, frozen, first)
        frozen_loss(model, frozen, random_ids(1, 4))
    again = gradients_of(model, frozen_loss(model, frozen, first))
    assert all(torch.equal(again[name], wanted[name]) for name in wanted)
    assert all(torch.equal(now, then) for now, then in zip(states_of(frozen), before, strict=True))
    assert not any(state.requires_grad for state in states_of(frozen))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_siblings_share_one_context_in_every_way(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    context = random_ids(70, 1)
    siblings = [random_ids(6, seed) for seed in (2, 3, 4)]
    with InFloat64():
        separate: Gradients = {}
        for sibling in siblings:
            own = gradients_of(model, frozen_loss(model, freeze_context(model, context[None]), sibling))
            separate = {name: separate.get(name, 0) + gradient / 3 for name, gradient in own.items()}
        frozen = freeze_context(model, context[None])
        live = torch.stack([frozen_loss(model, frozen, sibling) for sibling in siblings])
        joint = gradients_of(model, live.mean())
        batched = continuation_log_probabilities(model, frozen.widen(3), torch.stack(siblings))
        assert batched.shape == (3, 6)
        wide = gradients_of(model, -batched.mean())
    assert worst_difference(joint, separate) < 1e-9
    assert worst_difference(wide, separate) < 1e-9
    for state, wide_state in zip(states_of(frozen), states_of(frozen.widen(3)), strict=True):
        assert state.data_ptr() == wide_state.data_ptr()


@pytest.mark.parametrize("context_tokens", [1, 2, 70])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_continuation_of_one_token(architecture: str, context_tokens: int) -> None:
    model = tiny_model(architecture, torch.float64)
    context, continuation = random_ids(context_tokens, 1), random_ids(1, 2)
    with InFloat64():
        expected = detached_gradients(model, architecture, context, continuation)
        frozen = freeze_context(model, context[None])
        assert continuation_logits(model, frozen, continuation).shape[0] == 1
        found = gradients_of(model, frozen_loss(model, frozen, continuation))
    assert worst_difference(found, expected) < 1e-9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_context_of_one_token(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64)
    context, continuation = random_ids(1, 1), random_ids(9, 2)
    with InFloat64():
        expected = detached_gradients(model, architecture, context, continuation)
        frozen = freeze_context(model, context[None])
        found = gradients_of(model, frozen_loss(model, frozen, continuation))
    assert frozen.cache is None
    assert worst_difference(found, expected) < 1e-9


def test_an_empty_context_begins_a_text() -> None:
    model = tiny_model("llama", bos_token_id=7)
    empty = torch.zeros((1, 0), dtype=torch.long)
    continuation = random_ids(4, 2)
    with torch.no_grad():
        found = continuation_logits(model, freeze_context(model, empty), continuation)
        expected = continuation_logits(model, freeze_context(model, torch.tensor([[7]])), continuation)
    assert torch.equal(found, expected)


def test_an_empty_context_without_beginning_is_refused() -> None:
    with pytest.raises(EmptyContext, match="no bos_token_id"):
        freeze_context(tiny_model("qwen3"), torch.zeros((1, 0), dtype=torch.long))


def test_too_long_a_context_is_refused() -> None:
    model = tiny_model("qwen3", max_position_embeddings=20)
    with pytest.raises(ContextTooLong, match=r"at most 20 tokens .* got 21 \+ 0"):
        freeze_context(model, random_ids(21)[None])
    frozen = freeze_context(model, random_ids(15)[None])
    assert continuation_logits(model, frozen, random_ids(5)).shape[0] == 5
    with pytest.raises(ContextTooLong, match=r"got 15 \+ 6: shorten"):
        continuation_logits(model, frozen, random_ids(6))


def test_wrong_shapes_are_refused() -> None:
    model = tiny_model("qwen3")
    with pytest.raises(ValueError, match=r"shape \(1, N\)"):
        freeze_context(model, random_ids(4))
    frozen = freeze_context(model, random_ids(4)[None])
    with pytest.raises(ValueError, match="at least 1 token"):
        continuation_logits(model, frozen, random_ids(0))
    with pytest.raises(ValueError, match="widen the context"):
        continuation_logits(model, frozen, random_ids(4).view(2, 2))
    with pytest.raises(ValueError, match="widen the original"):
        frozen.widen(2).widen(2)


def test_an_unknown_kind_of_cache_is_refused_by_name() -> None:
    model = tiny_model("qwen3", use_sliding_window=True, sliding_window=8, max_window_layers=2)
    with pytest.raises(FrozenContextUnsupported, match="got DynamicSlidingWindowLayer"):
        freeze_context(model, random_ids(4)[None])


def test_activation_checkpointing_is_refused() -> None:
    model = tiny_model("qwen3").train()
    recompute_activations(model)
    with pytest.raises(FrozenContextUnsupported, match="activation checkpointing"):
        freeze_context(model, random_ids(4)[None])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_self_test_passes_and_leaves_nothing(architecture: str, dtype: torch.dtype) -> None:
    model = tiny_model(architecture, dtype)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    random_state = torch.get_rng_state()
    self_test(model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())


def test_self_test_fits_into_few_positions() -> None:
    self_test(tiny_model("qwen3_5", max_position_embeddings=16))


def test_self_test_catches_a_context_that_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with versions that start a cached delta rule from zero."""
    rule = modeling_qwen3_5.torch_chunk_gated_delta_rule

    def forgetful(*tensors: Tensor, initial_state: Tensor | None = None, **rest: Any) -> Any:
        return rule(*tensors, initial_state=None, **rest)

    monkeypatch.setattr(modeling_qwen3_5, "torch_chunk_gated_delta_rule", forgetful)
    with pytest.raises(FrozenContextUnsupported, match=r"first continuation .* got \d"):
        self_test(tiny_model("qwen3_5"))


def test_self_test_catches_a_cache_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(layer: FrozenAttention, key: Tensor, value: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
        layer.key_pieces, layer.value_pieces = (*layer.key_pieces, key), (*layer.value_pieces, value)
        return torch.cat(layer.key_pieces, -2), torch.cat(layer.value_pieces, -2)

    monkeypatch.setattr(FrozenAttention, "update", grow)
    with pytest.raises(FrozenContextUnsupported, match="a repeated continuation"):
        self_test(tiny_model("qwen3"))


def test_self_test_catches_a_cache_written_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        FrozenLinearAttention, "update_recurrent_state", LinearAttentionLayer.update_recurrent_state
    )
    with pytest.raises(FrozenContextUnsupported, match="could not be trained through"):
        self_test(tiny_model("qwen3_5"))


def test_self_test_catches_a_longer_context_that_writes_into_the_shorter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(layer: GrowingLinearAttention, states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        kept: Tensor = layer.recurrent_states[state_idx]
        return kept.copy_(states)

    monkeypatch.setattr(GrowingLinearAttention, "update_recurrent_state", write)
    with pytest.raises(FrozenContextUnsupported, match="read on once more"):
        self_test(tiny_model("qwen3_5"))


def test_self_test_catches_a_context_that_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        GrowingLinearAttention, "update_recurrent_state", FrozenLinearAttention.update_recurrent_state
    )
    with pytest.raises(FrozenContextUnsupported, match="that was read on within"):
        self_test(tiny_model("qwen3_5"))


def test_self_test_needs_something_to_train() -> None:
    with pytest.raises(FrozenContextUnsupported, match="trainable parameters"):
        self_test(tiny_model("llama").requires_grad_(False))
