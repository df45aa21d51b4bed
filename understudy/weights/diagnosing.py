"""Live, journal and disk side by side: does everyone hold the same weights, and if not, who is ahead?"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.weights.checkpoint import digest, stored_form
from understudy.weights.errors import WeightsError, WeightsMismatch
from understudy.weights.history import WeightHistory
from understudy.weights.shared import SharedWeights, find_mappings


@dataclass(frozen=True, slots=True)
class LiveWeights:
    """What the mapping's header says."""

    mapping: str
    commit: str | None
    step: int
    dirty: bool


@dataclass(frozen=True, slots=True)
class TensorState:
    """One tensor in three places, compared with what the newest commit's record promises.

    `live`: None when no one serves the model. `journal`: the files and the pending deltas together.
    `disk`: the files alone, which are behind while commits are pending.
    """

    name: str
    live: bool | None
    journal: bool
    disk: bool


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Three places, by tensor, and what to make of it."""

    directory: str
    head: str | None
    synced: str | None
    pending: tuple[str, ...]
    live: LiveWeights | None
    tensors: tuple[TensorState, ...]

    @property
    def damaged(self) -> tuple[str, ...]:
        """Tensors that the deltas do not lead to what was committed."""
        return tuple(state.name for state in self.tensors if not state.journal)

    @property
    def live_differs(self) -> tuple[str, ...]:
        return tuple(state.name for state in self.tensors if state.live is False)

    @property
    def behind(self) -> tuple[str, ...]:
        """Tensors whose files are not what the newest commit is."""
        return tuple(state.name for state in self.tensors if not state.disk)

    @property
    def sound(self) -> bool:
        """Nothing is wrong: a session may be writing, and a sync may be due."""
        writing = self.live is not None and self.live.dirty
        return (
            not self.damaged
            and (writing or not self.live_differs)
            and (bool(self.pending) or not self.behind)
        )


def diagnose(directory: Path, progress: Callable[[int, int], None]) -> Diagnosis:
    """Compare live weights, journal and disk tensor by tensor, changing nothing.

    Raises HistoryBroken when the files are of no commit.
    """
    history = WeightHistory.view(directory)
    shared = _attach(directory)
    states = []
    with history.reading() as files:
        chain = history.chain(len(history.commits))
        expected = history.hashes_at(history.head)
        for done, name in enumerate(names := history.checkpoint.names, start=1):
            stored = files.read(name)
            on_disk = digest(stored)
            wanted = expected.get(name, on_disk)
            try:
                journal = digest(chain.lead(name, stored)) == wanted
            except WeightsError:
                journal = False
            states.append(TensorState(name, _live(shared, name, stored, wanted), journal, on_disk == wanted))
            progress(done, len(names))
    live = (
        LiveWeights(str(shared.directory), shared.commit, shared.step, shared.dirty)
        if shared is not None
        else None
    )
    pending = tuple(commit.id for commit in history.pending)
    return Diagnosis(str(directory), history.head, history.synced, pending, live, tuple(states))


def _attach(directory: Path) -> SharedWeights | None:
    found = find_mappings(directory)
    return SharedWeights.attach(found[0]) if found else None


def _live(shared: SharedWeights | None, name: str, stored: torch.Tensor, expected: str) -> bool | None:
    if shared is None:
        return None
    tensor = shared.tensors.get(shared.aliases.get(name, name))
    if tensor is None:
        return False
    try:
        return digest(stored_form(tensor, stored, name)) == expected
    except WeightsMismatch:
        return False
