"""What changed between two texts, word by word."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import pygit2

from understudy.conversation.searching import UNCUT

_TOKEN = re.compile(rf"[{UNCUT}]|[^\W{UNCUT}]+|\s+|[^\w\s]")
"""A word (a character, in scripts that set no blanks), blanks, or a mark."""

Kind = Literal["same", "gone", "new"]
_Change = tuple[int, int, int, int]
"""Begin and end of what is gone among the old tokens, and of what is new among the new ones."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch that both texts have, that only the old one has, or only the new one."""

    kind: Kind
    text: str


def compare_words(old: str, new: str) -> tuple[Piece, ...]:
    """What to keep, to take away and to put in to make `new` of `old`.

    Words, blanks and marks are kept whole; words beside each other that changed are one piece with the blanks
    between. What is same and gone, joined, is the old text; what is same and new is the new one. No two
    pieces of one kind stand side by side, and gone stands before new.

    Git compares the words as it compares lines: difflib takes minutes for two texts of 2,500 words that share
    nothing but blanks, Git milliseconds, and 2 s for 400,000 words of any kind.
    """
    before, after = _TOKEN.findall(old), _TOKEN.findall(new)
    return tuple(piece for piece in _pieces(before, after) if piece.text)


def _pieces(before: Sequence[str], after: Sequence[str]) -> Iterator[Piece]:
    reached = 0
    for gone, gone_end, new, new_end in _joined(_changes(before, after), before):
        yield Piece("same", "".join(before[reached:gone]))
        yield Piece("gone", "".join(before[gone:gone_end]))
        yield Piece("new", "".join(after[new:new_end]))
        reached = gone_end
    yield Piece("same", "".join(before[reached:]))


def _changes(before: Sequence[str], after: Sequence[str]) -> Iterator[_Change]:
    numbers: dict[str, int] = {}

    def lines(tokens: Sequence[str]) -> bytes:
        return b"".join(b"%d\n" % numbers.setdefault(token, len(numbers)) for token in tokens)

    patch = pygit2.Patch.create_from(lines(before), lines(after), context_lines=0)
    for hunk in patch.hunks:
        gone = hunk.old_start - 1 if hunk.old_lines else hunk.old_start  # Git names the line before a gap
        new = hunk.new_start - 1 if hunk.new_lines else hunk.new_start
        yield gone, gone + hunk.old_lines, new, new + hunk.new_lines


def _joined(changes: Iterator[_Change], before: Sequence[str]) -> Iterator[_Change]:
    """The changes, those one that have nothing but blanks of one line between them."""
    last = next(changes, None)
    for change in changes:
        assert last is not None
        between = "".join(before[last[1] : change[0]])
        if not between.strip() and "\n" not in between:
            last = (last[0], change[1], last[2], change[3])
        else:
            yield last
            last = change
    if last is not None:
        yield last
