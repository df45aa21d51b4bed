"""The working tree: kept in step with the commits, without ever overwriting what a person's hand did.

Git's index is the record of what the working tree was last given: a working file that differs from `HEAD` but
is a version that history holds, not older than the index's, was left behind by a crash and is brought up to
date; any other difference is the work of a person's hand.
"""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, SortMode

from understudy.conversation.files import (
    FOLDER,
    aside_of,
    inside,
    is_conversation,
    mode_of,
    write_whole,
)
from understudy.conversation.history import blob_at
from understudy.conversation.object_store import ObjectStore
from understudy.conversation.staging import Staged

_log = logging.getLogger(__name__)


class WorkingTree(ObjectStore):
    """A repository with its files checked out."""

    def stage_working_file(self, file: str, data: bytes | None, staged: Staged) -> None:
        """Prepare a conversation's working file, to be flushed with a commit; `settle` puts it in place."""
        if data is None or not is_conversation(file):
            return
        path = inside(self.root, file)
        try:
            aside = aside_of(path, self.scratch)
            staged.write(aside, path, data, mode_of(path))
        except OSError as error:
            _log.warning("%s could not be written with its commit: %s", file, error)

    def settle(self, files: Iterable[str], known: str | None, staged: Staged | None = None) -> None:
        """Give the working tree and the index what `HEAD` has of these files.

        A working file that is neither `HEAD`'s version nor that of the commit `known` is a person's, and
        stays.
        """
        tip = self.tip()
        index = self._index()
        for file in files:
            path = inside(self.root, file) if is_conversation(file) else self.root / file
            wanted, earlier, found = self.blob_id(file, tip), self.blob_id(file, known), self.hash_of(path)
            indexed = str(index[file].id) if file in index else None
            is_ours = found in (None, earlier) or self._left_behind(file, found, indexed, tip)
            if wanted and found != wanted and is_ours:
                if staged is not None and path in staged.places:
                    staged.put(path)  # flushed; that rename reaches the disk no later than the index's below
                else:
                    write_whole(path, self.data(wanted), self.scratch)
            if wanted:
                index.add(pygit2.IndexEntry(file, pygit2.Oid(hex=wanted), FileMode.BLOB))
            elif file in index:
                index.remove(file)
        index.write()

    def _index(self) -> pygit2.Index:
        """Git's index as it is now; one that cannot be read is set aside, for it can be made again."""
        try:
            index = self.git.index
            index.read()
        except (pygit2.GitError, OSError) as error:
            path = self.git_folder / "index"
            aside = path.with_name("index.damaged")
            _log.warning("Git's index is damaged (%s): moved to %s, and made anew", error, aside)
            path.replace(aside)
            index = self.git.index
            index.read()
            if (tree := self.tree(self.tip())) is not None:
                index.read_tree(tree)
                index.write()
        return index

    def hand_edits(self, files: Iterable[str], deletions: bool) -> dict[str, bytes | None]:
        """What people left uncommitted in these files; what a crash left is brought up to date first."""
        tip = self.tip()
        index = self._index()
        edits: dict[str, bytes | None] = {}
        for file in files:
            path = inside(self.root, file)
            head, found = self.blob_id(file, tip), self.hash_of(path)
            staged = str(index[file].id) if file in index else None
            if found == head == staged:
                continue
            if found == head or self._left_behind(file, found, staged, tip):
                self._bring_up_to_date(file, path, head)
            elif found is not None:
                edits[file] = path.read_bytes()
            elif deletions:
                edits[file] = None
            elif head:
                self._bring_up_to_date(file, path, head)
        return edits

    def _left_behind(self, file: str, found: str | None, staged: str | None, tip: str | None) -> bool:
        """Whether a working file is a version that history holds, and the index's is no newer one."""
        if found is None or tip is None or found not in self.git:
            return False
        for commit in self._newest_first(tip):
            blob = blob_at(commit.tree, file)
            if blob == found:
                return staged in (found, None) or self._held(file, staged, str(commit.id))
            if blob == staged:
                return False
        return False

    def _held(self, file: str, blob: str, tip: str) -> bool:
        return any(blob_at(commit.tree, file) == blob for commit in self._newest_first(tip))

    def _newest_first(self, tip: str) -> Iterator[pygit2.Commit]:
        yield from self.git.walk(tip, SortMode.TOPOLOGICAL | SortMode.TIME)

    def _bring_up_to_date(self, file: str, path: Path, head: str | None) -> None:
        try:
            if head is None:
                path.unlink(missing_ok=True)
            elif self.hash_of(path) != head:
                write_whole(path, self.data(head), self.scratch)
            self.settle([file], known=None)
        except (pygit2.GitError, OSError) as error:
            _log.warning("%s is behind the newest commit and follows later: %s", file, error)

    def working_files(self) -> set[str]:
        """The conversations that stand in the working tree."""
        found = (path.relative_to(self.root).as_posix() for path in (self.root / FOLDER).rglob("*"))
        return {file for file in found if is_conversation(file) and (self.root / file).is_file()}
