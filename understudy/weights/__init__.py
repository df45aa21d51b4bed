"""The parameters as shared memory, and their history: deltas, log, restore."""

from understudy.weights.errors import (
    HistoryBroken,
    MappingBroken,
    UnknownCommit,
    WeightsError,
    WeightsMismatch,
)
from understudy.weights.history import WeightCommit, WeightHistory, read_commits
from understudy.weights.shared import SharedWeights

__all__ = [
    "HistoryBroken",
    "MappingBroken",
    "SharedWeights",
    "UnknownCommit",
    "WeightCommit",
    "WeightHistory",
    "WeightsError",
    "WeightsMismatch",
    "read_commits",
]
