"""The merge driver: `git merge`, `git pull` and `git rebase` have us merge conversations."""

import os
import shlex
import sys
from pathlib import Path

import pygit2

from understudy.conversation.errors import NotAWorkspace
from understudy.conversation.files import FOLDER
from understudy.conversation.history import decode, encode
from understudy.conversation.merging import EditTimes, MergeNote, merge
from understudy.conversation.parser import parse
from understudy.conversation.uniting import edit_times

DRIVER = "understudy"
_ATTRIBUTE = f"{FOLDER}/** merge={DRIVER}"
_HEAD_PREFIX = "GITHEAD_"
"""`git merge` names the commits that it merges in variables of this beginning."""


def install_merge_driver(root: Path | str) -> None:
    """Make Git merge this clone's conversations by message. Doing it again changes nothing.

    It is a matter of the clone alone: two lines in its `.git/config`, one in `.git/info/attributes`.
    """
    try:
        git = pygit2.Repository(str(root))
    except pygit2.GitError as error:
        raise NotAWorkspace(f"{root} is not inside a Git repository ({error})") from error
    # -P: a module that lies in the conversations' repository must never be imported.
    command = [sys.executable, "-P", "-m", "understudy", "merge-driver"]
    git.config[f"merge.{DRIVER}.name"] = "conversations, by message"
    git.config[f"merge.{DRIVER}.driver"] = f"{shlex.join(command)} %O %A %B %P"
    attributes = _common_folder(Path(git.path)) / "info" / "attributes"
    text = attributes.read_text() if attributes.exists() else ""
    if _ATTRIBUTE not in text.splitlines():
        attributes.parent.mkdir(exist_ok=True)
        separator = "" if not text or text.endswith("\n") else "\n"
        attributes.write_text(f"{text}{separator}{_ATTRIBUTE}\n")


def _common_folder(folder: Path) -> Path:
    """The `.git` that all working trees of a clone share."""
    shared = folder / "commondir"
    return folder / shared.read_text().strip() if shared.exists() else folder


def drive_merge(base: Path, ours: Path, theirs: Path, file: str | None = None) -> tuple[MergeNote, ...]:
    """Merge three files into `ours`, as Git asks of a merge driver. `file` is the conversation's path.

    Raises, and leaves `ours` as it is, where malformed lines allow no merge.
    """
    versions = [parse(decode(path.read_bytes())) for path in (base, ours, theirs)]
    ours_edited, theirs_edited = _times(file)
    doc, notes = merge(
        versions[0], versions[1], versions[2], ours_edited=ours_edited, theirs_edited=theirs_edited
    )
    ours.write_bytes(encode(doc.text))
    return notes


def _times(file: str | None) -> tuple[EditTimes, EditTimes]:
    """When each side edited what, where Git says which commits it merges: a rebase does not."""
    heads = [name.removeprefix(_HEAD_PREFIX) for name in os.environ if name.startswith(_HEAD_PREFIX)]
    place = os.environ.get("GIT_DIR") or pygit2.discover_repository(".")
    if file is None or place is None or len(heads) > 2:
        return _unknown, _unknown
    try:
        git = pygit2.Repository(place)
    except pygit2.GitError:  # of a kind that only Git itself reads: merging needs no history
        return _unknown, _unknown
    if git.head_is_unborn:
        return _unknown, _unknown
    ours = git.head.target
    others = [head for head in heads if head != str(ours) and head in git]
    base = git.merge_base(ours, others[0]) if len(others) == 1 else None
    if base is None:
        return _unknown, _unknown
    return edit_times(git, base, ours, file), edit_times(git, base, pygit2.Oid(hex=others[0]), file)


def _unknown(message: object) -> None:
    return None
