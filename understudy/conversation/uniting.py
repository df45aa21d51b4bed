"""Merging two commits: conversations by message, all other files as Git does."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache

import pygit2
from pygit2.enums import DeltaStatus, FileMode

from understudy.conversation.document import Message
from understudy.conversation.errors import MergeStopped, StructureChanged
from understudy.conversation.files import is_conversation
from understudy.conversation.history import blob_at, changes_between, decode, encode
from understudy.conversation.merging import EditTimes, MergeNote, merge
from understudy.conversation.parser import parse


@dataclass(frozen=True, slots=True)
class United:
    """The tree that two commits merge to, and what the merge decided in each conversation."""

    tree: pygit2.Oid
    notes: Mapping[str, tuple[MergeNote, ...]]


@dataclass(frozen=True, slots=True)
class _File:
    """A conversation in the base and on both sides: its path and blob, None where it is not."""

    base: tuple[str, str] | None
    ours: tuple[str, str] | None
    theirs: tuple[str, str] | None


def unite(
    git: pygit2.Repository, bases: Sequence[pygit2.Oid], ours: pygit2.Oid, theirs: pygit2.Oid
) -> United:
    """Merge two commits. `bases` are the newest commits that both hold, at least one.

    A conversation that one side removed stays if the other said or edited something in it, with that alone.
    One that both renamed gets the name that sorts first; two that came to have one name become one. Raises
    `MergeStopped` when both changed the same place of another file.
    """
    base = _base_tree(git, bases)
    trees = base, git[ours].tree, git[theirs].tree
    index = git.merge_trees(*trees)
    _refuse_conflicts(index)
    for path in [entry.path for entry in index if is_conversation(entry.path)]:
        index.remove(path)
    texts: dict[str, list[bytes]] = {}
    notes: dict[str, tuple[MergeNote, ...]] = {}
    for file in _files(git, trees):
        path = _path(file)
        data, found = _merged(git, file, (bases[0], ours, theirs))
        if data is not None:
            texts.setdefault(path, []).append(data)
            notes[path] = notes.get(path, ()) + found
    for path, versions in texts.items():
        data = versions[0]
        for other in versions[1:]:
            doc, found = merge(parse(""), parse(decode(data)), parse(decode(other)))
            data, notes[path] = encode(doc.text), notes[path] + found
        index.add(pygit2.IndexEntry(path, git.create_blob(data), FileMode.BLOB))
    return United(index.write_tree(git), {path: found for path, found in notes.items() if found})


def _base_tree(git: pygit2.Repository, bases: Sequence[pygit2.Oid]) -> pygit2.Tree:
    """What both sides came from: a merge of two commits, where earlier merges crossed each other."""
    if len(bases) == 2 and (before := git.merge_base(*bases)) is not None:
        try:
            return git[unite(git, [before], *bases).tree]
        except (MergeStopped, StructureChanged):  # then one of the two has to do
            pass
    return git[bases[0]].tree


def edit_times(git: pygit2.Repository, base: pygit2.Oid | None, tip: pygit2.Oid, file: str) -> EditTimes:
    """When messages were last edited between two commits; the history is read at the first question."""

    @cache
    def times() -> dict[str, datetime]:
        found: dict[str, datetime] = {}
        for change in changes_between(git, base, tip, file):
            found.update({new: found.pop(old) for old, new in change.moved.items() if old in found})
            found.update({new.id: change.time for _, new in change.edited})
        return found

    def edited(message: Message) -> datetime | None:
        return times().get(message.id)

    return edited


def _refuse_conflicts(index: pygit2.Index) -> None:
    conflicts = [[entry.path for entry in entries if entry] for entries in index.conflicts or ()]
    stopped = sorted({path for paths in conflicts for path in paths if not any(map(is_conversation, paths))})
    if stopped:
        raise MergeStopped(
            f"both sides changed the same lines of {', '.join(stopped)}; nothing was merged: "
            "run 'git merge' and settle these by hand"
        )
    for path in {path for paths in conflicts for path in paths}:
        del index.conflicts[path]


def _files(git: pygit2.Repository, trees: tuple[pygit2.Tree, pygit2.Tree, pygit2.Tree]) -> Iterable[_File]:
    base, *sides = [_conversations(tree) for tree in trees]
    renamed = [_renames(git, trees[0], tree) for tree in trees[1:]]
    seen: tuple[set[str], set[str]] = (set(), set())
    for path, blob in base.items():
        found: list[tuple[str, str] | None] = []
        for side in (0, 1):
            now = path if path in sides[side] else renamed[side].get(path)
            found.append((now, sides[side][now]) if now else None)
            seen[side].update([now] if now else [])
        yield _File((path, blob), *found)
    for path in sorted((sides[0].keys() - seen[0]) | (sides[1].keys() - seen[1])):
        added = [
            (path, sides[side][path]) if path in sides[side] and path not in seen[side] else None
            for side in (0, 1)
        ]
        yield _File(None, *added)


def _conversations(tree: pygit2.Tree) -> dict[str, str]:
    index = pygit2.Index()
    index.read_tree(tree)
    paths = (entry.path for entry in index if is_conversation(entry.path))
    return {path: blob for path in paths if (blob := blob_at(tree, path))}


def _renames(git: pygit2.Repository, before: pygit2.Tree, after: pygit2.Tree) -> dict[str, str]:
    diff = git.diff(before, after)
    diff.find_similar()
    return {
        delta.old_file.path: delta.new_file.path
        for delta in diff.deltas
        if delta.status == DeltaStatus.RENAMED and is_conversation(delta.new_file.path)
    }


def _path(file: _File) -> str:
    base = file.base[0] if file.base else None
    paths = {side[0] for side in (file.ours, file.theirs) if side}
    return min(paths - {base} or paths or {base or ""})


def _merged(
    git: pygit2.Repository, file: _File, commits: tuple[pygit2.Oid, pygit2.Oid, pygit2.Oid]
) -> tuple[bytes | None, tuple[MergeNote, ...]]:
    """The conversation's bytes, None where it is removed, and what was decided."""
    base, ours, theirs = (entry[1] if entry else None for entry in (file.base, file.ours, file.theirs))
    if ours == theirs or theirs == base:
        return _data(git, ours), ()
    if ours == base:
        return _data(git, theirs), ()
    versions = [parse(decode(_data(git, blob) or b"")) for blob in (base, ours, theirs)]
    times: list[Callable[[Message], datetime | None]] = [
        edit_times(git, commits[0], tip, entry[0] if entry else "")
        for tip, entry in zip(commits[1:], (file.ours, file.theirs), strict=True)
    ]
    doc, notes = merge(versions[0], versions[1], versions[2], ours_edited=times[0], theirs_edited=times[1])
    removed = None in (ours, theirs) and not doc.threads
    return (None if removed else encode(doc.text)), notes


def _data(git: pygit2.Repository, blob: str | None) -> bytes | None:
    return bytes(git[blob].data) if blob else None
