"""`understudy serve`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from understudy.cli.options import WorkspaceOption


def serve(
    *,
    workspace: WorkspaceOption = Path(),
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 takes any free one.")] = None,
) -> None:
    """Serve the workspace until interrupted."""
    import logging

    from understudy.server import serve_workspace
    from understudy.workspace import Workspace

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    given: dict[str, Any] = {
        key: value for key, value in {"host": host, "port": port}.items() if value is not None
    }
    serve_workspace(Workspace.open(workspace, server=given) if given else Workspace.open(workspace))
