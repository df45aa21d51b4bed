"""Every write of a commit and of a sync, as a handful of operations.

One small object stands between the history and the file system, so that a test can write down what
was done and play back any part of it as a power cut would have left it.
"""

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from understudy.weights.errors import StorageFailed, WeightsError

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


class DiskFile:
    """A file that is being written; nothing of it is certain before `sync`."""

    def __init__(self, path: Path, handle: int) -> None:
        self.path = path
        self._handle = handle

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        """Write all of `data`; raises OSError when the disk takes less."""
        view = memoryview(data)
        while view:
            written = os.pwrite(self._handle, view, offset)
            view, offset = view[written:], offset + written

    def read_at(self, offset: int, size: int) -> bytes:
        """Up to `size` bytes; fewer where the file ends."""
        return os.pread(self._handle, size, offset)

    def sync(self) -> None:
        """Return when every byte written is on the disk."""
        os.fsync(self._handle)

    def close(self) -> None:
        os.close(self._handle)


class Disk:
    """The real file system."""

    @contextmanager
    def open(self, path: Path, *, fresh: bool, mode: int = 0o644) -> Iterator[DiskFile]:
        """Open for writing: an empty file when `fresh`, else one that is there."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if fresh else 0)
        file = DiskFile(path, os.open(path, flags, mode))
        try:
            yield file
        finally:
            file.close()

    def rename(self, source: Path, target: Path) -> None:
        """Give a file another name, in place of whatever had it."""
        source.replace(target)

    def exchange(self, one: Path, other: Path) -> bool:
        """Let two files change places in one step; False where the file system cannot."""
        libc = ctypes.CDLL(None, use_errno=True)
        try:
            renameat2 = libc.renameat2
        except AttributeError:
            return False
        if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
            return True
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            return False
        raise OSError(code, os.strerror(code), str(one))

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def make_directory(self, path: Path) -> None:
        """Make a directory if it is not there."""
        path.mkdir(exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """Return when every name in the directory is on the disk."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def replace(self, path: Path, data: bytes, mode: int = 0o644) -> None:
        """Give `path` new contents: aside, synced, renamed, and the name synced. Never half."""
        aside = path.with_name(f"{path.name}.new")
        try:
            with self.open(aside, fresh=True, mode=mode) as file:
                file.write_at(0, data)
                file.sync()
            self.rename(aside, path)
        except OSError:
            with suppress(OSError):
                self.remove(aside)
            raise
        self.sync_directory(path.parent)


def unshared(path: Path) -> bool:
    """Whether this file may be written over: a plain file with one name, that no process has open or mapped.

    A reader who mapped an earlier generation of the weights keeps it for as long as it likes. The kernel
    grants a write lease only on a file that no one else has open (fcntl(2), F_SETLEASE); where there are
    no leases the answer is no.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
            return False
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


@contextmanager
def storing(what: str, directory: Path) -> Iterator[None]:
    """Say of an error of the file system what was being written and where."""
    try:
        yield
    except OSError as error:
        if isinstance(error, WeightsError):
            raise
        reason = error.strerror or str(error)
        raise StorageFailed(
            error.errno or 0,
            f"{what} could not be written in {directory}: {reason}; the weights on disk are as they were "
            "before: make room or mend the disk, and ask again",
        ) from error
