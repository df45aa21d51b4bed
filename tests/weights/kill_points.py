"""`kill_points.py DIR N SEED`: kill a process that commits and syncs in a loop, N times, at random points.

torch is imported once; every writer is a fork of this process. Half of them die from outside after a
random time, half by their own hand in the middle of a random operation. Prints what was found, as JSON.
"""

import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from test_history import WHEN, same, stored, tensors

from understudy.weights import WeightHistory, read_commits, teaching, verify_history
from understudy.weights.disk import Disk, DiskFile


class DyingFile(DiskFile):
    """May die half way through a write."""

    def __init__(self, inner: DiskFile, disk: "DyingDisk") -> None:
        self.path = inner.path
        self._inner = inner
        self._disk = disk

    def write_at(self, offset: int, data: bytes | bytearray | memoryview) -> None:
        if self._disk.was_last():
            self._inner.write_at(offset, memoryview(data)[: len(data) // 2])
            die()
        self._inner.write_at(offset, data)

    def read_at(self, offset: int, size: int) -> bytes:
        return self._inner.read_at(offset, size)

    def sync(self) -> None:
        self._inner.sync()


class DyingDisk(Disk):
    """Kills its own process at the operation of that number."""

    def __init__(self, at: int) -> None:
        self._left = at

    def was_last(self) -> bool:
        self._left -= 1
        return self._left == 0

    def _count(self) -> None:
        if self.was_last():
            die()

    @contextmanager
    def open(self, path: Path, *, fresh: bool, mode: int = 0o644) -> Iterator[DiskFile]:
        with super().open(path, fresh=fresh, mode=mode) as file:
            yield DyingFile(file, self)

    def rename(self, source: Path, target: Path) -> None:
        self._count()
        super().rename(source, target)

    def exchange(self, one: Path, other: Path) -> bool:
        self._count()
        return super().exchange(one, other)

    def remove(self, path: Path) -> None:
        self._count()
        super().remove(path)

    def sync_directory(self, path: Path) -> None:
        self._count()
        super().sync_directory(path)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def write_for_ever(directory: Path, pipe: int, disk: Disk) -> None:
    """Commit n+1, n+2, ..., each the tensors of that seed; tell the pipe of what was acknowledged."""
    with teaching(directory):
        history = WeightHistory.open(directory, disk=disk)
        os.write(pipe, b"ready\n")
        while True:
            number = len(history.commits) + 1
            history.commit(tensors(number), message="m", author="a", created=WHEN, session=f"s{number}")
            os.write(pipe, f"{number}\n".encode())
            if number % 3 == 0:
                history.sync()


def one_life(directory: Path, chance: random.Random) -> list[int]:
    """Start a writer, kill it, and return what it had acknowledged."""
    reading, writing = os.pipe()
    itself = chance.random() < 0.5
    at = chance.randrange(1, 90)
    child = os.fork()
    if child == 0:
        os.close(reading)
        write_for_ever(directory, writing, DyingDisk(at) if itself else Disk())
    os.close(writing)
    if not itself:
        select.select([reading], [], [], 60)
        time.sleep(chance.random() * 0.05)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL, status
    with os.fdopen(reading) as stream:
        return [int(line) for line in stream.read().split() if line != "ready"]


def main() -> None:
    directory, points, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    chance = random.Random(seed)
    acknowledged: list[int] = []
    for _ in range(points):
        acknowledged += one_life(directory, chance)
        before = len(read_commits(directory))
        found = stored(directory)
        assert any(same(found, tensors(number)) for number in range(before, -1, -1)), "a mixture"
        assert [c.session for c in read_commits(directory)] == [f"s{n + 1}" for n in range(before)]
        assert set(acknowledged) <= set(range(1, before + 1)), "an acknowledged commit is lost"
        assert before <= len(set(acknowledged)) + points, "at most one unacknowledged commit for each death"
    WeightHistory.open(directory)
    assert same(stored(directory), tensors(len(read_commits(directory))))
    verified = verify_history(directory, lambda done, of: None)
    print(
        json.dumps(
            {
                "points": points,
                "commits": verified.commits,
                "acknowledged": len(acknowledged),
                "problems": verified.problems,
                "leftovers": verified.leftovers,
            }
        )
    )


if __name__ == "__main__":
    main()
