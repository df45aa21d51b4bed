"""The power goes at every single operation of commits and syncs, with the unsynced writes in shreds."""

import os
import random
from pathlib import Path

import pytest
import torch
from power_cuts import RecordingDisk
from test_history import LAYOUTS, WHEN, same, stored, tensors

from understudy.weights import WeightHistory, read_commits, verify_history

SHREDS = max(1, int(os.environ.get("UNDERSTUDY_FAULT_POINTS", "40")) // 40)
"""How often each operation is cut at, each time with other losses."""
State = dict[str, torch.Tensor]


def partly(seed: int, state: State, names: str) -> State:
    return {n: tensors(seed)[n] if n in names else t for n, t in state.items()}


class Played:
    """A history written through a recording disk, and what must be found after each operation."""

    def __init__(self, directory: Path) -> None:
        self.disk = RecordingDisk(directory)
        self.states: list[State] = [tensors()]
        """By number of commits."""
        self.ends: list[tuple[int, int, int]] = []
        """After each action: operations so far, commits that are acknowledged, the commit the files hold."""
        self._files = 0
        history = WeightHistory.open(directory, disk=self.disk)
        self._end()
        self._commit(history, partly(1, self.states[-1], "abcd"))
        self._commit(history, partly(2, self.states[-1], "ad"))
        self._sync(history)
        self._commit(history, partly(3, self.states[-1], "d"))
        self._sync(history)
        self._restore(history, 1)
        self._commit(history, partly(4, self.states[-1], "b"))
        self._sync(history)
        self._commit(history, partly(5, self.states[-1], "a"))
        history = WeightHistory.open(directory, disk=self.disk)
        self._files = len(self.states) - 1
        self._end()

    def _end(self) -> None:
        self.ends.append((len(self.disk.log), len(self.states) - 1, self._files))

    def _commit(self, history: WeightHistory, state: State) -> None:
        number = len(self.states)
        history.commit(state, message=f"{number}", author="a", created=WHEN, session=f"s{number}")
        self.states.append(state)
        self._end()

    def _restore(self, history: WeightHistory, number: int) -> None:
        history.restore(None, history.commits[number - 1].id, author="a", created=WHEN)
        self.states.append(self.states[number])
        self._end()

    def _sync(self, history: WeightHistory) -> None:
        history.sync()
        self._files = len(self.states) - 1
        self._end()

    def allowed(self, after: int) -> tuple[set[int], set[int]]:
        """Numbers of commits, and commits that the files may hold, when the power goes now."""
        done = next((end for end in reversed(self.ends) if end[0] <= after), (0, 0, 0))
        current = next((end for end in self.ends if end[0] > after), done)
        return {done[1], current[1]}, {done[2], current[2]}


@pytest.fixture(params=sorted(LAYOUTS))
def played(tmp_path: Path, request: pytest.FixtureRequest) -> Played:
    (tmp_path / "model").mkdir()
    LAYOUTS[request.param](tmp_path / "model")
    return Played(tmp_path / "model")


def check(played: Played, after: int, seed: int, found: Path) -> None:
    played.disk.cut(after, random.Random(seed)).write(played.disk.root, found)
    commits, files = played.allowed(after)
    visible = stored(found)
    assert any(same(visible, played.states[number]) for number in files), "old or new, never a mixture"
    history = WeightHistory.open(found)
    assert len(history.commits) in commits, "no acknowledged commit lost, none doubled"
    numbers = range(1, len(history.commits) + 1)
    assert [commit.session for commit in history.commits if commit.session] == [
        f"s{n}" for n in numbers if n != 4
    ]
    assert same(stored(found), played.states[len(history.commits)]), "opened, the files are the newest commit"
    ids: list[str | None] = [None, *(commit.id for commit in history.commits)]
    for identity, state in zip(ids, played.states, strict=False):
        assert same(dict(history.tensors_at(identity)), state)
    assert verify_history(found, lambda done, of: None).problems == ()
    history.commit(tensors(99), message="later", author="a", created=WHEN)
    history.sync()
    assert same(stored(found), tensors(99))
    assert len(read_commits(found)) == len(numbers) + 1


def test_a_power_cut_at_every_operation(played: Played, tmp_path: Path) -> None:
    operations = len(played.disk.log)
    assert operations > 100
    for after in range(operations + 1):
        for shred in range(SHREDS):
            found = tmp_path / f"{after}-{shred}"
            found.mkdir()
            try:
                check(played, after, after * 1000 + shred, found)
            except Exception as error:
                error.add_note(
                    f"after {after} operations ({played.disk.log[max(0, after - 3) : after]}), shred {shred}"
                )
                raise
