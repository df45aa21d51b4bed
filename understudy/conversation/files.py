"""Files on disk: which paths are conversations, one writer at a time, writes that are whole or not at all."""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path, PurePosixPath

from understudy.conversation.errors import InvalidPath, RepositoryBusy

FOLDER = "conversations"
SUFFIX = ".md"
STATE_FOLDER = ".understudy"
"""Ours, not in Git: the writers' lock, the journal, temporary files."""

MOST_PART_BYTES = 200
"""Of a file's or folder's name: file systems take 255, and while it is written a file has a longer name."""
MOST_PATH_BYTES = 1000

_LOCK_RETRY_SECONDS = 0.002

_log = logging.getLogger(__name__)


def valid_path(file: str) -> str:
    """The path of a conversation relative to the workspace's root, or `InvalidPath`.

    Forward slashes, inside `conversations/`, ending in `.md`, no part that is hidden or leads upwards, none
    longer than a file system takes.
    """
    parts = file.split("/")
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in parts]
    if max(sizes) > MOST_PART_BYTES or sum(sizes) + len(parts) > MOST_PATH_BYTES:
        raise InvalidPath(
            f"a conversation's name has up to {MOST_PART_BYTES} bytes between two slashes and "
            f"{MOST_PATH_BYTES} in all; got {max(sizes)} and {sum(sizes) + len(parts)}: {file[:80]!r}..."
        )
    plain = all(
        part and not part.startswith(".") and part.isprintable() and "\\" not in part for part in parts
    )
    is_file_below = any(part.endswith(SUFFIX) for part in parts[:-1])
    if len(parts) < 2 or parts[0] != FOLDER or not file.endswith(SUFFIX) or not plain or is_file_below:
        raise InvalidPath(
            f"a conversation is named like '{FOLDER}/name{SUFFIX}', relative to the workspace, "
            f"without hidden or '..' parts; got {file!r}"
        )
    return file


def is_conversation(file: str) -> bool:
    """Whether a path found in a tree or a folder names a conversation."""
    try:
        valid_path(file)
    except InvalidPath:
        return False
    return True


def inside(root: Path, file: str) -> Path:
    """Where this conversation stands on disk; `InvalidPath` if a symbolic link leads elsewhere."""
    path = root.joinpath(*PurePosixPath(valid_path(file)).parts)
    if path.is_symlink() or path.parent.resolve() != root.resolve().joinpath(
        *PurePosixPath(file).parent.parts
    ):
        raise InvalidPath(f"{file!r} leads out of {root / FOLDER} by a symbolic link: name the file itself")
    return path


def write_whole(path: Path, data: bytes, scratch: Path) -> None:
    """Write aside (in `scratch`, on the same file system), fsync, rename, fsync the folder."""
    aside, mode = aside_of(path, scratch), mode_of(path)
    try:
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def aside_of(path: Path, scratch: Path) -> Path:
    """Where to write a file before it is renamed to `path`; makes the folders of both."""
    scratch.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    return scratch / f"{path.name}.{os.getpid()}.{time.monotonic_ns()}"


def mode_of(path: Path) -> int:
    """The permissions that a file keeps when it is written anew."""
    return path.stat().st_mode & 0o777 if path.exists() else 0o666


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writers_lock(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Be the only holder among processes and threads; the system frees the lock when its holder dies.

    Gives whether the last holder died while it held the lock: a holder's mark stands in the file until it
    lets go.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("ab", buffering=0) as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise RepositoryBusy(
                        f"another writer held {path} for {wait_seconds:g} s; nothing was written: try again"
                    ) from error
                time.sleep(_LOCK_RETRY_SECONDS)
        died = os.fstat(stream.fileno()).st_size > 0
        _mark(stream)
        try:
            yield died
        finally:
            os.ftruncate(stream.fileno(), 0)


def _mark(stream: FileIO) -> None:
    try:
        stream.write(b"held\n")
    except OSError as error:  # a full disk takes no mark: then the work itself will tell
        _log.warning("no mark in the writers' lock, what a crash leaves has to be removed by hand: %s", error)
