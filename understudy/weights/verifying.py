"""Reading everything again: are files, deltas and records what they say they are?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.weights.chains import Chain
from understudy.weights.checkpoint import digest
from understudy.weights.errors import HistoryBroken, WeightsError
from understudy.weights.history import WeightHistory
from understudy.weights.records import Folder, WeightCommit, read_base, read_thinned
from understudy.weights.recovery import leftovers


@dataclass(frozen=True, slots=True)
class Verification:
    """What was read, and what is wrong. `hashes`: tensors compared with a record, over all commits."""

    head: str | None
    synced: str | None
    commits: int
    tensors: int
    hashes: int
    problems: tuple[str, ...]
    leftovers: tuple[str, ...]
    """Files that a crash left behind; harmless, and gone with `gc`."""


def verify_history(directory: Path, progress: Callable[[int, int], None]) -> Verification:
    """Check the files against the commit they hold, and lead every tensor through every commit.

    Reads tensor by tensor and changes nothing. Raises HistoryBroken or another WeightsError only when
    there is nothing to begin with: no model, unreadable records, files of no commit.
    """
    history = WeightHistory.view(directory)
    folder = Folder.of(directory)
    commits = history.commits
    walk = _Walk(folder, commits, read_thinned(folder), read_base(folder) if commits else {})
    with history.reading() as files:
        names = history.checkpoint.names
        for done, name in enumerate(names, start=1):
            if commits:
                walk.tensor(name, files.read(name), _number(commits, history.synced))
            progress(done, len(names))
    in_use = {folder.cumulative} if history.pending else set()  # by the process that teaches, if there is one
    left = tuple(
        str(file.relative_to(directory)) for file in leftovers(folder, commits) if file not in in_use
    )
    return Verification(
        history.head, history.synced, len(commits), len(names), walk.hashes, tuple(walk.problems), left
    )


def _number(commits: tuple[WeightCommit, ...], identity: str | None) -> int:
    return next((commit.number for commit in commits if commit.id == identity), 0)


class _Walk:
    """Follows each tensor from the files back to the oldest state and on to the newest."""

    def __init__(
        self, folder: Folder, commits: tuple[WeightCommit, ...], oldest: int, base: dict[str, str]
    ) -> None:
        self._commits = commits
        self._oldest = oldest
        self._base = base
        self.hashes = 0
        self.problems: list[str] = []
        self._deltas: dict[int, Chain] = {}
        for commit in commits[oldest:]:
            try:
                self._deltas[commit.number] = Chain.of([folder.delta(commit.id)])
                _ = self._deltas[commit.number].deltas[0].names
            except HistoryBroken as error:
                self._deltas.pop(commit.number, None)
                self.problems.append(f"commit {commit.id}: {error}")

    def tensor(self, name: str, stored: torch.Tensor, synced: int) -> None:
        if self._wrong(name, stored, synced, "in the files"):
            return
        for numbers, step in (
            (range(synced, self._oldest, -1), -1),
            (range(synced + 1, len(self._commits) + 1), 0),
        ):
            held = stored
            for number in numbers:
                try:
                    held = self._deltas[number].lead(name, held)
                except KeyError:
                    break  # the missing delta was reported
                except WeightsError as error:
                    self.problems.append(f"{name}: the delta of {self._commits[number - 1].id}: {error}")
                    break
                if self._wrong(name, held, number + step, f"by the delta of {self._commits[number - 1].id}"):
                    break

    def _wrong(self, name: str, held: torch.Tensor, number: int, how: str) -> bool:
        expected = self._commits[number - 1].tensors if number else self._base
        self.hashes += 1
        if expected.get(name) == digest(held):
            return False
        at = self._commits[number - 1].id if number else "the beginning"
        self.problems.append(f"{name}: {how} it is not what it was at {at}")
        return True
