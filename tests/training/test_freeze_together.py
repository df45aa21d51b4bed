"""Contexts read in chunks, read on, and read together: the same gradients, each token read once."""

import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from frozen_oracle import (
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

from understudy.training import (
    ContextTooLong,
    EmptyContext,
    FrozenContext,
    FrozenContextUnsupported,
    continuation_log_probabilities,
    continuation_logits,
    extend_context,
    freeze_context,
    freeze_together,
)
from understudy.training.cache_layers import FrozenAttention

BEGINNING = 7


def thread() -> list[list[int]]:
    """Contexts as those of a branching thread, with every kind of kinship."""
    opening, reply, other, long = (
        random_ids(tokens, seed).tolist() for tokens, seed in ((70, 1), (9, 2), (30, 3), (140, 4))
    )
    return [
        opening,
        opening + reply,
        opening + other,
        opening + reply + long,  # continues a context that is one itself
        opening,  # equal to another
        opening[:40],  # the beginning of another
        opening + reply[:-1] + [(reply[-1] + 1) % 97],  # differs in its last token, which the cache lacks
        opening[:1],  # one token
        [(opening[0] + 1) % 97],
        [],
        [BEGINNING],
        long,  # shares nothing
    ]


@contextmanager
def tokens_read(model: nn.Module) -> Iterator[list[int]]:
    """How many tokens each pass was given."""
    passes: list[int] = []

    def note(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        passes.append(arguments[0].shape[1])

    handle = model.get_input_embeddings().register_forward_pre_hook(note)  # type: ignore[operator]
    try:
        yield passes
    finally:
        handle.remove()


@pytest.mark.parametrize("chunk", [None, 64])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_thread_gives_the_gradients_of_its_contexts_one_by_one(
    architecture: str, chunk: int | None
) -> None:
    model = tiny_model(architecture, torch.float64, bos_token_id=BEGINNING)
    contexts = thread()
    met = []
    with InFloat64():
        for place, frozen in freeze_together(model, contexts, chunk=chunk):
            met.append(place)
            assert frozen.length == max(len(contexts[place]), 1)
            context = torch.tensor(contexts[place] or [BEGINNING])
            # Of different first tokens and lengths, one token among them: each is supervised.
            for continuation in (random_ids(6, 10 + place), random_ids(1, 30 + place)):
                expected = detached_gradients(model, architecture, context, continuation)
                found = gradients_of(model, frozen_loss(model, frozen, continuation))
                assert worst_difference(found, expected) < 1e-9
    assert sorted(met) == list(range(len(contexts)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_in_bfloat16_a_thread_is_as_near_to_the_truth_as_its_contexts_one_by_one(architecture: str) -> None:
    model = tiny_model(architecture, torch.bfloat16, bos_token_id=BEGINNING)
    exact = tiny_model(architecture, torch.float64, bos_token_id=BEGINNING)
    exact.load_state_dict(model.state_dict())
    contexts = thread()
    for place, frozen in freeze_together(model, contexts, chunk=64):
        context, continuation = torch.tensor([contexts[place] or [BEGINNING]]), random_ids(6, place)
        alone = freeze_context(model, context)
        with InFloat64():
            truth = gradients_of(exact, frozen_loss(exact, freeze_context(exact, context), continuation))
        whole = torch.cat([gradient.flatten() for gradient in truth.values()])
        error = []
        for form in (frozen, alone):
            found = gradients_of(model, frozen_loss(model, form, continuation))
            error.append((torch.cat([gradient.flatten() for gradient in found.values()]) - whole).norm())
        assert error[0] < 1.5 * error[1]
        assert error[0] < 0.6 * whole.norm()  # so much is the noise of so small a model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_contexts_share_is_read_once(architecture: str) -> None:
    model = tiny_model(architecture, bos_token_id=BEGINNING)
    contexts = [context or [BEGINNING] for context in thread()]
    beginnings = {tuple(context[:end]) for context in contexts for end in range(1, len(context))}
    for chunk in (None, 64):
        with tokens_read(model) as passes:
            for _ in freeze_together(model, thread(), chunk=chunk):
                pass
        assert sum(passes) == len(beginnings)
        assert chunk is None or max(passes) == chunk
    assert sum(len(context) - 1 for context in contexts) > 1.5 * len(beginnings)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_path_is_held_and_each_token_on_it_once(architecture: str) -> None:
    model = tiny_model(architecture)
    opening = random_ids(70, 1).tolist()
    branches = [opening + random_ids(20, seed).tolist() for seed in (2, 3, 4)]
    contexts = [opening, *branches, branches[2] + random_ids(20, 5).tolist()]
    left: list[weakref.ref[Tensor]] = []
    shared: set[int] = set()
    for place, frozen in freeze_together(model, contexts):
        assert not any(state() is not None for state in left)  # the branches that were left before
        keys = keys_of(frozen)
        if place == 0:
            shared = {piece.data_ptr() for layer in keys for piece in layer}
        assert {layer[0].data_ptr() for layer in keys} == shared
        assert all(sum(piece.shape[-2] for piece in layer) == len(contexts[place]) - 1 for layer in keys)
        if place in (1, 2):
            left += [weakref.ref(layer[-1]) for layer in keys]
        del frozen, keys
    assert len(left) == 2 * len({name for name, _ in model.named_modules() if name.endswith("k_proj")})


def keys_of(frozen: FrozenContext) -> list[tuple[Tensor, ...]]:
    assert frozen.cache is not None
    return [layer.key_pieces for layer in frozen.cache.layers if isinstance(layer, FrozenAttention)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_contexts_that_are_kept_stay_right(architecture: str) -> None:
    model = tiny_model(architecture, torch.float64, bos_token_id=BEGINNING)
    contexts = thread()
    with InFloat64():
        kept = list(freeze_together(model, contexts))
        losses = [frozen_loss(model, frozen, random_ids(5, place)) for place, frozen in reversed(kept)]
        together = gradients_of(model, torch.stack(losses).sum())
        alone = gradients_of(
            model,
            torch.stack(
                [
                    frozen_loss(
                        model,
                        freeze_context(model, torch.tensor([contexts[place]]).long()),
                        random_ids(5, place),
                    )
                    for place in range(len(contexts))
                ]
            ).sum(),
        )
    assert worst_difference(together, alone) < 1e-9


def test_gradients_are_on_between_two_contexts() -> None:
    model = tiny_model("qwen3")
    for _ in freeze_together(model, [[1, 2, 3], [1, 2, 4, 5]]):
        assert torch.is_grad_enabled()


def test_no_contexts_are_no_work() -> None:
    assert list(freeze_together(tiny_model("qwen3"), [])) == []


def test_contexts_are_checked_before_any_is_read() -> None:
    model = tiny_model("qwen3", max_position_embeddings=20)
    with tokens_read(model) as passes:
        with pytest.raises(ContextTooLong, match="at most 20"):
            freeze_together(model, [[1, 2], [1] * 21])
        with pytest.raises(EmptyContext, match="in context 1, got none"):
            freeze_together(model, [[1, 2], []])
        with pytest.raises(ValueError, match="multiple of 64 tokens, got 100"):
            freeze_together(model, [[1, 2]], chunk=100)
        recompute_activations(model.train())
        with pytest.raises(FrozenContextUnsupported, match="activation checkpointing"):
            freeze_together(model, [[1, 2]])
    assert passes == []


@pytest.mark.parametrize("context_tokens", [2, 64, 65, 66, 130, 200])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_context_in_chunks_gives_the_same_gradients(architecture: str, context_tokens: int) -> None:
    model = tiny_model(architecture, torch.float64)
    context, continuation = random_ids(context_tokens, 1), random_ids(9, 2)
    with InFloat64():
        expected = detached_gradients(model, architecture, context, continuation)
        for chunk in (64, 128):
            frozen = freeze_context(model, context[None], chunk=chunk)
            found = gradients_of(model, frozen_loss(model, frozen, continuation))
            assert worst_difference(found, expected) < 1e-9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_chunks_round_as_one_pass_does(architecture: str) -> None:
    model = tiny_model(architecture)
    context, continuation = random_ids(300, 1)[None], random_ids(9, 2)
    with torch.no_grad():
        whole = continuation_logits(model, freeze_context(model, context), continuation)
        for chunk in (64, 128):
            with tokens_read(model) as passes:
                frozen = freeze_context(model, context, chunk=chunk)
            assert passes == [chunk] * (299 // chunk) + [299 % chunk]
            logits = continuation_logits(model, frozen, continuation)
            assert (logits - whole).abs().max() < 1e-5 * whole.abs().max()


def test_chunks_end_where_those_of_one_pass_would() -> None:
    model = tiny_model("qwen3_5")
    frozen = freeze_context(model, random_ids(101, 1)[None])
    with tokens_read(model) as passes:
        extend_context(model, frozen, random_ids(100, 2)[None], chunk=64)
    assert passes == [28, 64, 8]  # from 100 to 128, 192, 200


@pytest.mark.parametrize("more_tokens", [1, 2, 70])
@pytest.mark.parametrize("context_tokens", [1, 2, 3, 66])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_context_that_is_read_on_leaves_the_shorter_as_it_was(
    architecture: str, context_tokens: int, more_tokens: int
) -> None:
    model = tiny_model(architecture, torch.float64)
    context, more, continuation = random_ids(context_tokens, 1), random_ids(more_tokens, 2), random_ids(5, 3)
    with InFloat64():
        frozen = freeze_context(model, context[None])
        before = [state.clone() for state in states_of(frozen)] if frozen.cache else []
        short_graph = frozen_loss(model, frozen, continuation)  # alive while the context is read on
        longer = extend_context(model, frozen, more[None])
        sibling = extend_context(model, frozen, more[None].flip(1))
        assert longer.length == context_tokens + more_tokens
        after = states_of(frozen) if frozen.cache else []
        assert all(torch.equal(now, then) for now, then in zip(after, before, strict=True))
        for form, ids in (
            (frozen, context),
            (longer, torch.cat([context, more])),
            (sibling, torch.cat([context, more.flip(0)])),
        ):
            loss = short_graph if form is frozen else frozen_loss(model, form, continuation)
            expected = detached_gradients(model, architecture, ids, continuation)
            assert worst_difference(gradients_of(model, loss), expected) < 1e-9


def test_reading_on_by_nothing_gives_the_same_context() -> None:
    model = tiny_model("qwen3")
    frozen = freeze_context(model, random_ids(5)[None])
    assert extend_context(model, frozen, torch.zeros((1, 0), dtype=torch.long)) is frozen


def test_a_longer_context_can_be_widened_and_a_wide_one_not_read_on() -> None:
    model = tiny_model("qwen3_5")
    longer = extend_context(model, freeze_context(model, random_ids(9)[None]), random_ids(4)[None])
    with torch.no_grad():
        wide = continuation_log_probabilities(model, longer.widen(2), random_ids(10).view(2, 5))
        for row in range(2):
            alone = continuation_log_probabilities(model, longer, random_ids(10).view(2, 5)[row])
            assert torch.allclose(wide[row], alone, atol=1e-5)
    with pytest.raises(ValueError, match="1 row, got 2"):
        extend_context(model, longer.widen(2), random_ids(4)[None])


def test_what_cannot_be_read_on_is_refused() -> None:
    model = tiny_model("qwen3", max_position_embeddings=20)
    frozen = freeze_context(model, random_ids(15)[None])
    with pytest.raises(ContextTooLong, match=r"got 21 \+ 0"):
        extend_context(model, frozen, random_ids(6)[None])
    with pytest.raises(ValueError, match=r"shape \(1, N\)"):
        extend_context(model, frozen, random_ids(4))
    for chunk in (0, -64, 65):
        with pytest.raises(ValueError, match=f"multiple of 64 tokens, got {chunk}"):
            freeze_context(model, random_ids(15)[None], chunk=chunk)
