"""How the model answers in a thread."""

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from understudy.conversation import Conversation, ConversationRepository, Message, Posted
from understudy.lessons import WEIGHTS_TRAILER, ChatMessage, Note, chat_context, notes_trailer, with_notes

STOPPED_TRAILER = "Understudy-Stopped"
"""Of an answer's commit: who cut it short."""


class NothingToAnswer(ValueError):
    """The message is the model's own, or deleted: there is nothing to answer."""


class EmptyAnswer(RuntimeError):
    """The model said nothing; nothing was posted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model said, and the weight commit it spoke with (None before the first).

    `stopped_by` is who cut it short, None where it came to its end by itself.
    """

    text: str
    weight_commit: str | None
    stopped_by: str | None = None


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
    said = complete(question(repository, file, to, name, notes))
    return post_answer(repository, file, to, name, said, notes)


def question(
    repository: ConversationRepository, file: str, to: str, name: str, notes: Sequence[Note] = ()
) -> tuple[ChatMessage, ...]:
    """What the model `name` is to answer as a reply to message `to`. Raises UnknownMessage or
    NothingToAnswer.
    """
    path = repository.read(file).path(to)
    if path[-1].deleted:
        raise NothingToAnswer(f"expected a message that still stands, {to} in {file} was deleted")
    if path[-1].author == name:
        raise NothingToAnswer(f"expected a message of someone else than {name!r} to answer, {to} is its own")
    return with_notes(notes, chat_context(path, name))


def post_answer(
    repository: ConversationRepository,
    file: str,
    to: str,
    name: str,
    said: Answer,
    notes: Sequence[Note] = (),
) -> Posted:
    """Post what the model `name` said to message `to`. Raises EmptyAnswer for nothing but blanks."""
    require_text(said, file, to)
    return repository.reply(file, to, name, said.text, trailers=spoken_trailers(said, notes))


def reword(
    repository: ConversationRepository,
    file: str,
    message: str,
    name: str,
    said: Answer,
    notes: Sequence[Note] = (),
    *,
    expected_revision: str | None = None,
) -> Posted:
    """Give the model's own message the words of another answer of its own. That is no lesson.

    Raises EmptyAnswer, and what an edit raises.
    """
    require_text(said, file, message)
    trailers = spoken_trailers(said, notes)
    return repository.edit(
        file, message, name, said.text, trailers=trailers, expected_revision=expected_revision
    )


def require_text(said: Answer, file: str, to: str) -> None:
    """Raises EmptyAnswer for an answer of nothing but blanks."""
    if not said.text.strip():
        raise EmptyAnswer(f"the model answered message {to} in {file} with nothing: no reply was posted")


def spoken_trailers(said: Answer, notes: Sequence[Note]) -> dict[str, str]:
    """What the commit of an answer says of it: weights, notes, and who cut it short."""
    stopped = {} if said.stopped_by is None else {STOPPED_TRAILER: said.stopped_by}
    return {WEIGHTS_TRAILER: said.weight_commit or "initial", **notes_trailer(notes), **stopped}


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
