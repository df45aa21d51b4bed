"""Cache layers that never change under a continuation, and those that take a context further.

These are internals of transformers, proved on 5.23.0 with Llama, Qwen3 and Qwen3.5; `frozen.self_test` checks
the installed version. A stock cache grows with every continuation, and writes its recurrent states in place,
so it can be trained through once at best.

A frozen attention layer keeps its keys and values as pieces, one for each time more was read. A longer
context shares the pieces of the one it continues: the contexts along one path of a conversation together
hold every token's keys and values once.
"""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer, LinearAttentionLayer


class UnknownCacheLayer(TypeError):
    """A kind of cache layer that was not proved to stay as it is."""


class FrozenAttention(DynamicLayer):  # type: ignore[misc]
    """Keys and values of the context; shows them before the continuation's own, keeps nothing."""

    def __init__(self, key_pieces: tuple[Tensor, ...], value_pieces: tuple[Tensor, ...]) -> None:
        super().__init__()
        self.key_pieces, self.value_pieces = key_pieces, value_pieces
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        keys, values = [*self.key_pieces, key_states], [*self.value_pieces, value_states]
        return torch.cat(keys, dim=-2), torch.cat(values, dim=-2)

    def get_seq_length(self) -> int:
        return sum(piece.shape[-2] for piece in self.key_pieces)


class GrowingAttention(FrozenAttention):
    """The same, while more of the context is read: keeps what it is given as a further piece."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        shown: tuple[Tensor, Tensor] = super().update(key_states, value_states)
        # Contiguous, since a piece that is a view would keep the whole projection it was cut from.
        self.key_pieces = (*self.key_pieces, key_states.contiguous())
        self.value_pieces = (*self.value_pieces, value_states.contiguous())
        return shown


class FrozenLinearAttention(LinearAttentionLayer):  # type: ignore[misc]
    """Convolution and recurrent states after the context; handed out, never advanced."""

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        return torch.cat([self.conv_states[state_idx], conv_states], dim=-1)

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        return recurrent_states


class GrowingLinearAttention(FrozenLinearAttention):
    """The same, while more of the context is read: the new states take the place of the old tensors, which
    stay what they are for whoever holds them."""

    def update_conv_state(self, conv_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        full: Tensor = super().update_conv_state(conv_states, state_idx)
        width = self.conv_states[state_idx].shape[-1]
        self.conv_states[state_idx] = full[..., -width:].clone()  # a view would keep all of `full`
        return full

    def update_recurrent_state(self, recurrent_states: Tensor, state_idx: int = 0, **_: Any) -> Tensor:
        self.recurrent_states[state_idx] = recurrent_states
        return recurrent_states


def freeze_cache(cache: Cache) -> Cache:
    """A read-only cache of the same tensors. Raises UnknownCacheLayer, naming the kind of layer."""
    return _with_layers(cache, [_freeze(layer) for layer in cache.layers])


def grow_cache(frozen: Cache) -> Cache:
    """A copy of a frozen cache for reading on, which leaves the original as it is."""
    return _with_layers(frozen, [_grow(layer) for layer in frozen.layers])


def widen_cache(frozen: Cache, rows: int) -> Cache:
    """The cache of one row as that of `rows` equal ones, in the same memory."""
    return _with_layers(frozen, [_widen(layer, rows) for layer in frozen.layers])


def _with_layers(cache: Cache, layers: list[Any]) -> Cache:
    copied = copy.copy(cache)
    copied.layers = layers
    return copied


def _freeze(layer: Any) -> Any:
    kind = type(layer)
    if kind is GrowingAttention:
        return FrozenAttention(layer.key_pieces, layer.value_pieces)
    if kind is DynamicLayer:
        return FrozenAttention((layer.keys,), (layer.values,))
    if kind in (LinearAttentionLayer, GrowingLinearAttention):
        frozen = copy.copy(layer)
        frozen.__class__ = FrozenLinearAttention
        frozen.record_past = True  # keeps passes over one token off the in-place decoding path
        return frozen
    proved = f"{DynamicLayer.__name__}, {LinearAttentionLayer.__name__}"
    raise UnknownCacheLayer(f"expected cache layers of the kinds {proved}, got {kind.__name__}")


def _grow(layer: Any) -> Any:
    if isinstance(layer, FrozenAttention):
        return GrowingAttention(layer.key_pieces, layer.value_pieces)
    growing = copy.copy(layer)
    growing.__class__ = GrowingLinearAttention
    growing.conv_states = dict(layer.conv_states)  # copy.copy shares the dictionaries
    growing.recurrent_states = dict(layer.recurrent_states)
    return growing


def _widen(layer: Any, rows: int) -> Any:
    if isinstance(layer, FrozenAttention):
        return FrozenAttention(
            *(
                tuple(piece.expand(rows, *piece.shape[1:]) for piece in pieces)
                for pieces in (layer.key_pieces, layer.value_pieces)
            )
        )
    wide = copy.copy(layer)
    for name in ("conv_states", "recurrent_states"):
        states: dict[int, Tensor | None] = getattr(layer, name)
        setattr(wide, name, {index: _repeat(state, rows) for index, state in states.items()})
    return wide


def _repeat(state: Tensor | None, rows: int) -> Tensor | None:
    return None if state is None else state.expand(rows, *state.shape[1:])
