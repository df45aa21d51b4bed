"""Several deltas in a row, as one."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from understudy.weights.delta import Delta, across
from understudy.weights.errors import HistoryBroken


@dataclass(frozen=True, slots=True)
class Chain:
    """Deltas that lie between two states. XOR knows no direction: they lead from either to the other."""

    deltas: tuple[Delta, ...]

    @classmethod
    def of(cls, files: Iterable[Path]) -> "Chain":
        """Raises HistoryBroken when one is missing."""
        files = tuple(files)
        for file in files:
            if not file.is_file():
                raise HistoryBroken(f"expected a delta at {file}, found none: bring it back from a backup")
        return cls(tuple(Delta(file) for file in files))

    def lead(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        """A tensor at the other end; itself when it did not move in between."""
        packed = (delta.packed(name) for delta in self.deltas)
        return across(tensor, (one for one in packed if one is not None))
