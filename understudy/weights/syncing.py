"""Bringing the model directory's own files up to date: only dirty blocks, and never half.

A visible file is never written. Its spare, the generation before, is brought up to date block by block
under `.understudy/spare/`, synced, and put in the visible one's place in one step of the file system:
an exchange of names for a single file, the replacement of the index for shards (whose new generations
lie beside the old ones by then, under a name that the old index does not know). `syncing.json` says
beforehand how the files will look, so that after a crash a glance tells which side of the step we are on.
"""

import json
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from understudy.weights.checkpoint import INDEX, Checkpoint, FileStat, OpenTensors, read_index
from understudy.weights.delta import RawBytes
from understudy.weights.disk import Disk, DiskFile, storing, unshared
from understudy.weights.records import FilesState, Folder, WeightCommit, write_state

BLOCK_BYTES = 4096
WINDOW_BYTES = 1024 * BLOCK_BYTES
"""Compared at once; a multiple of the block."""
OTHER = "-b"
"""What a shard's name gains in every second generation."""


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a sync did. Blocks are of 4 KiB; `files` are those that were replaced, under their new names."""

    commit: str | None
    files: tuple[str, ...]
    blocks_written: int
    blocks_total: int
    bytes_written: int
    seconds: float


class Blocks:
    """Writes what differs, and counts."""

    def __init__(self) -> None:
        self.dirty = 0
        self.bytes = 0
        self._last = -1

    def begin(self) -> None:
        """Another file."""
        self._last = -1

    def update(self, file: DiskFile, offset: int, new: memoryview) -> None:
        """Make the file's bytes at `offset` equal `new`, writing only the blocks that are not."""
        at = 0
        while at < len(new):
            start = offset + at
            size = min(len(new) - at, WINDOW_BYTES - start % WINDOW_BYTES)
            window = new[at : at + size]
            old = file.read_at(start, size)
            if old != window:
                self._write(file, start, window, old)
            at += size

    def _write(self, file: DiskFile, start: int, new: memoryview, old: bytes) -> None:
        lead = start % BLOCK_BYTES
        common = min(len(new), len(old))
        differs = np.ones(-(-(lead + len(new)) // BLOCK_BYTES) * BLOCK_BYTES, dtype=bool)
        differs[:lead] = False
        differs[lead + len(new) :] = False
        differs[lead : lead + common] = np.frombuffer(new[:common], np.uint8) != np.frombuffer(
            old[:common], np.uint8
        )
        blocks = np.flatnonzero(differs.reshape(-1, BLOCK_BYTES).any(axis=1))
        runs = np.split(blocks, np.flatnonzero(np.diff(blocks) > 1) + 1)
        for run in runs:
            first, end = int(run[0]), int(run[-1]) + 1
            begin = max(first * BLOCK_BYTES - lead, 0)
            piece = new[begin : min(end * BLOCK_BYTES - lead, len(new))]
            file.write_at(start + begin, piece)
            self.bytes += len(piece)
            number = (start - lead) // BLOCK_BYTES
            self.dirty += end - first - (number + first == self._last)
            self._last = number + end - 1


@dataclass(frozen=True, slots=True)
class Sync:
    """One sync: from what the files hold to a commit."""

    disk: Disk
    folder: Folder
    opened: OpenTensors
    commit: WeightCommit
    moved: frozenset[str]
    """The tensors whose bytes change."""
    value: Callable[[str], RawBytes]
    """A tensor's new bytes."""

    def run(self, progress: Callable[[int, int], None]) -> tuple[FilesState, SyncReport]:
        """Raises StorageFailed, with the directory as it was."""
        began = time.monotonic()
        blocks = Blocks()
        checkpoint = self.opened.checkpoint
        changed = [file for file, names in checkpoint.files.items() if not self.moved.isdisjoint(names)]
        stats = self.opened.stats()
        for file in changed:
            with storing(f"the next generation of {file}", checkpoint.directory):
                successor = self._prepare(file, blocks, progress)
                stats[file] = FileStat.of(successor.stat())
        with storing("the new weights", checkpoint.directory):
            names = self._switch(changed, stats) if changed else {}
            state = FilesState(self.commit.id, {names.get(f, f): stat for f, stat in stats.items()})
            if not changed:
                write_state(self.disk, self.folder.synced, state)
        total = sum(-(-stat.size // BLOCK_BYTES) for stat in stats.values())
        seconds = time.monotonic() - began
        written = tuple(names.get(file, file) for file in changed)
        return state, SyncReport(self.commit.id, written, blocks.dirty, total, blocks.bytes, seconds)

    # ------------------------------------------------------------------ the spare

    def _prepare(self, file: str, blocks: Blocks, progress: Callable[[int, int], None]) -> Path:
        """Bring a file's spare to what the file will be, on the disk."""
        visible = self.opened.checkpoint.directory / file
        spare = self.folder.spare / plain_name(file)
        if not unshared(spare) or spare.stat().st_size > visible.stat().st_size:
            self.disk.remove(spare)  # whoever reads it keeps it; we begin another
        fresh = not spare.exists()
        try:
            mode = stat.S_IMODE(visible.stat().st_mode)
            with self.disk.open(spare, fresh=fresh, mode=mode) as stream:
                blocks.begin()
                for offset, new in self._contents(file, progress):
                    blocks.update(stream, offset, new)
                stream.sync()
            if fresh:
                spare.chmod(mode)
                self.disk.sync_directory(self.folder.spare)
        except OSError:
            with suppress(OSError):
                self.disk.remove(spare)
            raise
        return spare

    def _contents(self, file: str, progress: Callable[[int, int], None]) -> Iterator[tuple[int, memoryview]]:
        """The file's next generation from its first byte to its last."""
        checkpoint = self.opened.checkpoint
        yield 0, memoryview(self.opened.raw(file, 0, checkpoint.headers[file]))
        names = checkpoint.files[file]
        for done, name in enumerate(names, start=1):
            place = checkpoint.places[name]
            if name in self.moved:
                yield place.start, self.value(name).data
            else:
                for at in range(place.start, place.end, WINDOW_BYTES):
                    yield at, memoryview(self.opened.raw(file, at, min(WINDOW_BYTES, place.end - at)))
            progress(done, len(names))

    # ------------------------------------------------------------------ the switch

    def _switch(self, changed: list[str], stats: dict[str, FileStat]) -> dict[str, str]:
        """Let readers see the new generation. Returns the new names of files that have one."""
        directory = self.opened.checkpoint.directory
        names = {file: other_name(file) for file in changed} if self.opened.checkpoint.sharded else {}
        state = FilesState(self.commit.id, {names.get(f, f): stat for f, stat in stats.items()})
        write_state(self.disk, self.folder.syncing, state)
        if names:
            self._switch_index(directory, names)
        else:
            [file] = changed
            spare, visible = self.folder.spare / plain_name(file), directory / file
            if not self.disk.exchange(spare, visible):
                self.disk.rename(spare, visible)
            self.disk.sync_directory(directory)
            self.disk.sync_directory(self.folder.spare)
        self.disk.rename(self.folder.syncing, self.folder.synced)
        self.disk.sync_directory(self.folder.root)
        return names

    def _switch_index(self, directory: Path, names: dict[str, str]) -> None:
        for file, name in names.items():
            self.disk.rename(self.folder.spare / plain_name(file), directory / name)
        self.disk.sync_directory(directory)
        self.disk.sync_directory(self.folder.spare)
        index = read_index(directory)
        index["weight_map"] = {n: names.get(file, file) for n, file in index["weight_map"].items()}
        aside = self.folder.root / "index.new"
        mode = stat.S_IMODE((directory / INDEX).stat().st_mode)
        with self.disk.open(aside, fresh=True, mode=mode) as stream:
            stream.write_at(0, (json.dumps(index, indent=2) + "\n").encode())
            stream.sync()
        self.disk.rename(aside, directory / INDEX)
        self.disk.sync_directory(directory)
        self.disk.sync_directory(self.folder.root)


def put_away(disk: Disk, folder: Folder, checkpoint: Checkpoint) -> None:
    """Move shards of a generation that the index does not name out of sight: they are the spares."""
    if not checkpoint.sharded:
        return
    moved = False
    for file in checkpoint.files:
        superseded = checkpoint.directory / other_name(file)
        if superseded.exists() and other_name(file) not in checkpoint.files:
            disk.rename(superseded, folder.spare / plain_name(file))
            moved = True
    if moved:
        disk.sync_directory(checkpoint.directory)
        disk.sync_directory(folder.spare)


def plain_name(file: str) -> str:
    """A shard's name without the mark of the second generation."""
    stem = file.removesuffix(".safetensors")
    return f"{stem.removesuffix(OTHER)}.safetensors"


def other_name(file: str) -> str:
    """The name under which a shard's next generation will stand."""
    stem = file.removesuffix(".safetensors")
    return plain_name(file) if stem.endswith(OTHER) else f"{stem}{OTHER}.safetensors"
