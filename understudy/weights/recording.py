"""A weight commit in the making: the delta, drafted tensor by tensor."""

import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from understudy.weights.checkpoint import digest
from understudy.weights.delta import DeltaWriter, moved_elements, pack, raw_bytes
from understudy.weights.disk import Disk, DiskFile
from understudy.weights.records import Folder

_ELEMENTS = 1 << 22
"""Summed at once in float64."""


@dataclass
class Draft:
    """What has been taken so far. `hashes` are of every tensor after the commit, `before` before it."""

    _delta: DeltaWriter
    _file: DiskFile
    _ahead: DeltaWriter | None
    _ahead_file: DiskFile | None
    before: Mapping[str, str]
    hashes: dict[str, str] = field(default_factory=dict)
    base: dict[str, str] = field(default_factory=dict)
    _squares: float = 0.0

    def take(self, name: str, stored: torch.Tensor, parent: torch.Tensor, new: torch.Tensor) -> None:
        """One tensor: as it is in the files, at the newest commit, and from now on."""
        known = self.before.get(name) or digest(parent)
        if name not in self.before:
            self.base[name] = known
        after = raw_bytes(new)
        xor = raw_bytes(parent) ^ after
        moved = moved_elements(xor, new.element_size())
        self.hashes[name] = digest(new) if len(moved) else known
        if len(moved):
            self._delta.add(name, pack(xor, new.element_size(), moved))
            self._squares += _squares(parent, new, torch.from_numpy(moved))
        if self._ahead is not None:
            further = raw_bytes(stored) ^ after
            moved = moved_elements(further, new.element_size())
            if len(moved):
                self._ahead.add(name, pack(further, new.element_size(), moved))

    @property
    def norm(self) -> float:
        """The 2-norm of the change."""
        return math.sqrt(self._squares)

    def finish(self) -> None:
        """Everything on the disk that must be there before the record."""
        self._delta.finish()
        self._file.sync()
        if self._ahead is not None:
            self._ahead.finish()  # never needed after this process: it needs no sync


@contextmanager
def drafting(
    disk: Disk, folder: Folder, sizes: Mapping[str, int], before: Mapping[str, str], *, behind: bool
) -> Iterator[Draft]:
    """Begin a draft; `behind`: the files lack earlier commits, so write also what leads from them to here.

    What was not renamed by the end is removed.
    """
    drafts = (draft_file(folder), ahead_file(folder))
    try:
        with ExitStack() as stack:
            file = stack.enter_context(disk.open(drafts[0], fresh=True))
            ahead = stack.enter_context(disk.open(drafts[1], fresh=True)) if behind else None
            further = DeltaWriter(ahead, sizes) if ahead else None
            yield Draft(DeltaWriter(file, sizes), file, further, ahead, before)
    finally:
        for path in drafts:
            if path.exists():
                with suppress(OSError):
                    disk.remove(path)


def draft_file(folder: Folder) -> Path:
    return folder.commits / "delta.new"


def ahead_file(folder: Folder) -> Path:
    return folder.root / "pending.new"


def _squares(before: torch.Tensor, after: torch.Tensor, moved: torch.Tensor) -> float:
    """The squared 2-norm of the change, a part at a time: float64 takes up to eight times the memory."""
    old, new = before.reshape(-1), after.reshape(-1)
    total = 0.0
    for at in range(0, len(moved), _ELEMENTS):
        part = moved[at : at + _ELEMENTS]
        total += float((new[part].double() - old[part].double()).square().sum())
    return total
