"""Files that become visible together with a commit: written aside, flushed all at once, renamed in order.

A busy disk takes about as long to flush one file as to flush several that are asked for at the same time.
"""

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

_SLOW_SECONDS = 0.0005
"""A disk that takes longer to flush one file is asked for the others all at once; threads cost as much."""


_RENAME_TRIES = 10


@dataclass(frozen=True, slots=True)
class _File:
    descriptor: int
    aside: Path
    place: Path


class Staged:
    """Files on their way. Leaving the block closes all, and removes those that were not put in place."""

    def __init__(self) -> None:
        self._files: list[_File] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files:
            os.close(file.descriptor)
            file.aside.unlink(missing_ok=True)

    def write(self, aside: Path, place: Path, data: bytes, mode: int) -> None:
        """Write a new file aside; `FileExistsError` if there is one."""
        descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        self._files.append(_File(descriptor, aside, place))
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(descriptor, left) :]
        except OSError:
            os.close(self._files.pop().descriptor)
            aside.unlink(missing_ok=True)
            raise

    def flush(self) -> None:
        """Make all that was written survive a power cut; OSError if the disk does not take one of them."""
        begun = time.monotonic()
        for file in self._files[:1]:
            os.fsync(file.descriptor)
        if time.monotonic() - begun < _SLOW_SECONDS:
            for file in self._files[1:]:
                os.fsync(file.descriptor)
        else:
            _sync_together([file.descriptor for file in self._files[1:]])

    @property
    def places(self) -> tuple[Path, ...]:
        """Where the files wait to be put, in the order of writing."""
        return tuple(file.place for file in self._files)

    def put(self, *places: Path) -> None:
        """Rename the files for these places into them, in this order."""
        for place in places:
            file = next(file for file in self._files if file.place == place)
            _rename(file.aside, place)
            self._files.remove(file)
            os.close(file.descriptor)


def _sync_together(descriptors: Sequence[int]) -> None:
    errors: list[OSError] = []

    def sync(descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=sync, args=(descriptor,)) for descriptor in descriptors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _rename(aside: Path, place: Path) -> None:
    """Rename, into a folder that is made if it is not there; others may take it away while it is empty."""
    for _ in range(_RENAME_TRIES):
        try:
            aside.replace(place)
        except FileNotFoundError:
            place.parent.mkdir(parents=True, exist_ok=True)
        else:
            return
    aside.replace(place)
