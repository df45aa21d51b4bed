"""`understudy serve`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.options import WorkspaceOption


def serve(
    *,
    workspace: WorkspaceOption = Path(),
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 takes any free one.")] = None,
) -> None:
    """Serve the workspace until interrupted."""
    import os
    import sys

    from understudy.workspace import Workspace

    Workspace.open(workspace)  # what is wrong with it is said before the process changes
    command = [sys.executable, "-m", "understudy.server", "--workspace", str(workspace)]
    command += ["--host", host] if host is not None else []
    command += ["--port", str(port)] if port is not None else []
    os.execv(sys.executable, command)
