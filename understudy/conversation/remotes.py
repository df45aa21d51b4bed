"""Clones: fetching what others said, merging it by message, and sending what was said here.

Git's own program carries the data, so every address, key and password that works with `git fetch` works here.
"""

import os
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pygit2

from understudy.conversation.drivers import install_merge_driver
from understudy.conversation.errors import (
    MergeStopped,
    NotAWorkspace,
    PushRejected,
    RemoteFailure,
    RepositoryFailure,
    UnknownRemote,
    UnknownRevision,
)
from understudy.conversation.files import is_conversation
from understudy.conversation.merging import MergeNote
from understudy.conversation.repository import ConversationRepository
from understudy.conversation.store import GitStore, Person
from understudy.conversation.trailers import commit_message
from understudy.conversation.uniting import unite
from understudy.conversation.writing import HAND

ORIGIN = "origin"
"""What Git calls the repository that a clone was made from."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """What a pull came to: the newest commit now, and the one before it."""

    commit: str
    before: str | None
    merged: bool
    """Whether both sides had something new, so that a merge was committed."""
    notes: Mapping[str, tuple[MergeNote, ...]] = field(default_factory=dict, hash=False)
    """What the merge decided, by conversation."""


def clone(address: str, path: Path | str) -> ConversationRepository:
    """Copy a workspace's repository to a new folder, ready to pull from and push to where it came from."""
    _git(Path.cwd(), "clone", "--quiet", "--", address, str(path))
    repo = ConversationRepository.open(path)
    install_merge_driver(repo.root)
    return repo


def add_remote(repo: ConversationRepository, address: str, name: str = ORIGIN) -> None:
    """Name the repository at an address (a path, `ssh://`, `https://`), for `pull` and `push`."""
    _git(repo.root, "remote", "add", "--", name, address)


def push(repo: ConversationRepository, remote: str = ORIGIN) -> str:
    """Send this branch; returns the newest commit that the other side has now.

    Raises `PushRejected` when the other side has something new: pull first.
    """
    store = GitStore(repo.root)
    _known(store, remote)
    commit = store.tip()
    if commit is None:
        raise UnknownRevision(f"{repo.root} has no commit yet: there is nothing to push")
    done = _ask_git(repo.root, "push", "--quiet", "--porcelain", "--", remote, f"{commit}:{store.branch}")
    if done.returncode:
        refused = [line for line in done.stdout.splitlines() if line.startswith("!")]
        if any("fetch first" in line or "non-fast-forward" in line for line in refused):
            raise PushRejected(f"{remote!r} has something new: pull, then push again; nothing was sent")
        raise RemoteFailure(_failure("push", done, refused))
    return commit


def pull(
    repo: ConversationRepository, author: str, remote: str = ORIGIN, *, email: str | None = None
) -> Pulled:
    """Fetch this branch and merge it in, by message: there are no conflicts in conversations.

    When both sides have something new, a merge is committed by `author`. Edits that people left in working
    files are committed first, by `hand`. Raises `MergeStopped`, and changes nothing, when both sides changed
    the same lines of a file that is no conversation, or such a file has changes here that are not committed.
    """
    store = GitStore(repo.root)
    person = repo._person(author, email)
    theirs = _fetched(store, remote)
    with store.writing():
        _commit_hand_edits(store, repo._clock())
        while True:
            ours = store.tip()
            pulled = _join(store, ours, theirs, person.at(repo._clock()))
            if pulled is not None:
                return pulled


def _fetched(store: GitStore, remote: str) -> str:
    """Fetch the branch that is checked out, and give its newest commit."""
    _known(store, remote)
    name = store.branch.removeprefix("refs/heads/")
    there = f"refs/remotes/{remote}/{name}"
    _git(
        *(store.root, "fetch", "--quiet", "--no-tags", "--no-auto-maintenance"),
        *("--", remote, f"+{store.branch}:{there}"),
    )
    return str(store.git.references[there].target)


def _join(store: GitStore, ours: str | None, theirs: str, signature: pygit2.Signature) -> Pulled | None:
    """Bring the branch to hold both; None if someone committed meanwhile."""
    git = store.git
    if ours is not None and (ours == theirs or git.descendant_of(ours, theirs)):
        return Pulled(ours, ours, merged=False)
    if ours is None or git.descendant_of(theirs, ours):
        changed = _check_clean(store, ours, git[theirs].tree)
        done = _ask_git(store.root, "update-ref", "-m", "pull", store.branch, theirs, ours or "0" * 40)
        if done.returncode == 0:
            return _arrive(store, ours, theirs, changed)
        _check_moved_on(store, ours, done.stderr)
        return None
    bases = _ask_git(store.root, "merge-base", "--all", ours, theirs).stdout.split()
    if not bases:
        raise MergeStopped("the two repositories have no commit in common: this is not a clone of that one")
    sides = pygit2.Oid(hex=ours), pygit2.Oid(hex=theirs)
    united = unite(git, [pygit2.Oid(hex=base) for base in bases], *sides)
    changed = _check_clean(store, ours, git[united.tree])
    message = _message(united.notes, changed)
    try:
        commit = git.create_commit(store.branch, signature, signature, message, united.tree, [ours, theirs])
    except (pygit2.GitError, OSError, ValueError) as error:
        _check_moved_on(store, ours, str(error))
        return None
    return _arrive(store, ours, str(commit), changed, united.notes)


def _check_moved_on(store: GitStore, tip: str | None, error: str) -> None:
    """`RepositoryFailure` unless someone else's commit is why Git refused ours."""
    if store.tip() == tip:
        raise RepositoryFailure(f"Git could not commit the merge, nothing was changed: {error}")


def _message(notes: Mapping[str, tuple[MergeNote, ...]], changed: Iterable[str]) -> str:
    files = [file for file in changed if is_conversation(file)]
    moved = {
        note.before: note.message
        for found in notes.values()
        for note in found
        if note.kind == "id-changed" and note.before
    }
    where = files[0] if len(files) == 1 else f"{len(files)} conversations"
    return commit_message("merge", where, None, None, None, moved=moved)


def _check_clean(store: GitStore, ours: str | None, tree: pygit2.Tree) -> list[str]:
    """The files that will change; `MergeStopped` if a person's work in one of them would be lost."""
    before = store.tree(ours)
    diff = before.diff_to_tree(tree) if before else tree.diff_to_tree(swap=True)
    changed = sorted({file.path for delta in diff.deltas for file in (delta.old_file, delta.new_file)})
    dirty = [
        file
        for file in changed
        if not is_conversation(file)
        and _hash(store.root / file) not in (None, store.blob_id(file, ours), _blob(tree, file))
    ]
    if dirty:
        raise MergeStopped(
            f"{', '.join(dirty)} changed on the other side, and here without being committed; "
            "nothing was changed: commit or move away what is here first"
        )
    return changed


def _arrive(
    store: GitStore,
    ours: str | None,
    commit: str,
    changed: Iterable[str],
    notes: Mapping[str, tuple[MergeNote, ...]] | None = None,
) -> Pulled:
    """Give the working tree what the branch has now."""
    for file in changed:
        path, earlier = store.root / file, store.blob_id(file, ours)
        if store.blob_id(file, commit) is None and earlier is not None and _hash(path) == earlier:
            path.unlink()
    store.settle(changed, known=ours)
    return Pulled(commit, ours, merged=notes is not None, notes=notes or {})


def _commit_hand_edits(store: GitStore, now: datetime) -> None:
    while edits := store.hand_edits(sorted(store.working_files()), deletions=False):
        where = next(iter(edits)) if len(edits) == 1 else f"{len(edits)} files"
        message = commit_message(HAND, where, None, None, None)
        if store.commit(edits, Person.named(HAND), now, now, message, store.tip()):
            return


def _known(store: GitStore, remote: str) -> None:
    names = list(store.git.remotes.names())
    if remote not in names:
        raise UnknownRemote(
            f"no remote {remote!r} here; there are: {', '.join(map(str, names)) or 'none'}: "
            f"add it with 'git remote add {remote} <address>'"
        )


def _hash(path: Path) -> str | None:
    return str(pygit2.hash(path.read_bytes())) if path.is_file() else None


def _blob(tree: pygit2.Tree, file: str) -> str | None:
    return str(tree[file].id) if file in tree else None


def _git(root: Path, *arguments: str) -> None:
    done = _ask_git(root, *arguments)
    if done.returncode:
        raise RemoteFailure(_failure(arguments[0], done))


def _ask_git(root: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    # No questions, neither Git's nor ssh's: a program that has no one to ask would wait for ever.
    environment = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotAWorkspace(f"the folder {root} and Git's program 'git' are needed: {error}") from error


def _failure(verb: str, done: "subprocess.CompletedProcess[str]", refused: Iterable[str] = ()) -> str:
    said = " ".join("; ".join([*refused, done.stderr]).split())
    return f"git {verb} failed, nothing was changed here: {said}"
