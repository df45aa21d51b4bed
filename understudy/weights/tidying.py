"""Giving back room: what crashes left behind, and the deltas of commits that no one will go back to."""

import json
from dataclasses import dataclass
from pathlib import Path

from understudy.weights.checkpoint import Checkpoint
from understudy.weights.disk import Disk, storing
from understudy.weights.history import WeightHistory
from understudy.weights.records import Folder, read_commits, read_thinned
from understudy.weights.recovery import leftovers
from understudy.weights.syncing import plain_name


@dataclass(frozen=True, slots=True)
class Tidied:
    """What was removed. `thinned`: the commits whose deltas were given up; their records stay."""

    files: tuple[str, ...]
    thinned: tuple[str, ...]
    bytes_freed: int


def tidy(
    directory: Path, keep: int | None = None, *, spares: bool = False, disk: Disk | None = None
) -> Tidied:
    """Remove leftovers, and with `keep` the deltas of all but so many of the newest commits.

    The weights can then be brought back to those commits and to the one before them, and no further.
    `spares`: remove the spare generations as well; the next sync then writes whole files. The caller
    holds the directory (`teaching`). Brings the files up to date first: no delta goes that is still needed.
    """
    disk = disk or Disk()
    folder = Folder.of(directory)
    gone = leftovers(folder, read_commits(directory))
    sizes = {file: file.stat().st_size for file in gone}
    history = WeightHistory.open(directory, disk=disk)
    through = max(len(history.commits) - keep, read_thinned(folder)) if keep is not None else 0
    thinned = [c for c in history.commits[:through] if folder.delta(c.id).is_file()]
    sizes |= {file: file.stat().st_size for file in _strangers(folder, history.checkpoint, spares=spares)}
    sizes |= {folder.delta(c.id): folder.delta(c.id).stat().st_size for c in thinned}
    with storing("what was tidied", directory):
        if thinned:
            disk.replace(folder.thinned, json.dumps({"through": through}).encode())
        for file in sizes:
            disk.remove(file)
        disk.sync_directory(folder.commits)
        disk.sync_directory(folder.spare)
    return Tidied(
        tuple(sorted(str(file.relative_to(directory)) for file in sizes)),
        tuple(commit.id for commit in thinned),
        sum(sizes.values()),
    )


def _strangers(folder: Folder, checkpoint: Checkpoint, *, spares: bool) -> list[Path]:
    """Spares of files that the model no longer has, or all; and successors that an old sync left beside."""
    ours = set() if spares else {plain_name(file) for file in checkpoint.files}
    found = [file for file in folder.spare.iterdir() if file.name not in ours]
    beside = (checkpoint.directory / f"{file}.new" for file in checkpoint.files)
    return found + [file for file in beside if file.is_file()]
