"""Saying things in a workspace's conversations, each as one commit by the one who said it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime

import pygit2

from understudy.conversation import operations
from understudy.conversation.bodies import normalise_body, valid_name
from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.errors import Conflict
from understudy.conversation.participants import Participants, Right, valid_email
from understudy.conversation.reader import ConversationReader
from understudy.conversation.store import Person
from understudy.conversation.writing import Outcome, Posted, Request

Trailers = Mapping[str, str] | None
Permit = Callable[[Participants, Conversation, str], None]


class ConversationSpeaker(ConversationReader):
    """The part of a `ConversationRepository` that adds to what was said, or words it anew."""

    def start(
        self,
        file: str,
        title: str,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Open a thread, in a new file if there is none of this name."""
        when = created or self._clock()

        def act(doc: Conversation, _: str) -> Outcome:
            return said(*operations.start(doc, title, author, body, when))

        permit = needs(Right.POST, author, file, "start a thread")
        request = Request("start", file, author, when, act, permit, new_file=True)
        return self._say(request, email, trailers, key)

    def post(
        self,
        file: str,
        thread: str | Thread,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """A message that answers no other, at the end of a thread."""
        when = created or self._clock()

        def act(doc: Conversation, _: str) -> Outcome:
            return said(*operations.post(doc, thread, author, body, when))

        permit = needs(Right.POST, author, file, "post")
        title = thread if isinstance(thread, str) else None
        request = Request("post", file, author, when, act, permit, title=title, local=title is not None)
        return self._say(request, email, trailers, key)

    def reply(
        self,
        file: str,
        to: str,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """A reply to the message with the id `to`, also where it was moved since `expected_revision`."""
        when = created or self._clock()

        def act(doc: Conversation, target: str) -> Outcome:
            return said(*operations.reply(doc, target, author, body, when))

        permit = needs(Right.POST, author, file, "reply")
        request = Request("reply", file, author, when, act, permit, target=to, local=True)
        return self._say(request, email, trailers, key, expected_revision)

    def edit(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        author: str,
        body: str,
        *,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Give a message another text; `author` is who edits, the message keeps its own.

        With `expected_revision`, the blob or commit that the author saw, a change of the same message since
        then is a `Conflict`; changes elsewhere are not, not even that it was moved since that commit.
        """
        name, seen = valid_name(author), self._seen(file, id, expected_revision)

        def act(doc: Conversation, target: str) -> Outcome:
            require_seen(doc.message(target), seen, normalise_body(body))
            return said(*operations.edit(doc, target, body))

        def permit(participants: Participants, doc: Conversation, target: str) -> None:
            participants.require(name, Right.READ, file, "edit")
            said_by = doc.message(target).author
            participants.require_change(name, said_by, file, f"edit message {target}")

        request = Request("edit", file, author, self._clock(), act, permit, target=id, local=True)
        return self._say(request, email, trailers, key, expected_revision)

    def _say(
        self,
        request: Request,
        email: str | None,
        trailers: Trailers,
        key: str | None,
        expected_revision: str | None = None,
    ) -> Posted:
        name, address = valid_name(request.author), None if email is None else valid_email(email)
        seen = None
        if expected_revision is not None:
            found = self._store.resolve(expected_revision)
            seen = str(found.id) if isinstance(found, pygit2.Commit) else None
        return self._writer.say(
            replace(request, author=name, email=address, trailers=trailers, key=key, seen=seen)
        )

    def _seen(self, file: str, id: str, revision: str | None) -> str | None:  # noqa: A002
        """What the message said in the revision that the caller saw."""
        return None if revision is None else self.read(file, revision).message(id).body

    def _person(self, name: str, email: str | None) -> Person:
        """Who a commit is by: with the address in `participants.toml`, the given one, or one made up."""
        given = None if email is None else valid_email(email)
        return Person.named(valid_name(name), self.participants().email(name) or given)


def needs(right: Right, author: str, file: str, what: str) -> Permit:
    """For a `Request`: `NotAllowed` unless the author has the right in this conversation."""
    name = valid_name(author)
    return lambda participants, _doc, _target: participants.require(name, right, file, what)


def said(doc: Conversation, message: Message) -> Outcome:
    """What became of an operation that made, or changed, this message."""
    return Outcome(doc, message.id, message.parent.id if message.parent else None)


def require_seen(message: Message, seen: str | None, submitted: str) -> None:
    """`Conflict` if the message says something else than the caller saw (None: did not say)."""
    if seen is not None and message.body != seen:
        raise Conflict(message.id, seen, submitted, message.body)
