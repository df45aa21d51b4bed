"""Git underneath: reading blobs, committing files by compare-and-swap, keeping the working tree in step.

Git's index is the record of what the working tree was last given: a working file that differs from `HEAD` but
equals its index entry, in a version that history holds, was left behind by a crash and is brought up to date;
any other difference is the work of a person's hand, and is never overwritten.
"""

import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pygit2
from pygit2.enums import FileMode, ReferenceType, RepositoryOpenFlag, SortMode

from understudy.conversation.errors import (
    FileThere,
    NotAWorkspace,
    RepositoryBusy,
    RepositoryFailure,
    UnknownRevision,
)
from understudy.conversation.files import (
    FOLDER,
    STATE_FOLDER,
    inside,
    is_conversation,
    write_whole,
    writers_lock,
)
from understudy.conversation.history import blob_at

BRANCH = "refs/heads/main"
EMAIL_DOMAIN = "understudy.local"
WAIT_SECONDS = 30.0
"""How long a writer waits for others before `RepositoryBusy`; an operation takes milliseconds."""

_RETRY_SECONDS = 0.01
_IGNORED = f"{STATE_FOLDER}/\nmodel/\n"
_ATTRIBUTES = f"{FOLDER}/** -text\n"  # line endings are content here, whatever a person's Git is set to

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Person:
    """Who a commit is by."""

    name: str
    email: str

    @classmethod
    def named(cls, name: str, email: str | None = None) -> "Person":
        """A person with this e-mail, or with one made from the name."""
        return cls(name, email or f"{name}@{EMAIL_DOMAIN}")

    def at(self, moment: datetime) -> pygit2.Signature:
        """The person's signature at this time."""
        return pygit2.Signature(self.name, self.email, int(moment.timestamp()), 0, "utf-8")


class GitStore:
    """One workspace's repository. Safe across threads and processes: each thread has its own handle."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._handles = threading.local()
        pygit2.settings.enable_fsync_gitdir(True)  # a commit that was acknowledged survives a power cut
        if self.git.is_bare:
            raise NotAWorkspace(f"{root} is a bare repository: a workspace has its files checked out")

    @classmethod
    def create(cls, root: Path, author: Person, moment: datetime) -> "GitStore":
        """Make the repository with its first commit; `FileThere` if there is one."""
        if (root / ".git").exists():
            raise FileThere(f"{root} is a Git repository already: open it instead")
        (root / FOLDER).mkdir(parents=True, exist_ok=True)
        git = pygit2.init_repository(str(root), initial_head="main")
        git.config["core.autocrlf"] = False
        git.config["core.quotePath"] = False
        store = cls(root)
        first = {".gitignore": _IGNORED.encode(), ".gitattributes": _ATTRIBUTES.encode()}
        for name, data in first.items():
            if not (root / name).exists():
                write_whole(root / name, data, store.scratch)
        files = {name: (root / name).read_bytes() for name in first}
        with store.writing():
            store.commit(files, author, moment, moment, "a new workspace\n", None)
        return store

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

    def data(self, blob: str) -> bytes:
        """A blob's bytes."""
        return bytes(self.git[blob].data)

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

    @contextmanager
    def writing(self, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Be the only writer of this workspace among those that use this class."""
        with writers_lock(self.root / STATE_FOLDER / "writers.lock", wait_seconds):
            yield

    def commit(
        self,
        files: Mapping[str, bytes | None],
        author: Person,
        authored: datetime,
        committed: datetime,
        message: str,
        parent: str | None,
        wait_seconds: float = WAIT_SECONDS,
    ) -> str | None:
        """Commit these contents (None: removed) on top of `parent`; None if the branch has moved on."""
        deadline = time.monotonic() + wait_seconds
        while True:
            try:
                tree = self._tree_with(parent, files)
                commit = self.git.create_commit(
                    self.branch,
                    author.at(authored),
                    author.at(committed),
                    message,
                    tree,
                    [parent] if parent else [],
                )
                break
            except (pygit2.GitError, OSError, ValueError) as error:
                if self.tip() != parent:
                    return None
                if "lock" not in str(error):
                    raise RepositoryFailure(f"Git could not commit, nothing was written: {error}") from error
                if time.monotonic() > deadline:
                    raise RepositoryBusy(
                        f"Git's branch stayed locked for {wait_seconds:g} s, nothing was written: {error}; "
                        "if no Git program runs there, remove that .lock file"
                    ) from error
                time.sleep(_RETRY_SECONDS)
        try:
            self.settle(files, known=parent)
        except (pygit2.GitError, OSError) as error:
            _log.warning("committed %s; the working files follow with the next operation: %s", commit, error)
        return str(commit)

    def _tree_with(self, parent: str | None, files: Mapping[str, bytes | None]) -> pygit2.Oid:
        index = pygit2.Index()
        tree = self.tree(parent)
        if tree is not None:
            index.read_tree(tree)
        for file, data in files.items():
            if data is None:
                index.remove(file)
            else:
                index.add(pygit2.IndexEntry(file, self.git.create_blob(data), FileMode.BLOB))
        return index.write_tree(self.git)

    def settle(self, files: Iterable[str], known: str | None) -> None:
        """Give the working tree and the index what `HEAD` has of these files.

        A working file that is neither `HEAD`'s version nor that of the commit `known` is a person's, and
        stays.
        """
        tip = self.tip()
        index = self.git.index
        index.read()
        for file in files:
            path = inside(self.root, file) if is_conversation(file) else self.root / file
            wanted, earlier, found = self.blob_id(file, tip), self.blob_id(file, known), hash_of(path)
            if wanted and found != wanted and found in (None, earlier):
                write_whole(path, self.data(wanted), self.scratch)
            if wanted:
                index.add(pygit2.IndexEntry(file, pygit2.Oid(hex=wanted), FileMode.BLOB))
            elif file in index:
                index.remove(file)
        index.write()

    def hand_edits(self, files: Iterable[str], deletions: bool) -> dict[str, bytes | None]:
        """What people left uncommitted in these files; what a crash left is brought up to date first."""
        tip = self.tip()
        index = self.git.index
        index.read()
        edits: dict[str, bytes | None] = {}
        for file in files:
            path = inside(self.root, file)
            head, found = self.blob_id(file, tip), hash_of(path)
            staged = str(index[file].id) if file in index else None
            if found == head:
                if staged != head:
                    self.settle([file], known=None)
            elif found == staged and self._in_history(file, staged, tip):
                self._refresh(file, path, head)
            elif found is not None:
                edits[file] = path.read_bytes()
            elif deletions:
                edits[file] = None
            elif head:
                self._refresh(file, path, head)
        return edits

    def _in_history(self, file: str, blob: str | None, tip: str | None) -> bool:
        walker = self.git.walk(tip, SortMode.TIME) if tip else ()
        return any(blob_at(commit.tree, file) == blob for commit in walker)

    def _refresh(self, file: str, path: Path, head: str | None) -> None:
        if head:
            write_whole(path, self.data(head), self.scratch)
        else:
            path.unlink(missing_ok=True)
        self.settle([file], known=None)

    def working_files(self) -> set[str]:
        """The conversations that stand in the working tree."""
        found = (path.relative_to(self.root).as_posix() for path in (self.root / FOLDER).rglob("*"))
        return {file for file in found if is_conversation(file) and (self.root / file).is_file()}

    def committed_files(self, commit: str | None) -> set[str]:
        """The conversations in a commit."""
        tree = self.tree(commit)
        if tree is None or FOLDER not in tree:
            return set()
        index = pygit2.Index()
        index.read_tree(tree)
        return {entry.path for entry in index if is_conversation(entry.path) and blob_at(tree, entry.path)}


def hash_of(path: Path) -> str | None:
    """The blob id that a working file's bytes have, None if there is no such file."""
    try:
        return str(pygit2.hash(path.read_bytes()))
    except FileNotFoundError:
        return None
