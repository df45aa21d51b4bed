"""The history of a model directory: weight commits, each with a delta that leads both ways.

A commit writes a delta and a record under `<model>/.understudy/commits/`, and exists from the moment its
record is renamed into place. The directory's own files follow later, by a sync; until then the deltas of
the pending commits are the journal that leads from what the files hold to the newest commit.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from understudy.weights.checkpoint import Checkpoint, digest, stored_form
from understudy.weights.delta import RawBytes, raw_bytes
from understudy.weights.disk import Disk, storing
from understudy.weights.errors import HistoryBroken, UnknownCommit, WeightsMismatch
from understudy.weights.recording import ahead_file, draft_file, drafting
from understudy.weights.records import (
    FilesState,
    WeightCommit,
    write_base,
    write_record,
    write_state,
)
from understudy.weights.recovery import remove_leftovers
from understudy.weights.syncing import Sync, SyncReport, put_away
from understudy.weights.viewing import HistoryView

Values = Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]
"""A tensor's new value from its name, its value in the files, and its value at the newest commit."""
Progress = Callable[[int, int], None]
"""Told how many tensors are done, of how many."""


def _silent(done: int, of: int) -> None:
    return


class WeightHistory(HistoryView):
    """The weight commits of one model directory, to be continued. One process does that: the trainer."""

    def __init__(self, directory: Path, disk: Disk) -> None:
        super().__init__(directory)
        self._disk = disk
        self.brought = SyncReport(None, (), 0, 0, 0, 0.0)
        """What opening had to sync."""

    @classmethod
    def open(
        cls, directory: Path, *, disk: Disk | None = None, progress: Progress = _silent
    ) -> "WeightHistory":
        """Open to write: create where there is none, clear up what was cut off, bring the files up to date.

        Raises HistoryBroken when the files' tensors are those of no commit: someone else changed them.
        """
        history = cls(directory, disk or Disk())
        with storing("the history", directory):
            history._clear_up()
        history.brought = history.sync(progress=progress)
        return history

    @staticmethod
    def view(directory: Path) -> HistoryView:
        """Open to read, also beside a process that writes."""
        return HistoryView(directory)

    # ------------------------------------------------------------------ writing

    def commit(
        self,
        tensors: Mapping[str, torch.Tensor],
        *,
        message: str,
        author: str,
        created: str,
        session: str | None = None,
        lessons: tuple[str, ...] = (),
        details: Mapping[str, Any] | None = None,
        progress: Progress = _silent,
    ) -> WeightCommit:
        """Record `tensors` as the newest state of the weights. The files follow at the next sync.

        `created` is a UTC time in ISO form. Raises WeightsMismatch when names or shapes do not fit the
        directory or its element types cannot hold the values, StorageFailed when the disk is full.
        """
        self.check(tensors.keys())
        about = WeightCommit(
            "", 0, None, created, message, author, session, lessons, {}, 0.0, dict(details or {})
        )
        return self._record(lambda name, stored, _: stored_form(tensors[name], stored, name), about, progress)

    def restore(
        self,
        tensors: Mapping[str, torch.Tensor] | None,
        to: str | None,
        *,
        author: str,
        created: str,
        message: str | None = None,
        session: str | None = None,
        progress: Progress = _silent,
    ) -> WeightCommit:
        """Bring the weights back to commit `to` (None: as the model came), bit for bit.

        `tensors` are the live ones, if there are any. This is itself a commit, so nothing is ever lost.
        Raises UnknownCommit.
        """
        target = None if to is None else self.find(to)
        if (target.id if target else None) == self.head:
            raise UnknownCommit(
                f"expected a commit other than the newest, {to!r} is what the weights are: nothing to restore"
            )
        expected = self.hashes_at(target.id if target else None)
        chain = self.chain(target.number if target else 0)

        def value(name: str, stored: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            found = chain.lead(name, stored)
            if digest(found) != expected[name]:
                raise HistoryBroken(
                    f"{name}: the deltas do not lead back to what it was at {to!r}: nothing was changed; "
                    "run `understudy weights verify`"
                )
            return found

        about = WeightCommit(
            "", 0, None, created,
            message or f"Restore {target.id if target else 'the model as it came'}",
            author, session, (), {}, 0.0, {"restores": target.id if target else None},
        )  # fmt: skip
        made = self._record(value, about, progress)
        if tensors is not None:
            self.load(tensors)
        return made

    def adopt(
        self,
        tensors: Mapping[str, torch.Tensor] | None,
        source: Path,
        *,
        message: str,
        author: str,
        created: str,
        session: str | None = None,
        details: Mapping[str, Any] | None = None,
        progress: Progress = _silent,
    ) -> WeightCommit:
        """Take the values of another model directory, or of one safetensors file, as a commit.

        Names, shapes and element types must be the same, else WeightsMismatch. `tensors` are the live
        ones, if there are any: they follow.
        """
        other = Checkpoint.open_source(source)
        self._fits(other, source)
        about = WeightCommit("", 0, None, created, message, author, session, (), {}, 0.0, dict(details or {}))
        with other.reading() as theirs:
            made = self._record(lambda name, _, __: theirs.read(name), about, progress)
        if tensors is not None:
            self.load(tensors)
        return made

    def sync(self, *, progress: Progress = _silent) -> SyncReport:
        """Bring the directory's own files to the newest commit. Does nothing when they are there.

        Raises StorageFailed, with the files as they were.
        """
        if self._state is None or not self.pending:
            return SyncReport(self.head, (), 0, 0, 0, 0.0)
        disk, newest = self._disk, self._commits[-1]
        with storing("the spares", self.directory):
            put_away(disk, self._folder, self.checkpoint)
        with self.reading() as files:
            chain = self.chain(newest.number)

            def value(name: str) -> RawBytes:
                tensor = chain.lead(name, files.read(name))
                if digest(tensor) != newest.tensors[name]:
                    raise HistoryBroken(
                        f"{name}: the deltas do not lead to what was committed; the files were left as they "
                        "are; run `understudy weights verify`"
                    )
                return raw_bytes(tensor)

            now = self.hashes_at(self.synced)
            moved = frozenset(name for name, after in newest.tensors.items() if now[name] != after)
            sync = Sync(disk, self._folder, files, newest, moved, value)
            self._state, report = sync.run(progress)
        self._cumulative = None
        self.checkpoint = Checkpoint.open(self.directory)
        with suppress(OSError):
            disk.remove(self._folder.cumulative)
        return report

    # ------------------------------------------------------------------ inside

    def _clear_up(self) -> None:
        disk, folder = self._disk, self._folder
        folder.make(disk)
        remove_leftovers(disk, folder, self._commits)
        if self._state is not None:
            write_state(disk, folder.synced, self._state)
            disk.remove(folder.syncing)
        put_away(disk, folder, self.checkpoint)

    def _fits(self, other: Checkpoint, source: Path) -> None:
        for name, place in self.checkpoint.places.items():
            theirs = other.places.get(name)
            if theirs is None or (theirs.shape, theirs.dtype) != (place.shape, place.dtype):
                found = f"{theirs.shape} {theirs.dtype}" if theirs else "nothing of that name"
                raise WeightsMismatch(f"{name}: expected {place.shape} {place.dtype}, {source} has {found}")
        if extra := sorted(set(other.places) - set(self.checkpoint.places)):
            raise WeightsMismatch(
                f"expected only tensors that {self.directory} has, {source} has {extra[:4]}"
            )

    def _record(self, values: Values, about: WeightCommit, progress: Progress) -> WeightCommit:
        """Write the delta from the newest commit to `values`, then the record: the story of every commit."""
        disk, folder = self._disk, self._folder
        with storing("the weight commit", self.directory), self.reading() as files:
            put_away(disk, folder, self.checkpoint)
            before = self._commits[-1].tensors if self._commits else {}
            sizes = {name: place.size_bytes for name, place in self.checkpoint.places.items()}
            chain = self.chain(len(self._commits))
            with drafting(disk, folder, sizes, before, behind=bool(self.pending)) as draft:
                for done, name in enumerate(self.checkpoint.names, start=1):
                    stored = files.read(name)
                    parent = chain.lead(name, stored)
                    draft.take(name, stored, parent, values(name, stored, parent))
                    progress(done, len(sizes))
                if not self._commits:
                    write_base(disk, folder, draft.base)
                    self._state = FilesState(None, files.stats())
                    write_state(disk, folder.synced, self._state)
                draft.finish()
                commit = replace(
                    about,
                    number=len(self._commits) + 1,
                    parent=self.head,
                    tensors=draft.hashes,
                    update_norm=draft.norm,
                ).identified()
                self._publish(commit)
                self._lead_ahead(commit)
        return commit

    def _publish(self, commit: WeightCommit) -> None:
        """The delta under its name, then the record: with that the commit exists."""
        disk, folder = self._disk, self._folder
        disk.rename(draft_file(folder), folder.delta(commit.id))
        try:
            disk.sync_directory(folder.commits)
            write_record(disk, folder, commit)
        except OSError:
            with suppress(OSError):  # a delta may go only when its record is gone for certain
                disk.sync_directory(folder.commits)
                disk.remove(folder.delta(commit.id))
            raise
        self._commits.append(commit)

    def _lead_ahead(self, commit: WeightCommit) -> None:
        """What leads from the files to this commit at once: its own delta, or the one drafted beside it."""
        folder = self._folder
        self._cumulative = None
        if len(self.pending) == 1:
            self._cumulative = folder.delta(commit.id)
        else:
            with suppress(OSError):  # the commit stands; without this its successor reads more deltas
                self._disk.rename(ahead_file(folder), folder.cumulative)
                self._cumulative = folder.cumulative
