"""How one message came to read as it does: its revisions, by comparing the trees of commits."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache

import pygit2
from pygit2.enums import SortMode

from understudy.conversation.document import Conversation, Message
from understudy.conversation.history import author_time, blob_at, decode
from understudy.conversation.parser import parse
from understudy.conversation.trailers import OPERATION, moved_ids

_READ_KEPT = 4


@dataclass(frozen=True, slots=True)
class Revision:
    """What a message said after a commit that gave it these words: the first is how it began."""

    commit: str
    author: str
    time: datetime
    body: str
    deleted: bool = False


@dataclass(frozen=True, slots=True)
class _Trace:
    """A message as it stood in one commit's file; `gone`: as it will stand again, where that is not yet."""

    id: str
    message: Message
    source: bytes
    gone: bool = False

    @property
    def says(self) -> tuple[str, bool]:
        """Its body, and whether it is deleted."""
        return ("", True) if self.gone else (self.message.body, self.message.deleted)


class _Reader:
    """One file's versions, each read no more than it has to be."""

    def __init__(self, git: pygit2.Repository, file: str) -> None:
        self._git, self._file = git, file
        self.data: Callable[[str], bytes] = lru_cache(_READ_KEPT)(lambda blob: bytes(git[blob].data))
        self._parse: Callable[[str], Conversation] = lru_cache(_READ_KEPT)(
            lambda blob: parse(decode(self.data(blob)))
        )

    def blob(self, commit: pygit2.Commit) -> str | None:
        return blob_at(commit.tree, self._file)

    def find(self, blob: str, wanted: str, like: Message) -> _Trace | None:
        """The message of this id, else the only one of the same author and time: ids change with places."""
        if self._head(like) not in self.data(blob):
            return None
        doc = self._parse(blob)
        same = [m for m in doc.messages if (m.author, m.created) == (like.author, like.created)]
        found = next((m for m in same if m.id == wanted), same[0] if len(same) == 1 else None)
        return _Trace(found.id, found, _source(found)) if found else None

    def hold_unchanged(self, blobs: tuple[str, str], trace: _Trace) -> bool:
        """Whether the message's very characters stand in both versions, once: a twin would prove nothing."""
        return all(self.data(blob).count(trace.source) == 1 for blob in blobs)

    @staticmethod
    def _head(message: Message) -> bytes:
        return f"- @{message.author} [{message.created}]:".encode("utf-8", "surrogateescape")


def _source(message: Message) -> bytes:
    return message.source.rstrip().encode("utf-8", "surrogateescape")


def revisions(git: pygit2.Repository, head: str, file: str, message: Message) -> tuple[Revision, ...]:
    """Every wording of a message of the file as it stands at `head`, oldest first.

    Goes back along all parents for as long as they have the message, also under an earlier id; a version of
    the file in which the message's characters stand unchanged is not parsed. A message that was removed and
    brought back by hand begins where it came back; after `restore` it is looked for on from there.
    """
    reader = _Reader(git, file)
    traces: dict[str, _Trace] = {head: _Trace(message.id, message, _source(message))}
    found: list[Revision] = []
    for commit in git.walk(pygit2.Oid(hex=head), SortMode.TOPOLOGICAL | SortMode.TIME):
        trace = traces.pop(str(commit.id), None)
        if trace is None:
            continue
        earlier = [_in_parent(reader, commit, parent, trace) for parent in commit.parents]
        for parent, there in zip(commit.parents, earlier, strict=True):
            if there is not None:
                traces.setdefault(str(parent.id), there)
        lost_for_good = trace.gone and not any(earlier)
        if not lost_for_good and not any(there and _says_the_same(there, trace) for there in earlier):
            body, deleted = trace.says
            found.append(Revision(str(commit.id), commit.author.name, author_time(commit), body, deleted))
        if not traces:
            break
    return tuple(reversed(found))


def _in_parent(reader: _Reader, commit: pygit2.Commit, parent: pygit2.Commit, trace: _Trace) -> _Trace | None:
    """The message as it was in a parent, None if it was not there."""
    after, before = reader.blob(commit), reader.blob(parent)
    if before is None or after is None:
        return None
    if before == after:
        return trace
    wanted = {new: old for old, new in moved_ids(commit.message).items()}.get(trace.id, trace.id)
    if not trace.gone and reader.hold_unchanged((before, after), trace):
        return _Trace(wanted, trace.message, trace.source)
    there = reader.find(before, wanted, trace.message)
    if there is None and (trace.gone or commit.message_trailers.get(OPERATION) == "restore"):
        return replace(trace, id=wanted, gone=True)
    return there


def _says_the_same(old: _Trace, new: _Trace) -> bool:
    return old is new or old.says == new.says
