"""Finding in the history what the model said of itself, and which notes it said it with."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from understudy.conversation import Change, ConversationRepository, Message
from understudy.lessons.chat import ChatMessage
from understudy.lessons.context import chat_context
from understudy.lessons.lesson import Source
from understudy.lessons.mining import moves, source_of
from understudy.lessons.notes import notes_in

WEIGHTS_TRAILER = "Understudy-Weights"
"""Of a reply's commit: the weight commit that the model spoke with. None: a person wrote it in its name."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What the model said, after which messages. The context is without the notes that it spoke with, which
    are `notes`: names, with the digests of their texts.
    """

    context: tuple[ChatMessage, ...]
    text: str
    notes: Mapping[str, str] = field(hash=False)
    source: Source


def replies(repo: ConversationRepository, model_name: str) -> list[Reply]:
    """What the model said that stands as it said it, oldest first.

    Not: what a person has edited since (that is a lesson already) or deleted, and what came by another way
    than the model's voice, as an import does.
    """
    found: dict[tuple[str, str], Reply] = {}
    for change in repo.changes():
        moved = {(change.file, old): (change.file, new) for old, new in moves(change).items()}
        if moved:
            found = {moved.get(key, key): reply for key, reply in found.items()}
        if change.author == model_name and WEIGHTS_TRAILER in change.trailers:
            for message in change.added:
                if message.author == model_name:
                    found[change.file, message.id] = _reply(change, message, model_name)
    standing = {
        (file, message.id): message.body
        for file in repo.files()
        for message in repo.read(file).walk()
        if not message.deleted
    }
    return [reply for key, reply in found.items() if standing.get(key) == reply.text]


def _reply(change: Change, message: Message, model_name: str) -> Reply:
    path = change.after.path(message.id)[:-1] if change.after else ()
    return Reply(
        chat_context(path, model_name), message.body, notes_in(change.trailers), source_of(change, message)
    )
