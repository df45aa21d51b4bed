"""`understudy merge-driver`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import WorkspaceOption


def merge_driver(
    base: Path | None = None,
    ours: Path | None = None,
    theirs: Path | None = None,
    file: str | None = None,
    *,
    install: Annotated[bool, Parameter(help="Make Git call this in the clone WORKSPACE.")] = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Merge the conversation THEIRS into OURS by message; BASE is what both came from, FILE its path.

    Git calls this, as `understudy merge-driver %O %A %B %P`. Say `understudy merge-driver --install` once in
    every clone in which you use `git pull` or `git merge`.
    """
    from understudy.conversation import drive_merge, install_merge_driver

    if install:
        install_merge_driver(workspace)
        print(f"git merges the conversations in {workspace.absolute()} by message now")
        return
    if base is None or ours is None or theirs is None:
        raise CommandError("expected three files, as Git gives them to a merge driver, or --install")
    for note in drive_merge(base, ours, theirs, file):
        print(f"understudy: {file or ours}: {note.kind} {note.message} {note.text[:60]!r}")
