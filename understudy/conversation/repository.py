"""A workspace's conversations in Git: one commit for each thing said, by the one who said it."""

from datetime import datetime

from understudy.conversation import restructuring
from understudy.conversation.bodies import valid_name
from understudy.conversation.document import Conversation, Thread
from understudy.conversation.errors import FileThere
from understudy.conversation.files import valid_path
from understudy.conversation.history import encode
from understudy.conversation.participants import PARTICIPANTS_FILE, Participants, Right, read_participants
from understudy.conversation.reader import utc_now
from understudy.conversation.restoring import put_back
from understudy.conversation.speaking import ConversationSpeaker, Trailers, needs, require_seen, said
from understudy.conversation.trailers import commit_message
from understudy.conversation.writing import Outcome, Posted, Request

__all__ = ["ConversationRepository", "Posted", "utc_now"]


class ConversationRepository(ConversationSpeaker):
    """The conversations of one workspace. Safe to use from many threads, processes and machines' clones at
    once.

    A conversation is named by its path from the workspace's root, `conversations/name.md`. Each operation is
    one commit, made by compare-and-swap: when someone else was faster, the operation is applied anew to what
    they left. Edits that a person left uncommitted in a working file are committed first, by `hand`, so
    nothing is overwritten.

    Every operation takes `trailers` for the commit and a `key`: asked again with the same key, by whatever
    process, it says nothing twice and returns what the first asking made. `email` is the author's address
    where `participants.toml` names none. Who may do what stands there too; an operation that the author has
    no right to is `NotAllowed`. Reading takes a `reader` to hold to these rights; without one it is for
    whoever holds the files.
    """

    def delete(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        author: str,
        *,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Take a message back. Where others have replied a mark stays in its place."""
        name, seen = valid_name(author), self._seen(file, id, expected_revision)

        def act(doc: Conversation, target: str) -> Outcome:
            message = doc.message(target)
            require_seen(message, seen, "")
            parent = message.parent.id if message.parent else None
            return Outcome(restructuring.delete(doc, target), target, parent)

        def permit(participants: Participants, doc: Conversation, target: str) -> None:
            participants.require(name, Right.READ, file, "delete")
            own = doc.message(target).author == name
            right = Right.POST if own else Right.MODERATE
            participants.require(name, right, file, f"delete message {target}")

        request = Request("delete", file, author, self._clock(), act, permit, target=id)
        return self._say(request, email, trailers, key, expected_revision)

    def restore(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        deleted_in: str,
        author: str,
        *,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Undo the deletion of a message that the commit `deleted_in` made, as its trees have to show.

        What the deletion took away below the message comes back too. `Posted.message` is its id: another one
        (with `Posted.moved`) only where what it answers was moved since, or its thread renamed.
        """
        name = valid_name(author)
        self.participants().require(name, Right.READ, file, "restore")  # before anything is told of it
        earlier = self._before_deletion(file, id, deleted_in)
        lost = earlier.message(id)

        def act(doc: Conversation, _: str) -> Outcome:
            after, moved = put_back(doc, earlier, id)
            back = after.message(moved.get(id, id))
            return Outcome(after, back.id, back.parent.id if back.parent else None, moved)

        def permit(participants: Participants, _doc: Conversation, _target: str) -> None:
            participants.require(name, Right.READ, file, "restore")
            right = Right.POST if lost.author == name else Right.MODERATE
            participants.require(name, right, file, f"restore message {id}")

        request = Request("restore", file, author, self._clock(), act, permit)
        return self._say(request, email, trailers, key)

    def move(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        thread: str | Thread | None,
        author: str,
        *,
        title: str | None = None,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Put a message and all below it into another thread, or into a new one called `title`.

        `Posted.message` is its new id, `Posted.moved` has those of all that moved with it.
        """

        def act(doc: Conversation, target: str) -> Outcome:
            after, moved = restructuring.move(doc, target, thread, title=title)
            return Outcome(after, moved.get(target, target), None, moved)

        permit = needs(Right.MODERATE, author, file, "move messages")
        request = Request("move", file, author, self._clock(), act, permit, target=id)
        return self._say(request, email, trailers, key, expected_revision)

    def split(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        paragraph: int,
        title: str,
        author: str,
        *,
        created: datetime | None = None,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Open a thread on one paragraph of a message (the first is 0), which it quotes and links."""
        when = created or self._clock()
        seen = self._seen(file, id, expected_revision)

        def act(doc: Conversation, target: str) -> Outcome:
            require_seen(doc.message(target), seen, "")
            return said(*restructuring.split(doc, target, paragraph, title, author, when))

        permit = needs(Right.MODERATE, author, file, "split messages")
        request = Request("split", file, author, when, act, permit, target=id)
        return self._say(request, email, trailers, key, expected_revision)

    def rename(
        self,
        file: str,
        thread: str | Thread,
        title: str,
        author: str,
        *,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Give a thread another title. `Posted.message` is its first message's new id ("" if it has none)."""

        def act(doc: Conversation, _: str) -> Outcome:
            first = next(doc.thread(thread).walk(), None)
            after, moved = restructuring.rename(doc, thread, title)
            return Outcome(after, moved.get(first.id, first.id) if first else "", None, moved)

        permit = needs(Right.MODERATE, author, file, "rename threads")
        request = Request("rename", file, author, self._clock(), act, permit)
        return self._say(request, email, trailers, key)

    def merge_threads(
        self,
        file: str,
        source: str | Thread,
        target: str | Thread,
        author: str,
        *,
        email: str | None = None,
        trailers: Trailers = None,
        key: str | None = None,
    ) -> Posted:
        """Put all of a thread behind another, whose title stays.

        `Posted.message` is the new id of the first message that moved ("" if there was none).
        """

        def act(doc: Conversation, _: str) -> Outcome:
            first = next(doc.thread(source).walk(), None)
            after, moved = restructuring.merge_threads(doc, source, target)
            return Outcome(after, moved.get(first.id, first.id) if first else "", None, moved)

        permit = needs(Right.MODERATE, author, file, "merge threads")
        request = Request("merge_threads", file, author, self._clock(), act, permit)
        return self._say(request, email, trailers, key)

    def add(
        self, file: str, text: str, author: str, *, email: str | None = None, trailers: Trailers = None
    ) -> str:
        """Bring a whole conversation in, byte for byte, as a new file, in the commit that is returned.

        It holds other people's words as it gives them, so it takes the right `admin`.
        """
        valid_path(file)
        person = self._person(author, email)
        message = commit_message("add", file, None, None, trailers)

        def check(tip: str | None) -> None:
            self._writer.participants(tip).require(author, Right.ADMIN, file, "add whole conversations")
            if self._store.blob_id(file, tip) or file in self._store.working_files():
                raise FileThere(f"{file} is there already: choose another name")

        return self._writer.commit_files({file: encode(text)}, person, message, check)

    def set_participants(self, text: str, author: str, *, email: str | None = None) -> str:
        """Give the workspace this `participants.toml`, in the commit that is returned.

        Takes the right `admin`; the first one is set by someone whom it makes an admin.
        """
        new, person = read_participants(text), self._person(author, email)

        def check(tip: str | None) -> None:
            present = self._writer.participants(tip)
            (new if present.unrestricted else present).require(
                author, Right.ADMIN, None, f"change {PARTICIPANTS_FILE}"
            )

        message = commit_message("participants", PARTICIPANTS_FILE, None, None, None)
        return self._writer.commit_files({PARTICIPANTS_FILE: encode(text)}, person, message, check)

    def commit_hand_edits(self, author: str, *, email: str | None = None) -> str | None:
        """Commit what an editor left in `conversations/`, removals too, as one commit; None if nothing.

        With an editor anyone can change anything, so whoever claims such edits has the right `admin`.
        """
        self.participants().require(author, Right.ADMIN, None, "claim edits made by hand")
        return self._writer.commit_hand_edits(self._person(author, email))
