"""The frozen context: read once without gradients, then continued with them as often as one likes.

A lesson is a long context and a short continuation. The context's keys, values and recurrent states are
computed once under no_grad and kept in a cache that nothing writes; gradients flow through the
continuation's positions only. That equals the gradient of a full pass whose context keys, values,
convolution inputs and delta-rule inputs are detached.

A frozen context can be read on, and the shorter one stays what it was: that is how long contexts are read
in chunks, and how the contexts of a whole conversation are read as the tree that they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers.cache_utils import Cache

from understudy.training.cache_layers import UnknownCacheLayer, freeze_cache, grow_cache, widen_cache
from understudy.training.trie import Run, plan_reading

_TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2}
"""Largest difference of cached and uncached logits that rounding explains, over the largest logit. (Delta
rules are computed in fp32 whatever the dtype of the weights.)"""

_TEST_CONTEXT, _TEST_CONTINUATION = 70, 5
"""Tokens of the self-test: past one 64-token chunk of the delta rule, and not a multiple of it."""

_DELTA_RULE_CHUNK = 64
"""Tokens that the delta rule takes at once. Chunks that are multiples of it round as one pass does."""


_CHECKPOINTING = ("is_activation_checkpointing", "is_gradient_checkpointing")
"""How transformers says that it recomputes activations, since 5.20 and before."""


class FrozenContextError(Exception):
    """Something about a frozen context."""


class ContextTooLong(FrozenContextError, ValueError):
    """Context and continuation have more tokens than the model has positions."""


class EmptyContext(FrozenContextError, ValueError):
    """A context without tokens, for a model that has no token to begin a text with."""


class FrozenContextUnsupported(FrozenContextError, RuntimeError):
    """The model, or the installed transformers, cannot continue a frozen context correctly."""


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
        cache = None if self.cache is None else widen_cache(self.cache, rows)
        return replace(self, cache=cache, last_id=self.last_id.expand(rows, 1))


def freeze_context(model: nn.Module, context_ids: Tensor, *, chunk: int | None = None) -> FrozenContext:
    """Read the context, ids of shape (1, N), without gradients.

    With `chunk`, a multiple of 64, at most so many tokens are read at once: then the activations need
    memory for a chunk however long the context is, and only what the cache keeps grows with it. The result
    is the same up to rounding.

    An empty context is replaced by the model's beginning-of-text token, as generation would begin.
    Dropout applies as in any pass: call `model.eval()` first unless you want it.

    Raises ContextTooLong; EmptyContext when N is 0 and the model names no such token; ValueError for a
    chunk that cannot be; FrozenContextUnsupported, naming the layer, for a kind of cache layer that was
    not proved.
    """
    _check_ids(context_ids, "context ids")
    if context_ids.shape[1] == 0:
        context_ids = torch.tensor([[_beginning_of_text(model)]], device=context_ids.device)
    return extend_context(model, FrozenContext(None, context_ids[:, :1], 1), context_ids[:, 1:], chunk=chunk)


def extend_context(
    model: nn.Module, frozen: FrozenContext, more_ids: Tensor, *, chunk: int | None = None
) -> FrozenContext:
    """Read on from a frozen context of one row, ids of shape (1, M), without gradients; M may be 0.

    `frozen` stays as it was and usable: it and the longer context share the memory of what both have read.
    Raises as freeze_context does.
    """
    _check_ids(more_ids, "ids")
    if frozen.last_id.shape[0] != 1:
        raise ValueError(
            f"expected a context of 1 row, got {frozen.last_id.shape[0]}: widen what you extended"
        )
    length = frozen.length + more_ids.shape[1]
    _check_readable(model, length, chunk)
    if more_ids.shape[1] == 0:
        return frozen
    unread = torch.cat([frozen.last_id, more_ids[:, :-1]], dim=1)
    cache = _read(model, frozen.cache, unread, frozen.length - 1, chunk)
    return FrozenContext(cache, more_ids[:, -1:], length)


def freeze_together(
    model: nn.Module, contexts: Sequence[Sequence[int]], *, chunk: int | None = None
) -> Iterator[tuple[int, FrozenContext]]:
    """Freeze several contexts, token ids each, and read what they share at their beginnings once.

    Yields (place among `contexts`, frozen context) for each of them, in the order of a walk through the tree
    that they form. What is held at any time are the states along one path of that tree, each token's once:
    use a context, gradients and all, and let go of it (`del`) before the next is asked for; a context that
    is kept stays right, and costs its memory.

    Every context is checked at once, before anything is read. Raises as freeze_context does, with the
    context's place.
    """
    filled = [tuple(context) or (_beginning_of_text(model, place),) for place, context in enumerate(contexts)]
    for context in filled:
        _check_readable(model, len(context), chunk)
    runs = plan_reading([context[:-1] for context in filled])  # the last token is fed with the continuation
    return _freeze_runs(model, filled, runs, chunk)


def _freeze_runs(
    model: nn.Module, contexts: Sequence[Sequence[int]], runs: Sequence[Run], chunk: int | None
) -> Iterator[tuple[int, FrozenContext]]:
    device = next(model.parameters()).device
    path: list[tuple[int, Cache | None]] = [(0, None)]  # how much each was read, the longest last
    for run in runs:
        while path[-1][0] > run.start:
            path.pop()
        if run.tokens:
            ids = torch.tensor([run.tokens], dtype=torch.long, device=device)
            path.append((run.end, _read(model, path[-1][1], ids, run.start, chunk)))
        for place in run.places:
            last_id = torch.tensor([contexts[place][-1:]], dtype=torch.long, device=device)
            yield place, FrozenContext(path[-1][1], last_id, len(contexts[place]))


@torch.no_grad()  # not inference_mode: its tensors cannot be saved for backward
def _read(model: nn.Module, cache: Cache | None, ids: Tensor, start: int, chunk: int | None) -> Cache:
    """A frozen cache of what `cache` holds, `start` tokens, and of `ids`, which come after."""
    body = getattr(model, "base_model", model)  # the body alone: no logits for the context
    if cache is not None:
        cache = grow_cache(cache)
    for piece in torch.split(ids, _pieces(start, ids.shape[1], chunk), dim=1):
        read = body(input_ids=piece, past_key_values=cache, use_cache=True).past_key_values
        if cache is None:
            cache = grow_cache(_freeze_cache(read))
    return _freeze_cache(cache)


def _pieces(start: int, tokens: int, chunk: int | None) -> list[int]:
    """How many tokens to read at once: pieces end where those of a pass from the very beginning would."""
    if chunk is None:
        return [tokens]
    ends = [*range(start - start % chunk + chunk, start + tokens, chunk), start + tokens]
    return [end - before for before, end in pairwise([start, *ends])]


def _freeze_cache(cache: Cache) -> Cache:
    try:
        return freeze_cache(cache)
    except UnknownCacheLayer as error:
        raise FrozenContextUnsupported(
            f"{error}: models with such layers cannot be trained on a frozen context yet"
        ) from error


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
    after a backward pass, and for a context that another was continued to. Touches no gradient and no
    weight. Raises FrozenContextUnsupported with the figures.
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
            read_on, read_on_again = _read_on_twice(model, context, continuation)
    except RuntimeError as error:
        raise FrozenContextUnsupported(
            f"{_subject(model)}: a frozen context could not be trained through: {error}"
        ) from error
    scale = full.abs().max().item()
    tolerance = _TOLERANCE[full.dtype]
    for what, logits in {
        "the first continuation of a frozen context": first,
        "a repeated continuation of a frozen context": again,
        "a context that was read on": read_on,
        "a context that was read on once more": read_on_again,
    }.items():
        difference = (logits.detach() - full).abs().max().item() / scale
        if not difference <= tolerance:
            raise FrozenContextUnsupported(
                f"{_subject(model)}: expected the logits of {what} within "
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


def _read_on_twice(model: nn.Module, context: Tensor, continuation: Tensor) -> list[Tensor]:
    """The continuation's logits after the half of the context was read on to the whole, two times over."""
    half = context.shape[1] // 2
    frozen = freeze_context(model, context[:, :half])
    return [
        continuation_logits(model, extend_context(model, frozen, context[:, half:]), continuation)
        for _ in range(2)
    ]


def _check_ids(ids: Tensor, what: str) -> None:
    if ids.ndim != 2 or ids.shape[0] != 1:
        raise ValueError(f"expected {what} of shape (1, N), got {tuple(ids.shape)}")


def _check_readable(model: nn.Module, length: int, chunk: int | None) -> None:
    if chunk is not None and (chunk < 1 or chunk % _DELTA_RULE_CHUNK):
        raise ValueError(
            f"expected a chunk of a positive multiple of {_DELTA_RULE_CHUNK} tokens, got {chunk}: "
            "delta rules read so many at once"
        )
    if model.training and any(getattr(model, name, False) for name in _CHECKPOINTING):
        raise FrozenContextUnsupported(
            "expected a model without activation checkpointing, got one that would silently drop the cache: "
            "switch it off for training"
        )
    _check_length(model, length, 0)


def _beginning_of_text(model: nn.Module, place: int | None = None) -> int:
    token: int | None = _text_config(model).bos_token_id
    if token is None:
        which = "the context" if place is None else f"context {place}"
        raise EmptyContext(
            f"expected at least 1 token in {which}, got none, and the model has no bos_token_id: without a "
            "token before it the first one of the continuation cannot be predicted; give a context"
        )
    return token


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
