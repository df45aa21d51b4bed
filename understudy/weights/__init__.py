"""The parameters as shared memory, and their history: deltas, log, restore."""

from understudy.weights.errors import (
    HistoryBroken,
    HistoryBusy,
    MappingBroken,
    UnknownCommit,
    WeightsError,
    WeightsMismatch,
)
from understudy.weights.history import WeightCommit, WeightHistory, lessons_held, read_commits
from understudy.weights.ownership import owned
from understudy.weights.shared import SharedWeights

__all__ = [
    "HistoryBroken",
    "HistoryBusy",
    "MappingBroken",
    "SharedWeights",
    "UnknownCommit",
    "WeightCommit",
    "WeightHistory",
    "WeightsError",
    "WeightsMismatch",
    "lessons_held",
    "owned",
    "read_commits",
]
