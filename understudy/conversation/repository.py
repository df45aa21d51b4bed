"""A workspace's conversations in Git: one commit for each thing said, by the one who said it."""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pygit2

from understudy.conversation import operations
from understudy.conversation.bodies import normalise_body, valid_name
from understudy.conversation.document import Conversation, Message, Thread
from understudy.conversation.errors import Conflict, FileThere, InvalidName, UnknownFile, UnknownRevision
from understudy.conversation.files import valid_path
from understudy.conversation.history import Change, changes_between, decode, encode
from understudy.conversation.parser import parse
from understudy.conversation.store import GitStore, Person
from understudy.conversation.trailers import commit_message

HAND = "hand"
"""The author of hand edits that an operation found uncommitted and that no one has claimed."""

_EMAIL = re.compile(r"[^\s<>@]+@[^\s<>@]+\Z")
_Operation = Callable[[Conversation], tuple[Conversation, Message]]


@dataclass(frozen=True, slots=True)
class Posted:
    """What an operation made: its commit, and the message it is about."""

    commit: str
    message: str


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


class ConversationRepository:
    """The conversations of one workspace. Safe to use from many threads, processes and machines' clones at
    once.

    A conversation is named by its path from the workspace's root, `conversations/name.md`. Each operation is
    one commit, made by compare-and-swap: when someone else was faster, the operation is applied anew to what
    they left. Edits that a person left uncommitted in a working file are committed first, by `hand`, so
    nothing is overwritten.
    """

    def __init__(self, store: GitStore, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock

    @classmethod
    def create(cls, path: Path | str, clock: Callable[[], datetime] = utc_now) -> "ConversationRepository":
        """Make a workspace's repository; `FileThere` if the folder holds one."""
        return cls(GitStore.create(Path(path), Person.named("understudy"), clock()), clock)

    @classmethod
    def open(cls, path: Path | str, clock: Callable[[], datetime] = utc_now) -> "ConversationRepository":
        """Open a workspace's repository; `NotAWorkspace` if the folder is not the root of one."""
        return cls(GitStore(Path(path)), clock)

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self._store.root

    # Reading: what is committed, never what stands half-typed in a working file.

    def head(self) -> str:
        """The newest commit."""
        tip = self._store.tip()
        if tip is None:
            raise UnknownRevision(f"{self.root} has no commit yet: make one, or use a workspace made by init")
        return tip

    def files(self, revision: str | None = None) -> tuple[str, ...]:
        """The conversations at a commit, sorted by path."""
        return tuple(sorted(self._store.committed_files(self._commit(revision))))

    def read(self, file: str, revision: str | None = None) -> Conversation:
        """The conversation as of a commit (default: the newest), or as in a blob."""
        return parse(decode(self._store.data(self.revision(file, revision))))

    def revision(self, file: str, revision: str | None = None) -> str:
        """The blob id of the file as of a commit: what to give `edit` as `expected_revision`."""
        valid_path(file)
        if revision is not None:
            found = self._store.resolve(revision)
            if isinstance(found, pygit2.Blob):
                return str(found.id)
        blob = self._store.blob_id(file, self._commit(revision))
        if blob is None:
            names = ", ".join(self.files(revision)) or "none"
            raise UnknownFile(
                f"no conversation {file!r} at {revision or 'the newest commit'}; there are: {names}"
            )
        return blob

    def changes(
        self, since: str | None = None, file: str | None = None, until: str | None = None
    ) -> Iterator[Change]:
        """Every change after the commit `since` (default: all) up to `until` (default: the newest), oldest
        first.

        They are found by comparing trees, so it does not matter which program made the commits.
        """
        begin = None if since is None else self._known_commit(since)
        end = self._known_commit(until) if until is not None else self._store.tip()
        if end is None:
            return iter(())
        oids = [None if commit is None else pygit2.Oid(hex=commit) for commit in (begin, end)]
        return changes_between(self._store.git, oids[0], oids[1], file)

    def trailers(self, commit: str) -> Mapping[str, str]:
        """The trailers in a commit's message."""
        found = self._store.resolve(commit)
        return dict(found.message_trailers) if isinstance(found, pygit2.Commit) else {}

    def _commit(self, revision: str | None) -> str | None:
        return self._store.tip() if revision is None else self._known_commit(revision)

    def _known_commit(self, revision: str) -> str:
        found = self._store.resolve(revision)
        if not isinstance(found, pygit2.Commit):
            raise UnknownRevision(f"{revision!r} is not a commit")
        return str(found.id)

    # Writing: each verb is one pure operation and one commit.

    def start(
        self,
        file: str,
        title: str,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        email: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Posted:
        """Open a thread, in a new file if there is none of this name."""
        when = created or self._clock()

        def act(doc: Conversation) -> tuple[Conversation, Message]:
            return operations.start(doc, title, author, body, when)

        return self._say("start", file, _person(author, email), when, act, trailers, new_file=True)

    def post(
        self,
        file: str,
        thread: str | Thread,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        email: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Posted:
        """A message that answers no other, at the end of a thread."""
        when = created or self._clock()

        def act(doc: Conversation) -> tuple[Conversation, Message]:
            return operations.post(doc, thread, author, body, when)

        return self._say("post", file, _person(author, email), when, act, trailers)

    def reply(
        self,
        file: str,
        to: str,
        author: str,
        body: str,
        *,
        created: datetime | None = None,
        email: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Posted:
        """A reply to the message with the id `to`."""
        when = created or self._clock()

        def act(doc: Conversation) -> tuple[Conversation, Message]:
            return operations.reply(doc, to, author, body, when)

        return self._say("reply", file, _person(author, email), when, act, trailers)

    def edit(
        self,
        file: str,
        id: str,  # noqa: A002 - the public name of the argument
        author: str,
        body: str,
        *,
        expected_revision: str | None = None,
        email: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> Posted:
        """Give a message another text; `author` is who edits, the message keeps its own.

        With `expected_revision`, the blob or commit that the author saw, a change of the same message since
        then is a `Conflict`; changes elsewhere are not.
        """
        seen = None if expected_revision is None else self.read(file, expected_revision).message(id).body

        def act(doc: Conversation) -> tuple[Conversation, Message]:
            current = doc.message(id).body
            if seen is not None and current != seen:
                raise Conflict(id, seen, normalise_body(body), current)
            return operations.edit(doc, id, body)

        return self._say("edit", file, _person(author, email), self._clock(), act, trailers)

    def add(
        self,
        file: str,
        text: str,
        author: str,
        *,
        email: str | None = None,
        trailers: Mapping[str, str] | None = None,
    ) -> str:
        """Bring a whole conversation in, byte for byte, as a new file, in the commit that is returned."""
        valid_path(file)
        person, when = _person(author, email), self._clock()
        message = commit_message("add", file, None, None, trailers)
        with self._store.writing():
            while True:
                tip = self._store.tip()
                if self._store.blob_id(file, tip) or file in self._store.working_files():
                    raise FileThere(f"{file} is there already: choose another name")
                commit = self._store.commit({file: encode(text)}, person, when, when, message, tip)
                if commit:
                    return commit

    def commit_hand_edits(self, author: str, *, email: str | None = None) -> str | None:
        """Commit what an editor left in `conversations/`, removals too, as one commit; None if nothing."""
        with self._store.writing():
            files = self._store.working_files() | self._store.committed_files(self._store.tip())
            return self._commit_hand_edits(files, _person(author, email), deletions=True)

    def _commit_hand_edits(self, files: Iterable[str], author: Person, deletions: bool) -> str | None:
        while edits := self._store.hand_edits(sorted(files), deletions):
            where = next(iter(edits)) if len(edits) == 1 else f"{len(edits)} files"
            message, now = commit_message("hand", where, None, None, None), self._clock()
            commit = self._store.commit(edits, author, now, now, message, self._store.tip())
            if commit:
                return commit
        return None

    def _say(
        self,
        operation: str,
        file: str,
        author: Person,
        authored: datetime,
        act: _Operation,
        trailers: Mapping[str, str] | None,
        new_file: bool = False,
    ) -> Posted:
        """Apply the operation to the newest text and commit it; when someone else was faster, again."""
        valid_path(file)
        commit_message(
            operation, file, None, None, trailers
        )  # refuse bad trailers before anything is written
        with self._store.writing():
            self._commit_hand_edits([file], Person.named(HAND), deletions=False)
            while True:
                tip = self._store.tip()
                blob = self._store.blob_id(file, tip)
                if blob is None and not new_file:
                    raise UnknownFile(
                        f"no conversation {file!r}; there are: {', '.join(self.files()) or 'none'}"
                    )
                doc, said = act(parse(decode(self._store.data(blob)) if blob else ""))
                parent = said.parent.id if said.parent else None
                message = commit_message(operation, file, said.id, parent, trailers)
                files = {file: encode(doc.text)}
                commit = self._store.commit(files, author, authored, self._clock(), message, tip)
                if commit:
                    return Posted(commit, said.id)


def _person(name: str, email: str | None) -> Person:
    if email is not None and not _EMAIL.match(email):
        raise InvalidName(f"an e-mail address was expected, like name@example.org; got {email!r}")
    return Person.named(valid_name(name), email)
