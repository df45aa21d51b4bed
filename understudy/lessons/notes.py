"""Notes: what is put before a conversation for the model to read, until it is a habit."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import quote, unquote

from understudy.lessons.chat import ChatMessage
from understudy.lessons.lesson import SHORT_ID

NOTES_TRAILER = "Understudy-Notes"
"""Of a reply's commit: the notes that the model spoke with. None: it spoke without."""

_SPOKEN_WITH = re.compile(rf"(\S+) ([0-9a-f]{{{SHORT_ID}}})")


@dataclass(frozen=True, slots=True)
class Note:
    """A text for the model to read before it answers, and what people call it."""

    name: str
    text: str

    @property
    def digest(self) -> str:
        """The beginning of the SHA-256 of its text: another wording has another."""
        return sha256(self.text.encode()).hexdigest()[:SHORT_ID]


def with_notes(notes: Sequence[Note], context: Sequence[ChatMessage]) -> tuple[ChatMessage, ...]:
    """The context with the notes before it: one system message, each note under its name. A system message
    that the context begins with comes after them in the same one.
    """
    if not notes:
        return tuple(context)
    parts = [f"# {note.name}\n\n{note.text.strip()}" for note in notes]
    own = [turn.content for turn in context[:1] if turn.role == "system"]
    return (ChatMessage("system", "\n\n".join([*parts, *own])), *context[len(own) :])


def notes_trailer(notes: Sequence[Note]) -> dict[str, str]:
    """What a reply's commit says of the notes: `name digest`, between commas. Names are percent-encoded, so
    that none reads as another's.
    """
    told = [f"{quote(note.name, safe='')} {note.digest}" for note in notes]
    return {NOTES_TRAILER: ", ".join(told)} if told else {}


def notes_in(trailers: Mapping[str, str]) -> dict[str, str]:
    """The notes that a commit's trailers name, with the digests of their texts."""
    told = _SPOKEN_WITH.findall(trailers.get(NOTES_TRAILER, ""))
    return {unquote(name): digest for name, digest in told}
