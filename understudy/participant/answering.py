"""How the model answers in a thread."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from understudy.conversation import Conversation, ConversationRepository, Message, Posted
from understudy.lessons import WEIGHTS_TRAILER, ChatMessage, Note, chat_context, notes_trailer, with_notes


class NothingToAnswer(ValueError):
    """The message is the model's own, or deleted: there is nothing to answer."""


class EmptyAnswer(RuntimeError):
    """The model said nothing; nothing was posted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and the weight commit it spoke with (None before the first)."""

    text: str
    weight_commit: str | None


Complete = Callable[[tuple[ChatMessage, ...]], Answer]
"""Lets the model speak. Raises what its engine raises."""


def answer(
    repository: ConversationRepository,
    file: str,
    to: str,
    name: str,
    complete: Complete,
    notes: Sequence[Note] = (),
) -> Posted:
    """Let the model `name` reply to message `to`: the path from the thread's root is its context, with the
    notes before it.

    Raises UnknownMessage, NothingToAnswer or EmptyAnswer; then nothing was posted.
    """
    path = repository.read(file).path(to)
    if path[-1].deleted:
        raise NothingToAnswer(f"expected a message that still stands, {to} in {file} was deleted")
    if path[-1].author == name:
        raise NothingToAnswer(f"expected a message of someone else than {name!r} to answer, {to} is its own")
    said = complete(with_notes(notes, chat_context(path, name)))
    if not said.text.strip():
        raise EmptyAnswer(f"the model answered message {to} in {file} with nothing: no reply was posted")
    trailers = {WEIGHTS_TRAILER: said.weight_commit or "initial", **notes_trailer(notes)}
    return repository.reply(file, to, name, said.text, trailers=trailers)


def due(
    before: Conversation | None,
    after: Conversation,
    now: Conversation,
    name: str,
    moved: Collection[str] = (),
) -> list[Message]:
    """New messages of a change that wait for the model's answer, in the file's order.

    A message waits when someone else wrote it, it mentions `@name` or replies to the model, and the
    model has not replied to it in the conversation as it stands `now`. `moved` are ids that are new only
    because an old message was moved.
    """
    known = set(moved) if before is None else {*moved, *(message.id for message in before.walk())}
    standing = {message.id: message for message in now.walk()}
    return [
        standing[message.id]
        for message in after.walk()
        if message.id not in known
        and message.id in standing
        and _addressed(standing[message.id], name)
        and not any(reply.author == name for reply in standing[message.id].replies)
    ]


def _addressed(message: Message, name: str) -> bool:
    if message.author == name or message.deleted:
        return False
    if message.parent is not None and message.parent.author == name:
        return True
    return re.search(rf"(?<![\w.@-])@{re.escape(name)}(?![\w-]|\.\w)", message.body) is not None
