"""The frozen context: read once without gradients, then continued with them as often as one likes.

A lesson is a long context and a short continuation. The context's keys, values and recurrent states are
computed once under no_grad and kept in a cache that nothing writes; gradients flow through the
continuation's positions only. That equals the gradient of a full pass whose context keys, values,
convolution inputs and delta-rule inputs are detached.

The cache layers of transformers are the one thing here that is not public interface. Proved on
transformers 5.23.0 with Llama, Qwen3 and Qwen3.5; `self_test` checks the installed version at start-up.
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer

_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of cached and uncached logits that rounding explains, over the largest logit. (Delta
rules are computed in fp32 whatever the dtype of the weights.)"""

_TEST_CONTEXT, _TEST_CONTINUATION = 70, 5
"""Tokens of the self-test: past one 64-token chunk of the delta rule, and not a multiple of it."""


class FrozenContextError(Exception):
    """Something about a frozen context."""


class ContextTooLong(FrozenContextError, ValueError):
    """Context and continuation have more tokens than the model has positions."""


class EmptyContext(FrozenContextError, ValueError):
    """A context without tokens, for a model that has no token to begin a text with."""


class FrozenContextUnsupported(FrozenContextError, RuntimeError):
    """The model, or the installed transformers, cannot continue a frozen context correctly."""


class _FrozenAttention(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the context; shows them before the continuation's own, keeps nothing."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class _FrozenLinearAttention(LinearAttentionLayer):  # type: ignore[misc]
    """Convolution and recurrent states after the context; handed out, never advanced."""

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        return recurrent_states


_FROZEN_KINDS = {DynamicLayer: _FrozenAttention, LinearAttentionLayer: _FrozenLinearAttention}


@dataclass(frozen=True, slots=True)
class FrozenContext:
    """A context ready to be continued, by any number of continuations, in any order, with or without
    gradients, one after the other or as live graphs with one joint loss.

    `cache` holds all but the last of the `length` context tokens (None when there is only one).
    `last_id`, of shape (rows, 1), is that last token: it is fed with the continuation, so that the
    continuation's first token is supervised too.
    """

    cache: Cache | None
    last_id: Tensor
    length: int

    def widen(self, rows: int) -> "FrozenContext":
        """The same context as `rows` rows, for continuations in one batch; shares the memory."""
        if self.last_id.shape[0] != 1:
            raise ValueError(f"expected a context of 1 row, got {self.last_id.shape[0]}: widen the original")
        cache = self.cache
        if cache is not None:
            cache = copy.copy(cache)
            cache.layers = [_widen_layer(layer, rows) for layer in cache.layers]
        return replace(self, cache=cache, last_id=self.last_id.expand(rows, 1))


def freeze_context(model: nn.Module, context_ids: Tensor) -> FrozenContext:
    """Read the context, ids of shape (1, N), without gradients.

    An empty context is replaced by the model's beginning-of-text token, as generation would begin.
    Dropout applies as in any pass: call `model.eval()` first unless you want it.

    Raises ContextTooLong; EmptyContext when N is 0 and the model names no such token;
    FrozenContextUnsupported, naming the layer, for a kind of cache layer that was not proved.
    """
    if context_ids.ndim != 2 or context_ids.shape[0] != 1:
        raise ValueError(f"expected context ids of shape (1, N), got {tuple(context_ids.shape)}")
    if getattr(model, "is_activation_checkpointing", False) and model.training:
        raise FrozenContextUnsupported(
            "expected a model without activation checkpointing, got one that would silently drop the cache: "
            "switch it off for training"
        )
    if context_ids.shape[1] == 0:
        context_ids = _beginning_of_text(model, context_ids)
    length = context_ids.shape[1]
    _check_length(model, length, 0)
    cache = None
    if length > 1:
        body = getattr(model, "base_model", model)  # the body alone: no logits for the context
        with torch.no_grad():  # not inference_mode: its tensors cannot be saved for backward
            cache = body(input_ids=context_ids[:, :-1], use_cache=True).past_key_values
        cache.layers = [_freeze_layer(layer) for layer in cache.layers]
    return FrozenContext(cache, context_ids[:, -1:], length)


def continuation_logits(model: nn.Module, frozen: FrozenContext, continuation_ids: Tensor) -> Tensor:
    """Logits that predict each continuation token, of shape (T, V), or (rows, T, V) for ids of (rows, T).

    Rows need a context widened to as many. Raises ContextTooLong, and ValueError for shapes that do not
    fit and for an empty continuation.
    """
    ids = continuation_ids if continuation_ids.ndim == 2 else continuation_ids[None]
    if ids.ndim != 2 or ids.shape[0] != frozen.last_id.shape[0]:
        raise ValueError(
            f"expected continuation ids of shape (T,) or ({frozen.last_id.shape[0]}, T), "
            f"got {tuple(continuation_ids.shape)}: widen the context to as many rows"
        )
    tokens = ids.shape[1]
    if tokens == 0:
        raise ValueError("expected a continuation of at least 1 token, got none: there is nothing to learn")
    _check_length(model, frozen.length, tokens)
    fed = torch.cat([frozen.last_id, ids[:, :-1]], dim=1)
    if tokens == 1:
        # One-token passes take a decoding path that has no backward on some devices. The second token is
        # behind the first, so it changes nothing; its logit is dropped below.
        fed = torch.cat([fed, fed], dim=1)
    logits: Tensor = model(
        input_ids=fed, past_key_values=frozen.cache, use_cache=frozen.cache is not None
    ).logits[:, :tokens]
    return logits if continuation_ids.ndim == 2 else logits[0]


def continuation_log_probabilities(
    model: nn.Module, frozen: FrozenContext, continuation_ids: Tensor
) -> Tensor:
    """log p(token | context, tokens before it) in nats, in the shape of the ids; at least fp32.

    Raises as continuation_logits does.
    """
    logits = continuation_logits(model, frozen, continuation_ids)
    if logits.dtype != torch.float64:
        logits = logits.float()
    return -nn.functional.cross_entropy(logits.movedim(-1, 1), continuation_ids, reduction="none")


def self_test(model: nn.Module) -> None:
    """Prove on this model and this transformers that a frozen context is continued correctly.

    Compares the logits of a cached continuation with those of one full pass, on random tokens, before and
    after a backward pass. Touches no gradient and no weight. Raises FrozenContextUnsupported with the
    figures.
    """
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if not weights:
        raise FrozenContextUnsupported("expected a model with trainable parameters, found none")
    limit = _position_limit(model) or _TEST_CONTEXT + _TEST_CONTINUATION
    ids = torch.randint(
        model.get_input_embeddings().num_embeddings,  # type: ignore[operator]
        (1, min(limit, _TEST_CONTEXT + _TEST_CONTINUATION)),
        generator=torch.Generator().manual_seed(0),
    ).to(weights[0].device)
    context, continuation = ids[:, :-_TEST_CONTINUATION], ids[0, -_TEST_CONTINUATION:]
    with torch.no_grad():
        full = model(input_ids=ids[:, :-1], use_cache=False).logits[0, -_TEST_CONTINUATION:]
    frozen = freeze_context(model, context)
    try:
        first = continuation_logits(model, frozen, continuation)
        gradients = torch.autograd.grad(first.float().square().mean(), weights, allow_unused=True)
        with torch.no_grad():
            again = continuation_logits(model, frozen, continuation)
    except RuntimeError as error:
        raise FrozenContextUnsupported(
            f"{_subject(model)}: a frozen context could not be trained through: {error}"
        ) from error
    scale = full.abs().max().item()
    tolerance = _TOLERANCE[full.dtype]
    for pass_name, logits in (("the first continuation", first), ("a repeated one", again)):
        difference = (logits.detach() - full).abs().max().item() / scale
        if not difference <= tolerance:
            raise FrozenContextUnsupported(
                f"{_subject(model)}: expected the logits of {pass_name} of a frozen context within "
                f"{tolerance:g} of one full pass (relative to the largest, {scale:.3g}, {full.dtype}), got "
                f"{difference:.3g}: install a proved version of transformers or use another model"
            )
    found = [gradient for gradient in gradients if gradient is not None]
    finite = all(bool(gradient.isfinite().all()) for gradient in found)
    if not finite or not any(bool(gradient.any()) for gradient in found):
        raise FrozenContextUnsupported(
            f"{_subject(model)}: expected finite gradients that are not all 0, got "
            f"{'zeros' if finite else 'infinities or NaNs'} in {len(found)} of {len(weights)} parameters"
        )


def _freeze_layer(layer: Any) -> Any:
    """A read-only copy of a cache layer that shares its tensors."""
    kind = _FROZEN_KINDS.get(type(layer))
    if kind is None:
        raise FrozenContextUnsupported(
            f"expected cache layers of the kinds {', '.join(known.__name__ for known in _FROZEN_KINDS)}, got "
            f"{type(layer).__name__}: models with such layers cannot be trained on a frozen context yet"
        )
    frozen = copy.copy(layer)
    frozen.__class__ = kind
    if kind is _FrozenLinearAttention:
        frozen.record_past = True  # keeps short continuations off the in-place decoding path
    return frozen


def _widen_layer(layer: Any, rows: int) -> Any:
    wide = copy.copy(layer)
    if isinstance(layer, _FrozenLinearAttention):
        for name in ("conv_states", "recurrent_states"):
            states = getattr(layer, name)
            setattr(wide, name, {index: _repeat(state, rows) for index, state in states.items()})
    else:
        wide.keys, wide.values = _repeat(layer.keys, rows), _repeat(layer.values, rows)
    return wide


def _repeat(state: Tensor | None, rows: int) -> Tensor | None:
    return None if state is None else state.expand(rows, *state.shape[1:])


def _beginning_of_text(model: nn.Module, empty: Tensor) -> Tensor:
    token = _text_config(model).bos_token_id
    if token is None:
        raise EmptyContext(
            "expected a context of at least 1 token, got none, and the model has no bos_token_id: without a "
            "token before it the first one of the continuation cannot be predicted; give a context"
        )
    return torch.full((1, 1), token, dtype=torch.long, device=empty.device)


def _check_length(model: nn.Module, context: int, continuation: int) -> None:
    limit = _position_limit(model)
    if limit is not None and context + continuation > limit:
        raise ContextTooLong(
            f"expected at most {limit} tokens of context and continuation, got {context} + {continuation}: "
            "shorten the context"
        )


def _position_limit(model: nn.Module) -> int | None:
    return getattr(_text_config(model), "max_position_embeddings", None)


def _text_config(model: nn.Module) -> Any:
    return model.config.get_text_config()  # type: ignore[operator,union-attr]


def _subject(model: nn.Module) -> str:
    return f"{type(model).__name__} on transformers {transformers.__version__}"
