"""Moving a branch, as Git's files do it: a lock beside it, compare, write aside, flush, rename."""

import os
from collections.abc import Callable
from pathlib import Path

from understudy.conversation.staging import Staged


def advance(
    git_folder: Path,
    branch: str,
    tip: Callable[[], str | None],
    old: str,
    new: str,
    entry: str,
    staged: Staged,
) -> bool:
    """Let the branch point to the commit `new` if it points to `old`; False if it does not.

    What is `staged` below `git_folder` is flushed and put in place first, all else only flushed. `tip` reads
    the branch, under the lock. `entry` is who, when and why, for the reflogs that there are. Raises OSError,
    with the branch as it was: `FileExistsError` if someone holds the lock.
    """
    path = git_folder / branch
    objects = [place for place in staged.places if place.is_relative_to(git_folder)]
    path.parent.mkdir(parents=True, exist_ok=True)  # Git removes folders whose branches it has packed
    staged.write(path.with_name(path.name + ".lock"), path, f"{new}\n".encode(), 0o666)
    staged.flush()
    if tip() != old:
        return False
    staged.put(*objects)
    line = f"{old} {new} {entry}\n".encode()
    for log in (git_folder / "logs" / branch, git_folder / "logs" / "HEAD"):
        _append(log, line)
    staged.put(path)
    return True


def _append(log: Path, line: bytes) -> None:
    try:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
    except FileNotFoundError:  # this repository keeps none
        return
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
