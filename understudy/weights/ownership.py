"""One writer for each model directory."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from understudy.weights.errors import HistoryBusy


@contextmanager
def owned(directory: Path) -> Iterator[None]:
    """Hold a model directory for this process and the trainer it starts; the kernel lets go when it ends.

    Raises HistoryBusy when another process holds it.
    """
    folder = directory / ".understudy"
    folder.mkdir(exist_ok=True)
    handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(handle, 20).decode() or "unknown"
            raise HistoryBusy(
                f"{directory} is being served and taught by process {holder}: two would overwrite each "
                "other's weights; stop that one, or give this workspace a copy (`understudy init --copy`)"
            ) from error
        os.truncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)
