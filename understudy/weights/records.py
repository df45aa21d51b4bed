"""The records of a history: who changed the weights, why, and what they were afterwards, by hash."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from understudy.weights.checkpoint import FileStat
from understudy.weights.disk import Disk
from understudy.weights.errors import HistoryBroken

ID_LENGTH = 12
FOLDER = ".understudy"


@dataclass(frozen=True, slots=True)
class WeightCommit:
    """One recorded change of the weights.

    `tensors` is the SHA-256 of every tensor's bytes afterwards, by name; `update_norm` the 2-norm of the
    change. The id is a hash over all the rest, so a record cannot be altered unnoticed.
    """

    id: str
    number: int
    parent: str | None
    created: str
    message: str
    author: str
    session: str | None
    lessons: tuple[str, ...]
    tensors: Mapping[str, str]
    update_norm: float
    details: Mapping[str, Any] = field(default_factory=dict)

    def identified(self) -> "WeightCommit":
        """The same commit under the id that its contents give."""
        contents = {key: value for key, value in asdict(self).items() if key != "id"}
        canonical = json.dumps(contents, sort_keys=True, separators=(",", ":"))
        return replace(self, id=hashlib.sha256(canonical.encode()).hexdigest()[:ID_LENGTH])


@dataclass(frozen=True, slots=True)
class FilesState:
    """Which commit the model directory's own files hold, and how to recognise them."""

    commit: str | None
    files: Mapping[str, FileStat]


@dataclass(frozen=True, slots=True)
class Folder:
    """The names under `<model>/.understudy/`."""

    root: Path

    @classmethod
    def of(cls, directory: Path) -> "Folder":
        return cls(directory / FOLDER)

    @property
    def commits(self) -> Path:
        return self.root / "commits"

    @property
    def spare(self) -> Path:
        """The generation of each file before the visible one: the next one grows from it."""
        return self.root / "spare"

    @property
    def base(self) -> Path:
        """The hashes of the model as it came."""
        return self.root / "base.json"

    @property
    def synced(self) -> Path:
        """Which commit the files hold."""
        return self.root / "synced.json"

    @property
    def syncing(self) -> Path:
        """Which commit they will hold once a sync has made its switch."""
        return self.root / "syncing.json"

    @property
    def cumulative(self) -> Path:
        """What leads from the files to the newest commit at once; made anew by each process that needs it."""
        return self.root / "pending.delta"

    @property
    def thinned(self) -> Path:
        """Up to which commit the deltas were given up."""
        return self.root / "thinned.json"

    def delta(self, identity: str) -> Path:
        return self.commits / f"{identity}.delta"

    def record(self, commit: WeightCommit) -> Path:
        return self.commits / f"{commit.number:06d}-{commit.id}.json"

    def make(self, disk: Disk) -> None:
        for folder in (self.root, self.commits, self.spare):
            if not folder.is_dir():
                disk.make_directory(folder)
                disk.sync_directory(folder.parent)


def read_commits(directory: Path) -> tuple[WeightCommit, ...]:
    """The weight commits of a model directory, oldest first, without touching anything.

    Raises HistoryBroken when a record is damaged, altered or missing from the row.
    """
    found: list[WeightCommit] = []
    for file in sorted(Folder.of(directory).commits.glob("*.json")):
        commit = _read_record(file)
        parent = found[-1].id if found else None
        if (commit.number, commit.parent) != (len(found) + 1, parent):
            raise HistoryBroken(
                f"expected commit {len(found) + 1} after {parent or 'nothing'}, found {commit.number} after "
                f"{commit.parent or 'nothing'} in {file}: a record is missing or doubled; bring "
                f"{file.parent} back from a backup"
            )
        found.append(commit)
    return tuple(found)


def _read_record(file: Path) -> WeightCommit:
    try:
        held = json.loads(file.read_bytes())
        commit = WeightCommit(**{**held, "lessons": tuple(held["lessons"])})
    except (ValueError, TypeError, KeyError) as error:
        raise HistoryBroken(f"expected a weight commit's record in {file}: {error}") from error
    if commit.identified().id != commit.id or not file.name.endswith(f"-{commit.id}.json"):
        raise HistoryBroken(
            f"expected the record of {commit.identified().id} by its contents in {file}, which calls itself "
            f"{commit.id}: it was altered; bring it back from a backup"
        )
    return commit


def write_record(disk: Disk, folder: Folder, commit: WeightCommit) -> None:
    """The commit exists when this returns; it may exist when this fails, and then is removed again."""
    file = folder.record(commit)
    try:
        disk.replace(file, json.dumps(asdict(commit), indent=1, sort_keys=True).encode())
    except OSError:
        disk.remove(file)
        raise


def lessons_held(commits: Sequence[WeightCommit]) -> frozenset[str]:
    """The lessons that the weights of the newest commit have learned: those of all commits not undone."""
    return frozenset(lesson for commit in changes_held(commits) for lesson in commit.lessons)


def changes_held(commits: Sequence[WeightCommit]) -> tuple[WeightCommit, ...]:
    """The commits whose changes the newest one's weights hold: those not undone, oldest first."""
    by_id = {commit.id: commit for commit in commits}
    held: list[WeightCommit] = []
    current = commits[-1].id if commits else None
    while current is not None:
        commit = by_id[current]
        if "restores" in commit.details:
            current = commit.details["restores"]
        else:
            held.append(commit)
            current = commit.parent
    return tuple(reversed(held))


def write_base(disk: Disk, folder: Folder, tensors: Mapping[str, str]) -> None:
    """Remember the model as it came, before its first commit."""
    disk.replace(folder.base, json.dumps({"tensors": tensors}, indent=1, sort_keys=True).encode())


def read_base(folder: Folder) -> dict[str, str]:
    """SHA-256 by tensor of the model as it came. Raises HistoryBroken when it was not written down."""
    try:
        held = json.loads(folder.base.read_bytes())
        return {str(name): str(value) for name, value in held["tensors"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise HistoryBroken(
            f"expected the hashes of the model as it came in {folder.base}: {error}; "
            "bring it back from a backup"
        ) from error


def write_state(disk: Disk, file: Path, state: FilesState) -> None:
    disk.replace(file, json.dumps(asdict(state), indent=1, sort_keys=True).encode())


def read_state(file: Path) -> FilesState | None:
    """None when there is none, or it cannot be read: the files' hashes tell as well, only slower."""
    try:
        held = json.loads(file.read_bytes())
        return FilesState(held["commit"], {name: FileStat(**entry) for name, entry in held["files"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def read_thinned(folder: Folder) -> int:
    """The number of the newest commit whose delta was given up; 0 when all are there."""
    try:
        return int(json.loads(folder.thinned.read_bytes())["through"])
    except FileNotFoundError:
        return 0
    except (ValueError, TypeError, KeyError) as error:
        raise HistoryBroken(f"expected a number in {folder.thinned}: {error}") from error
