"""What is found at a start: which commit the files hold, and what a crash left lying about."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from understudy.weights.checkpoint import Checkpoint, OpenTensors, digest
from understudy.weights.disk import Disk
from understudy.weights.errors import HistoryBroken
from understudy.weights.records import FilesState, Folder, WeightCommit, read_base, read_state


def locate(checkpoint: Checkpoint, folder: Folder, commits: Sequence[WeightCommit]) -> FilesState | None:
    """Which commit the files hold: by size, time and inode, and in doubt by the hash of every tensor.

    None before the first commit. Raises HistoryBroken when they are of no commit.
    """
    if not commits:
        return None
    known = {None, *(commit.id for commit in commits)}
    with checkpoint.reading() as files:
        now = files.stats()
        for file in (folder.synced, folder.syncing):
            state = read_state(file)
            if state is not None and state.files == now and state.commit in known:
                return state
        return FilesState(_identify(files, folder, commits), now)


def _identify(files: OpenTensors, folder: Folder, commits: Sequence[WeightCommit]) -> str | None:
    found = {name: digest(files.read(name)) for name in files.checkpoint.names}
    for commit in reversed(commits):
        if commit.tensors == found:
            return commit.id
    base = read_base(folder)
    if base == found:
        return None
    directory = files.checkpoint.directory
    raise HistoryBroken(
        f"{directory} belongs to no known commit: {_differing(found, commits[-1].tensors, base)}; it was "
        "changed from outside. Put the old files back; if the change is meant, keep a copy of the changed "
        "ones elsewhere first and record it with `understudy weights commit --from COPY`. Or move "
        f"{folder.root} away to begin a new history"
    )


def _differing(found: Mapping[str, str], newest: Mapping[str, str], base: Mapping[str, str]) -> str:
    if found.keys() != newest.keys():
        names = sorted(found.keys() ^ newest.keys())
        return f"expected other tensors than it holds ({', '.join(names[:4])})"
    wrong = min(
        (sorted(n for n in found if found[n] != known[n]) for known in (newest, base)),
        key=len,
    )
    return f"{', '.join(wrong[:4])}{' ...' if len(wrong) > 4 else ''} are as no commit left them"


def leftovers(folder: Folder, commits: Sequence[WeightCommit]) -> list[Path]:
    """Files of commits and syncs that never came to be."""
    known = {commit.id for commit in commits}
    ours = (folder.base, folder.synced, folder.syncing, folder.thinned)
    drafts = [file.with_name(f"{file.name}.new") for file in ours]
    drafts += [folder.root / "index.new", folder.root / "pending.new", folder.cumulative]
    drafts += folder.commits.glob("*.new")
    orphans = (file for file in folder.commits.glob("*.delta") if file.stem not in known)
    return sorted({*(file for file in drafts if file.exists()), *orphans})


def remove_leftovers(disk: Disk, folder: Folder, commits: Sequence[WeightCommit]) -> list[Path]:
    """Remove them, and say which."""
    found = leftovers(folder, commits)
    for file in found:
        disk.remove(file)
    return found
