"""Text from tokens that arrive one by one: whole characters only, and never past a stop string."""

import codecs
import re
from collections.abc import Sequence
from typing import Any, Protocol

from tokenizers.decoders import ByteLevel

INCOMPLETE = "\ufffd"
_CONTEXT_TOKENS = 8  # a character is at most four; what stands before decides on a leading space


class TokenTexts:
    """What each token of a tokenizer stands for, as bytes."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", None)
        self.is_byte_level = isinstance(getattr(backend, "decoder", None), ByteLevel)
        added = tokenizer.added_tokens_decoder
        self._special = frozenset(number for number, token in added.items() if token.special)
        self._bytes_of = {character: byte for byte, character in _byte_characters().items()}
        self._known: dict[int, bytes] = {}

    def is_special(self, token_id: int) -> bool:
        return token_id in self._special

    def spell(self, token_id: int) -> bytes:
        """The token's own bytes (a special token's are its name); possibly half a character."""
        if token_id not in self._known:
            self._known[token_id] = self._spell(token_id)
        return self._known[token_id]

    def _spell(self, token_id: int) -> bytes:
        token = str(self.tokenizer.convert_ids_to_tokens(token_id) or "")
        if self.is_byte_level:
            if all(character in self._bytes_of for character in token):
                return bytes(self._bytes_of[character] for character in token)
            return token.encode()
        if single := re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", token):
            return bytes.fromhex(single[1])
        return token.replace("\u2581", " ").encode()

    def reader(self, prompt_ids: Sequence[int]) -> "TextReader":
        """A reader for the answer to a prompt."""
        if self.is_byte_level:
            return _ByteReader(self)
        return _WindowReader(self.tokenizer, prompt_ids)


class TextReader(Protocol):
    """Turns tokens into text as they come."""

    def read(self, token_id: int) -> str:
        """The text that is certain once `token_id` came; may be empty."""

    def finish(self) -> str:
        """What is left; a character that was never completed is shown as U+FFFD."""


class _ByteReader:
    """Byte-level tokenizers: every token is bytes, so text is their incremental UTF-8 decoding."""

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def read(self, token_id: int) -> str:
        if self._texts.is_special(token_id):
            return ""
        return self._decoder.decode(self._texts.spell(token_id))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)


class _WindowReader:
    """Other tokenizers: decode a short window with and without the new tokens; the difference is new text.

    The window always begins between two characters: a byte that is cut off from its character would make
    the bytes after it unreadable too.
    """

    def __init__(self, tokenizer: Any, prompt_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer
        tails = (list(prompt_ids[-size:]) for size in range(1, _CONTEXT_TOKENS + 1))
        self._context = next((tail for tail in tails if INCOMPLETE not in self._text(tail)), [])
        self._pending: list[int] = []

    def read(self, token_id: int) -> str:
        self._pending.append(token_id)
        text = self._decode(self._pending)
        if not text or text.endswith(INCOMPLETE):
            return ""
        return self._settle(text)

    def finish(self) -> str:
        return self._settle(self._decode(self._pending))

    def _settle(self, text: str) -> str:
        self._context, self._pending = self._pending, []
        return text

    def _decode(self, token_ids: list[int]) -> str:
        before = self._text(self._context)
        return self._text(self._context + token_ids)[len(before) :]

    def _text(self, token_ids: list[int]) -> str:
        text: str = self._tokenizer.decode(
            token_ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


class StopGuard:
    """Lets text through up to the first stop string, holding back what may be its beginning."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def pass_on(self, text: str) -> str:
        """The text that is safe to show once `text` came; nothing after a stop string was met."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        self._held += text
        met = [place for stop in self._stops if (place := self._held.find(stop)) >= 0]
        if met:
            self.stopped = True
            shown, self._held = self._held[: min(met)], ""
            return shown
        kept = max(_overlap(self._held, stop) for stop in self._stops)
        shown, self._held = self._held[: len(self._held) - kept], self._held[len(self._held) - kept :]
        return shown

    def finish(self) -> str:
        """What was held back, now that no stop string can complete."""
        shown, self._held = self._held, ""
        return shown


def _overlap(text: str, stop: str) -> int:
    """The length of the longest end of `text` that begins `stop`."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)


def _byte_characters() -> dict[int, str]:
    """GPT-2's alphabet: printable Latin-1 bytes stand for themselves, the others for U+0100 and up."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{b: chr(b) for b in printable}, **{b: chr(0x100 + i) for i, b in enumerate(others)}}
