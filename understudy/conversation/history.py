"""What happened to conversations, read from Git by comparing trees: any editor may have made the commits."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from functools import cached_property, lru_cache

import pygit2
from pygit2.enums import DeltaStatus, SortMode

from understudy.conversation.document import Conversation, Message
from understudy.conversation.files import is_conversation
from understudy.conversation.parser import parse
from understudy.conversation.trailers import MESSAGE, MOVED, OPERATION, moved_ids

_PARSED_KEPT = 8
_TEXTS_KEPT = 8


@dataclass(frozen=True, eq=False)
class Change:
    """One file in one commit. `before` is None for a new file, `after` for a removed one.

    The trailers are what the commit message says; only the trees prove anything. In a merge, `before` is the
    first parent's, and what any parent has already is not the merge's doing.
    """

    commit: str
    author: str
    time: datetime
    file: str
    trailers: Mapping[str, str]
    moved: Mapping[str, str]
    """The ids that the commit says it changed, old to new."""
    _blobs: tuple[str | None, str | None] = field(repr=False)
    _other_parents: tuple[str | None, ...] = field(repr=False)
    _read: Callable[[str], str] = field(repr=False)
    _load: Callable[[str], Conversation] = field(repr=False)

    @property
    def operation(self) -> str | None:
        """What the commit says was done ("reply", "edit", ...); None where another program made it."""
        return self.trailers.get(OPERATION)

    @property
    def message(self) -> str | None:
        """The id of the message that the commit says it is about."""
        return self.trailers.get(MESSAGE)

    @property
    def before_text(self) -> str | None:
        """The file in the commit's first parent, unread: cheaper than `before` where a search is enough."""
        return self._read(self._blobs[0]) if self._blobs[0] else None

    @property
    def after_text(self) -> str | None:
        """The file in the commit, unread."""
        return self._read(self._blobs[1]) if self._blobs[1] else None

    @cached_property
    def before(self) -> Conversation | None:
        """The conversation in the commit's first parent."""
        return self._load(self._blobs[0]) if self._blobs[0] else None

    @cached_property
    def after(self) -> Conversation | None:
        """The conversation in the commit."""
        return self._load(self._blobs[1]) if self._blobs[1] else None

    @cached_property
    def _before_all(self) -> tuple[dict[str, Message], ...]:
        """The messages of every parent by id, the first parent's first."""
        others = (self._load(blob) if blob else None for blob in self._other_parents)
        return tuple(
            {message.id: message for message in _messages(parent)} for parent in (self.before, *others)
        )

    @property
    def is_merge(self) -> bool:
        """Whether the commit has several parents."""
        return bool(self._other_parents)

    @property
    def before_any(self) -> tuple[Message, ...]:
        """Every message that stood in a parent; as it was in the first of those that had it."""
        found: dict[str, Message] = {}
        for parent in reversed(self._before_all):
            found |= parent
        return tuple(found.values())

    @cached_property
    def added(self) -> tuple[Message, ...]:
        """Messages that the commit brought, in file order."""
        return tuple(
            message
            for message in _messages(self.after)
            if not any(message.id in parent for parent in self._before_all)
        )

    @cached_property
    def removed(self) -> tuple[Message, ...]:
        """Messages that the commit took away, as they were."""
        gone = {message.id for message in _messages(self.after)}
        return tuple(
            message
            for message in self._before_all[0].values()
            if message.id not in gone and all(message.id in parent for parent in self._before_all[1:])
        )

    @cached_property
    def edited(self) -> tuple[tuple[Message, Message], ...]:
        """Messages whose body the commit changed: as they were, as they became."""
        pairs: list[tuple[Message, Message]] = []
        for new in _messages(self.after):
            olds = [parent[new.id] for parent in self._before_all if new.id in parent]
            if olds and all(old.source != new.source and old.body != new.body for old in olds):
                pairs.append((olds[0], new))
        return tuple(pairs)


def _messages(conversation: Conversation | None) -> tuple[Message, ...]:
    return conversation.messages if conversation else ()


def decode(data: bytes) -> str:
    """A file's bytes as text; bytes that are not UTF-8 survive as surrogates, so `encode` gives them back."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The inverse of `decode`."""
    return text.encode("utf-8", "surrogateescape")


def changes_between(
    git: pygit2.Repository,
    since: pygit2.Oid | None,
    head: pygit2.Oid,
    file: str | None,
    known: Callable[[str], Conversation] | None = None,
) -> Iterator[Change]:
    """Every change of a conversation in the commits reachable from `head` and not from `since`, oldest first.

    A merge counts only where its result is none of its parents' versions. `known` gives the conversation in a
    blob, where it was read before.
    """

    @lru_cache(maxsize=_TEXTS_KEPT)  # what a commit left is what the next one found
    def read(blob: str) -> str:
        return decode(git[blob].data)

    @lru_cache(maxsize=_PARSED_KEPT)
    def load(blob: str) -> Conversation:
        return parse(read(blob))

    walker = git.walk(head, SortMode.TOPOLOGICAL | SortMode.TIME | SortMode.REVERSE)
    if since is not None:
        walker.hide(since)
    for commit in walker:
        trailers, moved = dict(commit.message_trailers), moved_ids(commit.message)
        trailers.pop(MOVED, None)
        for path, blobs in _changed_files(git, commit):
            if file not in (None, path):
                continue
            others = tuple(blob_at(parent.tree, path) for parent in commit.parents[1:])
            yield Change(
                str(commit.id),
                commit.author.name,
                author_time(commit),
                path,
                trailers,
                moved,
                blobs,
                others,
                read,
                known or load,
            )


def author_time(commit: pygit2.Commit) -> datetime:
    """When the commit's author made it, in UTC."""
    zone = timezone(timedelta(minutes=commit.author.offset))
    return datetime.fromtimestamp(commit.author.time, zone).astimezone(UTC)


def _changed_files(
    git: pygit2.Repository, commit: pygit2.Commit
) -> Iterator[tuple[str, tuple[str | None, str | None]]]:
    parents = commit.parents
    diff = git.diff(parents[0].tree, commit.tree) if parents else commit.tree.diff_to_tree(swap=True)
    for delta in diff.deltas:
        path = delta.new_file.path
        if not is_conversation(path):
            continue
        before = None if delta.status == DeltaStatus.ADDED else str(delta.old_file.id)
        after = None if delta.status == DeltaStatus.DELETED else str(delta.new_file.id)
        if not any(blob_at(parent.tree, path) == after for parent in parents[1:]):
            yield path, (before, after)


def blob_at(tree: pygit2.Tree, path: str) -> str | None:
    """The id of the regular file at this path of a tree, None if there is none."""
    try:
        entry = tree[path]
    except KeyError:
        return None
    regular = entry.filemode in (pygit2.enums.FileMode.BLOB, pygit2.enums.FileMode.BLOB_EXECUTABLE)
    return str(entry.id) if regular else None
