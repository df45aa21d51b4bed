"""Keeping a repository small and quick: every message leaves a whole copy of its file until Git packs them.

The packing is Git's own (`git gc`, which also writes the commit-graph). It takes nothing away that is in use,
so people and programs may go on reading and writing while it runs.
"""

import fcntl
import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from understudy.conversation.errors import RepositoryBusy, RepositoryFailure
from understudy.conversation.files import STATE_FOLDER
from understudy.conversation.repository import ConversationRepository

MOST_LOOSE_OBJECTS = 2000
"""A message makes four loose objects; at Git's own limit, 6700, a long conversation takes hundreds of MB."""

LONGEST_SECONDS = 7 * 24 * 3600.0
"""After a week it is due also for few messages: the commit-graph is to know them."""

SHORTEST_SECONDS = 3600.0
"""Git leaves loose what nothing reaches and is young: packing again at once would find the same objects."""

_RECORD = "maintenance.json"
_SCRATCH_SECONDS = 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance found and left."""

    at: float
    """Seconds since the epoch."""
    head: str
    bytes_before: int
    bytes_after: int
    seconds: float


def maintenance_due(repository: ConversationRepository, now: float | None = None) -> bool:
    """Whether `maintain` is worth its time: many loose objects, or something said since a run a week ago.

    Never within an hour of the last run.
    """
    last = last_maintained(repository)
    if last is None:
        return loose_objects(repository) > MOST_LOOSE_OBJECTS
    age = (time.time() if now is None else now) - last.at
    if age > SHORTEST_SECONDS and loose_objects(repository) > MOST_LOOSE_OBJECTS:
        return True
    return age > LONGEST_SECONDS and last.head != repository.head()


def maintain_when_due(repository: ConversationRepository) -> Maintained | None:
    """What a server or a timer calls, as often as it likes; None if there was nothing to do."""
    return maintain(repository) if maintenance_due(repository) else None


def maintain(repository: ConversationRepository) -> Maintained:
    """Pack the repository and write its commit-graph. Safe beside writers and readers; takes seconds.

    Raises `RepositoryBusy` if it runs already, `RepositoryFailure` with what Git said if Git could not; then
    nothing is lost, and it can be tried again.
    """
    state = repository.root / STATE_FOLDER
    objects = repository.git_folder / "objects"
    with _alone(state / "maintenance.lock"):
        begun, before = time.monotonic(), _size_bytes(objects)
        head = repository.head()
        _git(repository.root, "gc", "--quiet")
        _git(repository.root, "commit-graph", "write", "--reachable")
        _clear_scratch(state / "scratch")
        done = Maintained(time.time(), head, before, _size_bytes(objects), time.monotonic() - begun)
        (state / _RECORD).write_text(json.dumps(asdict(done)) + "\n")
    return done


def last_maintained(repository: ConversationRepository) -> Maintained | None:
    """What the last run found and left, None if there was none here."""
    path = repository.root / STATE_FOLDER / _RECORD
    try:
        return Maintained(**json.loads(path.read_text()))
    except (FileNotFoundError, ValueError, TypeError):  # a record is no more than a hint
        return None


def loose_objects(repository: ConversationRepository) -> int:
    """How many loose objects there are."""
    folders = (repository.git_folder / "objects").glob("[0-9a-f][0-9a-f]")
    return sum(len(_names(folder)) for folder in folders)


def _names(folder: Path) -> list[str]:
    try:
        return [path.name for path in folder.iterdir()]
    except FileNotFoundError:  # Git has packed its last object
        return []


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RepositoryBusy(f"maintenance runs already (it holds {path}): wait for it to end") from error
        yield


def _git(root: Path, *arguments: str) -> None:
    """Run Git, or `RepositoryFailure` with what it said."""
    try:
        environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, env=environment
        )
    except FileNotFoundError as error:
        raise RepositoryFailure("maintenance needs the program 'git', and it is not installed") from error
    if done.returncode:
        raise RepositoryFailure(
            f"'git {' '.join(arguments)}' failed in {root}, nothing was lost: {done.stderr.strip()}"
        )


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:  # a writer's temporary file, or one that Git has packed
            continue
    return total


def _clear_scratch(scratch: Path) -> None:
    """Remove what writers that died left half-written."""
    for path in scratch.glob("*"):
        if path.is_file() and time.time() - path.stat().st_mtime > _SCRATCH_SECONDS:
            path.unlink(missing_ok=True)
