"""Reading a workspace's conversations: what is committed, never what stands half-typed in a working file."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import pygit2

from understudy.conversation.document import Conversation
from understudy.conversation.errors import InvalidTarget, UnknownRevision
from understudy.conversation.files import valid_path
from understudy.conversation.history import Change, changes_between
from understudy.conversation.participants import Participants, Right
from understudy.conversation.restoring import deletes, newest_deletion
from understudy.conversation.revisions import Revision, revisions
from understudy.conversation.store import GitStore, Person
from understudy.conversation.texts import Texts
from understudy.conversation.trailers import MOVED
from understudy.conversation.writing import Writer


def utc_now() -> datetime:
    """The default clock."""
    return datetime.now(UTC)


class ConversationReader:
    """The half of a `ConversationRepository` that changes nothing, but for making the repository."""

    def __init__(self, store: GitStore, clock: Callable[[], datetime] = utc_now) -> None:
        self._store = store
        self._clock = clock
        self._texts = Texts(store)
        self._writer = Writer(store, self._texts, clock)

    @classmethod
    def create(cls, path: Path | str, clock: Callable[[], datetime] = utc_now) -> Self:
        """Make a workspace's repository; `FileThere` if the folder holds one."""
        return cls(GitStore.create(Path(path), Person.named("understudy"), clock()), clock)

    @classmethod
    def open(cls, path: Path | str, clock: Callable[[], datetime] = utc_now) -> Self:
        """Open a workspace's repository; `NotAWorkspace` if the folder is not the root of one."""
        return cls(GitStore(Path(path)), clock)

    @property
    def root(self) -> Path:
        """The workspace's folder."""
        return self._store.root

    @property
    def git_folder(self) -> Path:
        """Where Git keeps the history."""
        return self._store.git_folder

    def head(self) -> str:
        """The newest commit."""
        tip = self._store.tip()
        if tip is None:
            raise UnknownRevision(f"{self.root} has no commit yet: make one, or use a workspace made by init")
        return tip

    def files(self, revision: str | None = None, *, reader: str | None = None) -> tuple[str, ...]:
        """The conversations at a commit (those that `reader` may read), sorted by path."""
        return self._writer.readable(self._commit(revision), reader)

    def read(self, file: str, revision: str | None = None, *, reader: str | None = None) -> Conversation:
        """The conversation as of a commit (default: the newest), or as in a blob."""
        return self._texts.conversation(self.revision(file, revision, reader=reader))

    def revision(self, file: str, revision: str | None = None, *, reader: str | None = None) -> str:
        """The blob id of the file as of a commit: what to give `edit` as `expected_revision`."""
        valid_path(file)
        if reader is not None:
            self.participants().require(reader, Right.READ, file, "read")
        if revision is not None:
            found = self._store.resolve(revision)
            if isinstance(found, pygit2.Blob):
                if reader is not None:  # it could be any file's
                    raise UnknownRevision(
                        f"a reader names a version by its commit; got the blob {revision!r}"
                    )
                return str(found.id)
        blob = self._store.blob_id(file, self._commit(revision))
        if blob is None:
            raise self._writer.unknown_file(file, revision, reader)
        return blob

    def changes(
        self,
        since: str | None = None,
        file: str | None = None,
        until: str | None = None,
        *,
        reader: str | None = None,
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
        known = self._texts.conversation if begin is not None else None  # all of history would fill it
        found = changes_between(self._store.git, oids[0], pygit2.Oid(hex=end), file, known)
        if reader is None:
            return found
        participants = self.participants()
        return (change for change in found if participants.may_read(reader, change.file))

    def history(self, file: str, id: str, *, reader: str | None = None) -> tuple[Revision, ...]:  # noqa: A002
        """The wordings of a message that stands in the newest commit, oldest first."""
        head = self.head()
        message = self.read(file, head, reader=reader).message(id)
        return revisions(self._store.git, head, file, message)

    def deleted_in(self, file: str, id: str, *, reader: str | None = None) -> str:  # noqa: A002
        """The newest commit that deleted the message, or `UnknownMessage`: what `restore` undoes."""
        valid_path(file)
        if reader is not None:
            self.participants().require(reader, Right.READ, file, "read")
        return newest_deletion(list(self.changes(file=file)), id).commit

    def trailers(self, commit: str) -> Mapping[str, str]:
        """The trailers in a commit's message; `Change.moved` has the ids that it changed."""
        found = self._store.resolve(commit)
        if not isinstance(found, pygit2.Commit):
            return {}
        return {name: value for name, value in found.message_trailers.items() if name != MOVED}

    def participants(self, revision: str | None = None) -> Participants:
        """Who takes part, as of a commit (default: the newest)."""
        return self._writer.participants(self._commit(revision))

    def _before_deletion(self, file: str, id: str, commit: str) -> Conversation:  # noqa: A002
        """The conversation before a commit that deleted this message, or `InvalidTarget`."""
        known = self._known_commit(commit)
        parents = self._store.git[known].parent_ids
        since = str(parents[0]) if parents else None
        for change in self.changes(since, valid_path(file), known):
            if change.commit == known and change.before is not None and deletes(change, id):
                return change.before
        raise InvalidTarget(
            f"commit {known[:10]} did not delete a message {id!r} of {file}: name the one that did"
        )

    def _commit(self, revision: str | None) -> str | None:
        return self._store.tip() if revision is None else self._known_commit(revision)

    def _known_commit(self, revision: str) -> str:
        found = self._store.resolve(revision)
        if not isinstance(found, pygit2.Commit):
            raise UnknownRevision(f"{revision!r} is not a commit")
        return str(found.id)
