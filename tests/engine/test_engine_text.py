"""Text from tokens as they come: whole characters, stop strings, any tokenizer."""

import codecs
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from understudy.engine import decode_text, encode_text, load_tokenizer, write_miniature
from understudy.engine.detokenize import StopGuard, TokenTexts


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(write_miniature(tmp_path_factory.mktemp("model"), "llama"))


@pytest.fixture(scope="module")
def sentencepiece() -> Any:
    """A tokenizer as Llama 2's: a mark for spaces, bytes for what has no token."""
    words = ["<unk>", "</s>", "\u2581", "\u2581the", "\u2581cup", "s", "a", "\u00e9"]
    vocabulary = {word: number for number, word in enumerate([*words, *(f"<0x{b:02X}>" for b in range(256))])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[], byte_fallback=True, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>")


def read(tokenizer: Any, prompt: list[int], ids: list[int]) -> list[str]:
    reader = TokenTexts(tokenizer).reader(prompt)
    return [*(reader.read(token) for token in ids), reader.finish()]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 319), max_size=40))
def test_byte_level_text_equals_the_tokenizers_own_for_any_tokens(byte_level: Any, ids: list[int]) -> None:
    ids = [token for token in ids if token < len(byte_level)]
    assert "".join(read(byte_level, [5], ids)) == decode_text(byte_level, ids)


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=20))
def test_no_half_characters_are_ever_shown(byte_level: Any, text: str) -> None:
    shown = ""
    reader = TokenTexts(byte_level).reader(())
    for token in encode_text(byte_level, text):
        shown += reader.read(token)
        assert text.startswith(shown)
    assert shown + reader.finish() == text


def test_a_character_of_four_tokens_comes_at_once(byte_level: Any) -> None:
    ids = encode_text(byte_level, "\N{GRINNING FACE}")
    assert len(ids) == 4
    assert read(byte_level, [], list(ids)) == ["", "", "", "\N{GRINNING FACE}", ""]


def test_a_character_that_is_cut_off_is_shown_as_incomplete(byte_level: Any) -> None:
    ids = encode_text(byte_level, "\N{GRINNING FACE}")[:2]
    assert read(byte_level, [], list(ids)) == ["", "", "\N{REPLACEMENT CHARACTER}"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=12))
def test_any_other_tokenizers_text_adds_up_after_a_prompt(sentencepiece: Any, text: str) -> None:
    prompt = encode_text(sentencepiece, "the cups\u00fc")
    ids = list(encode_text(sentencepiece, text))
    whole = decode_text(sentencepiece, [*prompt, *ids])
    before = decode_text(sentencepiece, prompt)
    assert "".join(read(sentencepiece, list(prompt), ids)) == whole[len(before) :]


def test_the_space_between_prompt_and_answer_is_kept(sentencepiece: Any) -> None:
    prompt = encode_text(sentencepiece, "the")
    cup = sentencepiece.convert_tokens_to_ids("\u2581cup")
    assert read(sentencepiece, list(prompt), [cup]) == [" cup", ""]


def test_bytes_of_tokens(byte_level: Any, sentencepiece: Any) -> None:
    for tokenizer in (byte_level, sentencepiece):
        texts = TokenTexts(tokenizer)
        ids = encode_text(tokenizer, "the cup\u00e9s \N{EURO SIGN}")
        assert (
            b"".join(texts.spell(token) for token in ids).decode().strip() == "the cup\u00e9s \N{EURO SIGN}"
        )
    assert TokenTexts(byte_level).spell(byte_level.eos_token_id) == b"<|im_end|>"


def test_every_byte_has_its_letter(byte_level: Any) -> None:
    texts = TokenTexts(byte_level)
    spelled = {texts.spell(token) for token in range(len(byte_level))}
    assert {bytes([byte]) for byte in range(256)} <= spelled


@settings(max_examples=300, deadline=None)
@given(
    st.text("ab\n", max_size=20),
    st.lists(st.text("ab\n", min_size=1, max_size=4), min_size=1, max_size=3),
    st.data(),
)
def test_text_ends_before_the_first_stop_string_however_it_is_cut(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    places = [text.find(stop) for stop in stops if stop in text]
    guard = StopGuard(stops)
    shown = ""
    left = text
    while left and not guard.stopped:
        size = data.draw(st.integers(1, len(left)))
        shown += guard.pass_on(left[:size])
        left = left[size:]
        assert not any(stop in shown for stop in stops)
    shown += guard.finish()
    assert guard.stopped == bool(places)
    if not places:
        assert shown == text
    else:
        # The first stop string to be complete wins; nothing of it was shown.
        assert text.startswith(shown)
        assert any(text.startswith(stop, len(shown)) for stop in stops)


def test_text_that_cannot_become_a_stop_string_is_not_held_back() -> None:
    guard = StopGuard(["\nuser"])
    assert guard.pass_on("yes\n") == "yes"
    assert guard.pass_on("us") == ""
    assert guard.pass_on("ual") == "\nusual"
    assert guard.pass_on("\nuser: next") == ""
    assert guard.stopped
    assert guard.pass_on("more") == ""


def test_replacement_agrees_with_the_tokenizers_library(byte_level: Any, tmp_path: Path) -> None:
    broken = b"\xe2\x82\xe2\x82\xac\xff\xf0\x9f\x98"
    ids = [
        next(t for t in range(len(byte_level)) if TokenTexts(byte_level).spell(t) == bytes([b]))
        for b in broken
    ]
    assert decode_text(byte_level, ids) == codecs.decode(broken, "utf-8", "replace")
