"""The history of a model directory: weight commits, each with a delta that leads both ways.

Under `<model>/.understudy/`: `commits/<number>-<id>.json` (a record), `commits/<id>.delta` and `HEAD`.
A commit exists from the moment its record is renamed into place. Everything before that is invisible;
everything after it (replacing the tensors, moving HEAD) is finished by `WeightHistory.open` if it was
cut off, since the delta leads from the old bytes to the new ones.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from understudy.weights.checkpoint import Checkpoint, stored_form, sync
from understudy.weights.delta import apply, difference, read_delta, write_delta
from understudy.weights.errors import HistoryBroken, UnknownCommit, WeightsMismatch

ID_LENGTH = 12


@dataclass(frozen=True, slots=True)
class WeightCommit:
    """One recorded change of the weights.

    `before` and `after` are SHA-256 by file name; `update_norm` is the 2-norm of the change.
    """

    id: str
    number: int
    parent: str | None
    created: str
    message: str
    author: str
    session: str | None
    lessons: tuple[str, ...]
    before: Mapping[str, str]
    after: Mapping[str, str]
    update_norm: float
    details: Mapping[str, Any] = field(default_factory=dict)


class WeightHistory:
    """The weight commits of one model directory, oldest first. One process writes at a time: the trainer."""

    def __init__(self, checkpoint: Checkpoint, root: Path, commits: list[WeightCommit]) -> None:
        self.checkpoint = checkpoint
        self._root = root
        self._commits = commits

    @classmethod
    def open(cls, directory: Path) -> "WeightHistory":
        """Open, create where there is none, and finish a commit that was cut off.

        Raises HistoryBroken when the tensors are those of no commit: someone else changed them.
        """
        checkpoint = Checkpoint.open(directory)
        root = directory / ".understudy"
        (root / "commits").mkdir(parents=True, exist_ok=True)
        history = cls(checkpoint, root, list(read_commits(directory)))
        history._settle()
        return history

    @property
    def commits(self) -> tuple[WeightCommit, ...]:
        return tuple(self._commits)

    @property
    def head(self) -> str | None:
        """The id of the newest commit; None before the first."""
        return self._commits[-1].id if self._commits else None

    def check(self, names: Iterable[str]) -> None:
        """Raises WeightsMismatch unless every tensor of the files is among `names`."""
        missing = sorted(self.checkpoint.names - set(names))
        if missing:
            raise WeightsMismatch(
                f"expected tensors for {missing[:4]} and {len(missing)} in all, which the files hold; the "
                "loaded model has none of that name, so what it learns could not be written back"
            )

    def commit_of(self, session: str) -> WeightCommit | None:
        """The commit that a training session made, if it made one."""
        return next((c for c in self._commits if c.session == session), None)

    def find(self, prefix: str) -> WeightCommit:
        """The commit whose id starts with `prefix`; raises UnknownCommit unless there is exactly one."""
        found = [c for c in self._commits if c.id.startswith(prefix)]
        if len(found) != 1 or not prefix:
            known = ", ".join(c.id for c in self._commits[-5:]) or "none yet"
            raise UnknownCommit(
                f"expected the id of one weight commit, {prefix!r} fits {len(found)}; newest: {known}"
            )
        return found[0]

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
    ) -> WeightCommit:
        """Record `tensors` as the new state of the model directory.

        `created` is a UTC time in ISO form. Raises WeightsMismatch when names or shapes do not fit the
        directory, or when its files cannot hold the values exactly.
        """
        self.check(tensors.keys())
        before = {file: self.checkpoint.digest(file) for file in self.checkpoint.files}
        changes: dict[str, torch.Tensor] = {}
        fingerprint = hashlib.sha256(json.dumps([self.head, session, created, message]).encode())
        squares = 0.0
        for file in self.checkpoint.files:
            for name, stored in self.checkpoint.tensors(file):
                new = stored_form(tensors[name], stored, name)
                squares += float((new.double() - stored.double()).square().sum())
                changes[name] = difference(stored, new)
                fingerprint.update(changes[name].numpy().tobytes())
        identity = fingerprint.hexdigest()[:ID_LENGTH]
        aside = self._root / "commits" / f"{identity}.delta.new"
        write_delta(aside, changes)
        sync(aside)
        aside.rename(self._delta(identity))
        record = WeightCommit(
            id=identity,
            number=len(self._commits) + 1,
            parent=self.head,
            created=created,
            message=message,
            author=author,
            session=session,
            lessons=lessons,
            before=before,
            after=self._digests_after(changes),
            update_norm=math.sqrt(squares),
            details=dict(details or {}),
        )
        self._write_record(record)
        self._commits.append(record)
        self._settle()
        return record

    def restore(
        self, tensors: Mapping[str, torch.Tensor], to: str | None, *, author: str, created: str
    ) -> WeightCommit:
        """Bring the directory and the live `tensors` back to commit `to` (None: before the first), exactly.

        This is itself a commit, so that nothing is ever lost. Raises UnknownCommit.
        """
        target = None if to is None else self.find(to)
        undone = [c for c in self._commits if target is None or c.number > target.number]
        if not undone:
            raise UnknownCommit(
                f"expected a commit older than the newest, {to!r} is the newest: nothing to restore"
            )
        stored = dict(pair for file in self.checkpoint.files for pair in self.checkpoint.tensors(file))
        for commit in reversed(undone):
            for name, packed in read_delta(self._delta(commit.id)).items():
                stored[name] = apply(stored[name], packed)
        goal = undone[0].before
        record = self.commit(
            stored,
            message=f"Restore {target.id if target else 'the model as it came'}",
            author=author,
            created=created,
            details={"restores": target.id if target else None},
        )
        if record.after != goal:
            raise HistoryBroken(
                f"expected {goal} after restoring {to!r}, got {record.after}: the history is damaged"
            )
        self.load(tensors)
        return record

    def load(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy the directory's tensors over the live ones, in place."""
        with torch.no_grad():
            for file in self.checkpoint.files:
                for name, stored in self.checkpoint.tensors(file):
                    tensors[name].copy_(stored)

    # ------------------------------------------------------------------ files

    def _delta(self, identity: str) -> Path:
        return self._root / "commits" / f"{identity}.delta"

    def _write_record(self, record: WeightCommit) -> None:
        file = self._root / "commits" / f"{record.number:06d}-{record.id}.json"
        aside = file.with_suffix(".new")
        aside.write_text(json.dumps(asdict(record), indent=1, sort_keys=True))
        sync(aside)
        aside.rename(file)
        sync(file.parent)

    def _digests_after(self, changes: Mapping[str, torch.Tensor]) -> dict[str, str]:
        """Write the new tensors aside and hash them, so that the record can promise the bytes to come."""
        digests = {}
        for file in self.checkpoint.files:
            self._write_aside(file, changes)
            digests[file] = self.checkpoint.digest(f"{file}.new")
        return digests

    def _write_aside(self, file: str, changes: Mapping[str, torch.Tensor]) -> None:
        after = ((name, apply(stored, changes[name])) for name, stored in self.checkpoint.tensors(file))
        self.checkpoint.write_aside(file, after)

    def _settle(self) -> None:
        """Make the directory what the newest record says it is."""
        if not self._commits:
            return
        newest = self._commits[-1]
        for file in self.checkpoint.files:
            found = self.checkpoint.digest(file)
            if found == newest.after[file]:
                continue
            if found != newest.before[file]:
                raise HistoryBroken(
                    f"{self.checkpoint.directory / file} belongs to no known commit: expected SHA-256 "
                    f"{newest.after[file][:12]}..., found {found[:12]}...; it was changed from outside. "
                    f"Put it back, or move {self._root} away to begin a new history"
                )
            self._advance(file, newest)
        self._point_head(newest.id)

    def _advance(self, file: str, commit: WeightCommit) -> None:
        if not self.checkpoint.adopt_aside(file, commit.after[file]):
            self._write_aside(file, read_delta(self._delta(commit.id)))
            if not self.checkpoint.adopt_aside(file, commit.after[file]):
                raise HistoryBroken(
                    f"the delta of {commit.id} does not lead to the bytes it promised for {file}"
                )

    def _point_head(self, identity: str) -> None:
        head = self._root / "HEAD"
        if head.is_file() and head.read_text().strip() == identity:
            return
        aside = self._root / "HEAD.new"
        aside.write_text(identity + "\n")
        sync(aside)
        aside.rename(head)
        sync(self._root)


def lessons_held(commits: Sequence[WeightCommit]) -> frozenset[str]:
    """The lessons that the weights of the newest commit have learned: those of all commits not undone."""
    held: dict[str | None, frozenset[str]] = {None: frozenset()}
    for commit in commits:
        if "restores" in commit.details:
            held[commit.id] = held[commit.details["restores"]]
        else:
            held[commit.id] = held[commit.parent] | set(commit.lessons)
    return held[commits[-1].id if commits else None]


def read_commits(directory: Path) -> tuple[WeightCommit, ...]:
    """The weight commits of a model directory, oldest first, without touching anything."""
    return tuple(
        _read_record(file) for file in sorted((directory / ".understudy" / "commits").glob("*.json"))
    )


def _read_record(file: Path) -> WeightCommit:
    try:
        held = json.loads(file.read_text())
        return WeightCommit(**{**held, "lessons": tuple(held["lessons"])})
    except (ValueError, TypeError, KeyError) as error:
        raise HistoryBroken(f"expected a weight commit's record in {file}: {error}") from error
