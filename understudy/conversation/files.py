"""Files on disk: which paths are conversations, one writer at a time, writes that are whole or not at all."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from understudy.conversation.errors import InvalidPath, RepositoryBusy

FOLDER = "conversations"
SUFFIX = ".md"
STATE_FOLDER = ".understudy"
"""Ours, not in Git: the writers' lock, the journal, temporary files."""

_LOCK_RETRY_SECONDS = 0.002


def valid_path(file: str) -> str:
    """The path of a conversation relative to the workspace's root, or `InvalidPath`.

    Forward slashes, inside `conversations/`, ending in `.md`, no part that is hidden or leads upwards.
    """
    parts = file.split("/")
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
    scratch.mkdir(parents=True, exist_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666
    aside = scratch / f"{path.name}.{os.getpid()}.{time.monotonic_ns()}"
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


def sync_folder(folder: Path) -> None:
    """Make a rename or removal in this folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writers_lock(path: Path, wait_seconds: float) -> Iterator[None]:
    """Be the only holder among processes and threads; the system frees the lock when its holder dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + wait_seconds
    with path.open("ab") as stream:
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
        yield
