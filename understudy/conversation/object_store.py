"""Git underneath, reading: commits, trees and blobs, by libgit2."""

import threading
import time
from collections import OrderedDict
from pathlib import Path

import pygit2
from pygit2.enums import ReferenceType, RepositoryOpenFlag

from understudy.conversation.errors import NotAWorkspace, UnknownRevision
from understudy.conversation.files import FOLDER, STATE_FOLDER, is_conversation
from understudy.conversation.history import blob_at

_CONTENTS_KEPT = 6
_SURE_NANOSECONDS = 50_000_000  # file systems count time in ticks of up to 10 ms


class ObjectStore:
    """What one workspace's repository holds. Safe across threads: each has its own handle."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._handles = threading.local()
        self._contents: OrderedDict[str, bytes] = OrderedDict()
        self._contents_lock = threading.Lock()
        self._hashes: dict[Path, tuple[tuple[int, ...], str]] = {}
        pygit2.settings.enable_fsync_gitdir(True)  # a commit that was acknowledged survives a power cut
        if self.git.is_bare:
            raise NotAWorkspace(f"{root} is a bare repository: a workspace has its files checked out")

    @property
    def git(self) -> pygit2.Repository:
        """This thread's handle."""
        if not hasattr(self._handles, "git"):
            try:
                self._handles.git = pygit2.Repository(str(self.root), RepositoryOpenFlag.NO_SEARCH)
            except pygit2.GitError as error:
                raise NotAWorkspace(
                    f"{self.root} is not a workspace, no Git repository opens there ({error}): make one first"
                ) from error
        return self._handles.git

    @property
    def git_folder(self) -> Path:
        """Where Git keeps its own."""
        return Path(self.git.path)

    @property
    def scratch(self) -> Path:
        """Where files are written before they are renamed into place."""
        return self.root / STATE_FOLDER / "scratch"

    @property
    def branch(self) -> str:
        """The branch that is checked out."""
        head = self.git.lookup_reference("HEAD")
        if head.type != ReferenceType.SYMBOLIC:
            raise NotAWorkspace(f"{self.root} has no branch checked out: run 'git switch main' there")
        return str(head.target)

    def tip(self) -> str | None:
        """The newest commit, None before the first."""
        reference = self.git.references.get(self.branch)
        return str(reference.target) if reference else None

    def tree(self, commit: str | None) -> pygit2.Tree | None:
        """A commit's tree."""
        return self.git[commit].tree if commit else None

    def blob_id(self, file: str, commit: str | None) -> str | None:
        """The file's blob in a commit, None if it is not there."""
        tree = self.tree(commit)
        return blob_at(tree, file) if tree else None

    def committed_files(self, commit: str | None) -> set[str]:
        """The conversations in a commit."""
        tree = self.tree(commit)
        if tree is None or FOLDER not in tree:
            return set()
        index = pygit2.Index()
        index.read_tree(tree)
        return {entry.path for entry in index if is_conversation(entry.path) and blob_at(tree, entry.path)}

    def data(self, blob: str) -> bytes:
        """A blob's bytes."""
        with self._contents_lock:
            known = self._contents.get(blob)
        if known is None:
            known = bytes(self.git[blob].data)
            self.remember(blob, known)
        return known

    def remember(self, blob: str, data: bytes) -> None:
        """Keep a blob's bytes for a while."""
        with self._contents_lock:
            self._contents[blob] = data
            self._contents.move_to_end(blob)
            while len(self._contents) > _CONTENTS_KEPT:
                self._contents.popitem(last=False)

    def hash_of(self, path: Path) -> str | None:
        """The blob id that a working file's bytes have, None if there is no such file.

        A file is not read again while its inode, size and times stand, unless they are so young that a
        change since could have left them as they are.
        """
        try:
            stands = path.stat()
            now = (stands.st_ino, stands.st_size, stands.st_mtime_ns, stands.st_ctime_ns)
            known = self._hashes.get(path)
            if known is not None and known[0] == now:
                return known[1]
            found = path.read_bytes()
        except FileNotFoundError:
            return None
        with self._contents_lock:
            blob = next((blob for blob, data in self._contents.items() if data == found), None)
        blob = blob or str(pygit2.hash(found))
        if time.time_ns() - max(now[2:]) > _SURE_NANOSECONDS:
            self._hashes[path] = (now, blob)
        return blob

    def resolve(self, revision: str) -> pygit2.Object:
        """The commit or blob of this name, or `UnknownRevision`."""
        try:
            found = self.git.revparse_single(revision)
            if isinstance(found, pygit2.Tag):
                found = found.peel(pygit2.Commit)
        except (KeyError, ValueError, pygit2.GitError) as error:
            raise UnknownRevision(f"{revision!r} names no commit or blob of this repository") from error
        if not isinstance(found, (pygit2.Commit, pygit2.Blob)):
            raise UnknownRevision(f"{revision!r} is a {found.type_str}: a commit or a blob was expected")
        return found
