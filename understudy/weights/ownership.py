"""One server and one trainer for each model directory."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from understudy.weights.errors import HistoryBusy
from understudy.weights.records import FOLDER

_LOOK_SECONDS = 0.05
_OWNED = "lock"


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold a model directory for this process and the trainer it starts; the kernel lets go when it ends.

    Raises HistoryBusy when another process holds it.
    """
    with _held(directory, _OWNED, "served and taught", 0.0):
        yield


def last_owner(directory: Path) -> int | None:
    """The process that holds a model directory, or that held it last; None before the first."""
    try:
        return int((directory / FOLDER / _OWNED).read_text())
    except (FileNotFoundError, ValueError):
        return None


@contextmanager
def teaching(directory: Path, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Be the one process that writes this model directory's weights and their history.

    Raises HistoryBusy when another one is, and still is after `wait_seconds`. A trainer outlives its
    killed server by a moment: whoever comes next waits for it here.
    """
    with _held(directory, "trainer.lock", "being trained", wait_seconds):
        yield


@contextmanager
def _held(directory: Path, name: str, how: str, wait_seconds: float) -> Iterator[None]:
    folder = directory / FOLDER
    folder.mkdir(exist_ok=True)
    until = time.monotonic() + wait_seconds
    handle = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while not _locked(handle):
            if time.monotonic() >= until:
                holder = os.pread(handle, 20, 0).decode() or "unknown"
                raise HistoryBusy(
                    f"{directory} is {how} by process {holder}: two would overwrite each other's weights; "
                    "stop that one, or give this workspace a copy (`understudy init --copy`)"
                )
            time.sleep(_LOOK_SECONDS)
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def _locked(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
