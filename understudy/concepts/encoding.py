"""Texts as token ids, with the place of what is theirs: never the template's tokens around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from understudy.concepts.corpus import Text
from understudy.concepts.errors import BadPooling
from understudy.engine import encode_text, encode_turn, special_ids
from understudy.lessons import ChatMessage, Role


@dataclass(frozen=True, slots=True)
class EncodedText:
    """Token ids; those from `start` up to `end` are the text's own."""

    ids: tuple[int, ...]
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Pooling:
    """Which of a text's own tokens stand for it: the mean over the last `tokens`, or over all (None).

    1 is the last token alone.
    """

    tokens: int | None = 1

    def __post_init__(self) -> None:
        if self.tokens is not None and self.tokens < 1:
            raise BadPooling(f"expected a mean over at least one token, got {self.tokens}")

    def span(self, text: EncodedText) -> tuple[int, int]:
        """The positions [start, end) that are pooled over."""
        start = text.start if self.tokens is None else max(text.start, text.end - self.tokens)
        return start, text.end


def encode(tokenizer: Any, texts: Sequence[Text], role: Role | None = None) -> tuple[EncodedText, ...]:
    """Each text as the model reads it: plain, or as a message of `role`. A text with a context comes behind
    it, as the model's answer unless `role` says who speaks.

    Raises BadPooling for a text with no tokens of its own, or with a special token between them, and what
    the chat template raises.
    """
    special = special_ids(tokenizer)
    return tuple(_checked(_encode(tokenizer, text, role, special), text, special) for text in texts)


def _encode(tokenizer: Any, text: Text, role: Role | None, special: frozenset[int]) -> EncodedText:
    if text.context or role is not None:
        message = ChatMessage(role or "assistant", text.text)
        ids, start, end = encode_turn(tokenizer, (*text.context, message))
        return _trimmed(ids, start, end, special)
    ids = encode_text(tokenizer, text.text, special_tokens=True)
    return _trimmed(ids, 0, len(ids), special)


def _trimmed(ids: tuple[int, ...], start: int, end: int, special: frozenset[int]) -> EncodedText:
    while start < end and ids[start] in special:
        start += 1
    while start < end and ids[end - 1] in special:
        end -= 1
    return EncodedText(ids[:end], start, end)  # what stands behind is never seen by what stands before


def _checked(found: EncodedText, text: Text, special: frozenset[int]) -> EncodedText:
    if found.start == found.end:
        raise BadPooling(f"expected tokens of its own in {text.path}, found only the template's")
    inside = [place for place in range(found.start, found.end) if found.ids[place] in special]
    if inside:
        raise BadPooling(
            f"expected only a text's own tokens between {found.start} and {found.end} of {text.path}, "
            f"found the special token {found.ids[inside[0]]} at {inside[0]}: a direction of it would be the "
            "template's; take the token out of the text"
        )
    return found
