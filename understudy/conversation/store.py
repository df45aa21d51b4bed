"""Git underneath, writing: files committed by compare-and-swap, the working tree kept in step."""

import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pygit2
from pygit2.enums import FileMode

from understudy.conversation.errors import (
    FileThere,
    RepositoryBusy,
    RepositoryFailure,
)
from understudy.conversation.files import (
    FOLDER,
    STATE_FOLDER,
    write_whole,
    writers_lock,
)
from understudy.conversation.history import blob_at
from understudy.conversation.objects import Piece, stage_object
from understudy.conversation.references import advance
from understudy.conversation.staging import Staged
from understudy.conversation.working_tree import WorkingTree

EMAIL_DOMAIN = "understudy.local"
WAIT_SECONDS = 30.0
"""How long a writer waits for others before `RepositoryBusy`; an operation takes milliseconds."""

_RETRY_SECONDS = 0.01
_DEAD_LOCK_SECONDS = 1.0
"""A lock that a dead writer may have left has to stand unchanged this long; Git holds one for moments."""

_LOCKED = re.compile(r"failed to lock file '.*' for writing|File exists", re.DOTALL)
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


class GitStore(WorkingTree):
    """One workspace's repository. Safe across threads and processes."""

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

    @contextmanager
    def writing(self, wait_seconds: float = WAIT_SECONDS) -> Iterator[None]:
        """Be the only writer of this workspace among those that use this class."""
        with writers_lock(self.root / STATE_FOLDER / "writers.lock", wait_seconds) as last_died:
            if last_died:
                self._remove_dead_locks()
            yield

    def _remove_dead_locks(self) -> None:
        """Take away Git's locks that a writer left when it died: those that stand unchanged for a while."""
        git_folder = self.git_folder
        names = ("index.lock", "HEAD.lock", "packed-refs.lock", f"{self.branch}.lock")
        deadline = time.monotonic() + _DEAD_LOCK_SECONDS
        found = {path: _identity(path) for path in (git_folder / name for name in names)}
        while waiting := {path for path, seen in found.items() if seen and _identity(path) == seen}:
            if time.monotonic() > deadline:
                for path in waiting:
                    _log.warning("a writer died and left %s: removed", path)
                    path.unlink(missing_ok=True)
                return
            time.sleep(_RETRY_SECONDS)

    def commit(
        self,
        files: Mapping[str, bytes | None],
        author: Person,
        authored: datetime,
        committed: datetime,
        message: str,
        parent: str | None,
        wait_seconds: float = WAIT_SECONDS,
        pieces: Mapping[str, Sequence[Piece]] | None = None,
    ) -> str | None:
        """Commit these contents (None: removed) on top of `parent`; None if the branch has moved on.

        `pieces`, where given, are those of a file's bytes, compressed already.
        """
        deadline = time.monotonic() + wait_seconds
        while True:
            with Staged() as staged:
                try:
                    tree = self._tree_with(parent, files, pieces or {}, staged)
                    commit = self._advance(
                        author.at(authored), author.at(committed), message, tree, parent, files, staged
                    )
                except (pygit2.GitError, OSError, ValueError) as error:
                    if self.tip() != parent:
                        return None
                    self._raise_unless_locked(error, deadline, wait_seconds)
                else:
                    if commit is not None:
                        self._follow(files, parent, commit, staged)
                    return commit
            time.sleep(_RETRY_SECONDS)

    def _raise_unless_locked(self, error: Exception, deadline: float, wait_seconds: float) -> None:
        if not (isinstance(error, FileExistsError) or _LOCKED.search(str(error))):
            raise RepositoryFailure(f"Git could not commit, nothing was written: {error}") from error
        if time.monotonic() > deadline:
            raise RepositoryBusy(
                f"Git's branch stayed locked for {wait_seconds:g} s, nothing was written: {error}; "
                "if no Git program runs there, remove that .lock file"
            ) from error

    def _follow(
        self, files: Mapping[str, bytes | None], parent: str | None, commit: str, staged: Staged
    ) -> None:
        """Let the working tree follow a commit. That stands already, so failing is no more than a warning."""
        try:
            self.settle(files, known=parent, staged=staged)
        except (pygit2.GitError, OSError) as error:
            _log.warning("committed %s; the working files follow with the next operation: %s", commit, error)

    def _advance(
        self,
        author: pygit2.Signature,
        committer: pygit2.Signature,
        message: str,
        tree: str,
        parent: str | None,
        files: Mapping[str, bytes | None],
        staged: Staged,
    ) -> str | None:
        """Make the commit and let the branch point to it; None if the branch does not point to `parent`."""
        if parent is None:
            oid = pygit2.Oid(hex=tree)
            return str(self.git.create_commit(self.branch, author, committer, message, oid, []))
        names = [f"{person.name} <{person.email}> {person.time} +0000" for person in (author, committer)]
        text = f"tree {tree}\nparent {parent}\nauthor {names[0]}\ncommitter {names[1]}\n\n{message}"
        commit = stage_object(staged, self.git_folder / "objects", "commit", text.encode())
        if len(files) == 1:
            self.stage_working_file(*next(iter(files.items())), staged)
        entry = f"{names[1]}\tcommit: {message.splitlines()[0]}"
        moved = advance(self.git_folder, self.branch, self.tip, parent, commit, entry, staged)
        return commit if moved else None

    def _tree_with(
        self,
        parent: str | None,
        files: Mapping[str, bytes | None],
        pieces: Mapping[str, Sequence[Piece]],
        staged: Staged,
    ) -> str:
        objects = self.git_folder / "objects"
        blobs: dict[str, str | None] = {}
        for file, data in files.items():
            blobs[file] = None
            if data is not None:
                blobs[file] = blob = stage_object(staged, objects, "blob", data, pieces.get(file))
                self.remember(blob, data)
        tree = self.tree(parent)
        if tree is not None and len(blobs) == 1:
            [(file, one)] = blobs.items()
            if (
                one
                and blob_at(tree, file)
                and (quick := self._with_entry(tree, file.split("/"), one, staged))
            ):
                return quick
        staged.flush()
        staged.put(*staged.places)
        index = pygit2.Index()
        if tree is not None:
            index.read_tree(tree)
        for file, blob_id in blobs.items():
            if blob_id is None:
                index.remove(file)
            else:
                index.add(pygit2.IndexEntry(file, pygit2.Oid(hex=blob_id), FileMode.BLOB))
        return str(index.write_tree(self.git))

    def _with_entry(self, tree: pygit2.Tree, path: Sequence[str], blob: str, staged: Staged) -> str | None:
        """The tree with another blob where there is one: only the trees on its path are written.

        None where this shortcut does not hold.
        """
        entry = tree[path[0]]
        new = self._with_entry(self.git[entry.id], path[1:], blob, staged) if path[1:] else blob
        name = b" " + path[0].encode() + b"\0"
        raw = tree.read_raw()
        if new is None or raw.count(name + entry.id.raw) != 1:
            return None
        changed = raw.replace(name + entry.id.raw, name + bytes.fromhex(new))
        return stage_object(staged, self.git_folder / "objects", "tree", changed)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_mtime_ns
