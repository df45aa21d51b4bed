"""`understudy status`."""

from pathlib import Path

from understudy.cli.options import WorkspaceOption


def status(*, workspace: WorkspaceOption = Path()) -> None:
    """What the server of the workspace and its trainer are doing."""
    from rich import print_json

    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    print_json(data=call(Workspace.open(workspace), "GET", "/train/status"))
