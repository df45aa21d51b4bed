"""Making an operation a commit: rights, idempotency keys, compare-and-swap."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

import pygit2

from understudy.conversation.document import Conversation
from understudy.conversation.errors import KeyReused, UnknownFile
from understudy.conversation.files import STATE_FOLDER, valid_path
from understudy.conversation.history import changes_between, decode
from understudy.conversation.keys import Keys
from understudy.conversation.participants import (
    PARTICIPANTS_FILE,
    UNRESTRICTED,
    Participants,
    read_participants,
)
from understudy.conversation.sections import Sections
from understudy.conversation.store import WAIT_SECONDS, GitStore, Person
from understudy.conversation.texts import Texts
from understudy.conversation.trailers import MESSAGE, OPERATION, commit_message, moved_ids

HAND = "hand"
"""The author of hand edits that an operation found uncommitted and that no one has claimed."""


@dataclass(frozen=True, slots=True)
class Posted:
    """What an operation made: its commit, the message it is about, and the ids it changed (old to new)."""

    commit: str
    message: str
    moved: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A conversation after an operation, the message that this was about, and the ids it changed."""

    doc: Conversation
    message: str
    parent: str | None = None
    moved: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Request:
    """One operation, asked for. `act` may be called again on a newer text when someone else was faster."""

    operation: str
    file: str
    author: str
    authored: datetime
    act: Callable[[Conversation, str], Outcome]
    """The operation, on a conversation and the target's id as it is there."""
    permit: Callable[[Participants, Conversation, str], None]
    """Raises `NotAllowed`."""
    target: str = ""
    """The message that the operation is about, by the id that the caller saw."""
    title: str | None = None
    """Instead, the thread."""
    local: bool = False
    """Whether `act` reads and changes the thread of its target, or of its title, and no other."""
    seen: str | None = None
    """The commit that the caller saw: ids that were changed since are followed."""
    email: str | None = None
    trailers: Mapping[str, str] | None = None
    key: str | None = None
    new_file: bool = False


class Writer:
    """Writes into one workspace."""

    def __init__(self, store: GitStore, texts: Texts, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._texts = texts
        self._clock = clock
        self._keys = Keys(store.root / STATE_FOLDER / "keys.sqlite")
        self._participants: tuple[str | None, Participants] = (None, UNRESTRICTED)

    def participants(self, commit: str | None) -> Participants:
        """Who takes part, as of a commit."""
        blob = self._store.blob_id(PARTICIPANTS_FILE, commit)
        known, participants = self._participants
        if blob != known:
            participants = UNRESTRICTED if blob is None else read_participants(decode(self._store.data(blob)))
            self._participants = (blob, participants)
        return participants

    def say(self, request: Request) -> Posted:
        """Apply the operation to the newest text and commit it; when someone else was faster, again."""
        valid_path(request.file)
        _message_of(request, None)  # refuse bad trailers before anything is written
        with self._store.writing():
            self._commit_hand_edits([request.file], Person.named(HAND), deletions=False)
            while True:
                tip = self._store.tip()
                if request.key is not None and (made := self._keys.commit(self._store.git, tip, request.key)):
                    return self._made_before(request, made)
                if posted := self._attempt(request, tip):
                    return posted

    def _attempt(self, request: Request, tip: str | None) -> Posted | None:
        participants = self.participants(tip)
        blob = self._store.blob_id(request.file, tip)
        if blob is None and not request.new_file:
            raise self.unknown_file(request.file, tip, request.author)
        target = self._now(request, tip)
        before = self._texts.sections(blob)
        after, outcome = self._apply(request, target, participants, before, blob)
        address = participants.email(request.author) or request.email
        commit = self._store.commit(
            {request.file: after.data},
            Person.named(request.author, address),
            request.authored,
            self._clock(),
            _message_of(request, outcome),
            tip,
            WAIT_SECONDS,
            {request.file: after.pieces},
        )
        if commit is None:
            return None
        self._texts.remember(self._store.blob_id(request.file, commit), after)
        return Posted(commit, outcome.message, outcome.moved)

    def _apply(
        self, request: Request, target: str, participants: Participants, before: Sections, blob: str | None
    ) -> tuple[Sections, Outcome]:
        """The operation on the one section that it is about, or on the whole."""
        number = None
        if request.local:
            number = before.section(target or None, request.title)
        if number is not None:
            doc = before.read(number)
            request.permit(participants, doc, target)
            outcome = request.act(doc, target)
            if outcome.message == target or outcome.message not in before.places:
                return before.replaced(number, outcome.doc, outcome.message), outcome
        doc = self._texts.conversation(blob)
        request.permit(participants, doc, target)
        outcome = request.act(doc, target)
        return Sections.of(outcome.doc), outcome

    def _now(self, request: Request, tip: str | None) -> str:
        """The target's id in the newest text, where it was moved since the caller saw it."""
        target = request.target
        if request.seen is None or tip is None or request.seen == tip:
            return target
        git = self._store.git
        for change in changes_between(git, pygit2.Oid(hex=request.seen), pygit2.Oid(hex=tip), request.file):
            target = change.moved.get(target, target)
        return target

    def _made_before(self, request: Request, commit: str) -> Posted:
        """What the first request with this key made, or `KeyReused`."""
        made = self._store.git[commit]
        trailers = made.message_trailers
        expected = (request.operation, request.file, request.author)
        subject = made.message.split("\n", 1)[0]
        found = (trailers.get(OPERATION, ""), subject.partition(" in ")[2], made.author.name)
        if expected != found:
            raise KeyReused(
                f"the key {request.key!r} was used for another thing said: {' in '.join(found[:2])} "
                f"by {found[2]} (commit {commit[:10]}); a key serves only to try the same again"
            )
        return Posted(commit, trailers.get(MESSAGE, ""), moved_ids(made.message))

    def commit_files(
        self, files: Mapping[str, bytes], author: Person, message: str, check: Callable[[str | None], None]
    ) -> str:
        """Commit whole files; `check` is given the commit they will stand on, and raises if they may not."""
        with self._store.writing():
            while True:
                tip, now = self._store.tip(), self._clock()
                check(tip)
                if commit := self._store.commit(files, author, now, now, message, tip):
                    return commit

    def commit_hand_edits(self, author: Person) -> str | None:
        """Commit all that an editor left, removals too; None if nothing."""
        with self._store.writing():
            files = self._store.working_files() | self._store.committed_files(self._store.tip())
            return self._commit_hand_edits(files, author, deletions=True)

    def _commit_hand_edits(self, files: Iterable[str], author: Person, deletions: bool) -> str | None:
        while edits := self._store.hand_edits(sorted(files), deletions):
            where = next(iter(edits)) if len(edits) == 1 else f"{len(edits)} files"
            message, now = commit_message(HAND, where, None, None, None), self._clock()
            commit = self._store.commit(edits, author, now, now, message, self._store.tip())
            if commit:
                return commit
        return None

    def readable(self, commit: str | None, reader: str | None) -> tuple[str, ...]:
        """The conversations at a commit that this participant may read today (None: all), sorted by path."""
        files = sorted(self._store.committed_files(commit))
        if reader is None:
            return tuple(files)
        participants = self.participants(self._store.tip())
        return tuple(file for file in files if participants.may_read(reader, file))

    def unknown_file(self, file: str, commit: str | None, reader: str | None) -> UnknownFile:
        """The error that says which conversations there are, for this participant."""
        names = ", ".join(self.readable(commit or self._store.tip(), reader)) or "none"
        return UnknownFile(f"no conversation {file!r} at {commit or 'the newest commit'}; there are: {names}")


def _message_of(request: Request, outcome: Outcome | None) -> str:
    return commit_message(
        request.operation,
        request.file,
        outcome.message if outcome else None,
        outcome.parent if outcome else None,
        request.trailers,
        request.key,
        outcome.moved if outcome else None,
    )
