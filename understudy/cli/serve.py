"""`understudy serve`."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import WorkspaceOption


def serve(
    *flags: Annotated[str, Parameter(allow_leading_hyphen=True, help="Flags of `vllm serve`, with vLLM.")],
    workspace: WorkspaceOption = Path(),
    engine: Annotated[
        Literal["embedded", "vllm"], Parameter(help="Ours, in the server's process, or vLLM with the plugin.")
    ] = "embedded",
    model: Annotated[Path | None, Parameter(help="A model directory, in place of the workspace's.")] = None,
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None,
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 takes any free one.")] = None,
) -> None:
    """Serve the workspace until interrupted."""
    import os
    import sys

    from understudy.workspace import Workspace

    address = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    given = {
        **({"server": address} if address else {}),
        **({"model": {"path": str(model.absolute())}} if model is not None else {}),
    }
    Workspace.open(workspace, **given)  # what is wrong with it is said before the process changes
    if flags and engine != "vllm":
        raise CommandError(f"expected no further words, got {' '.join(flags)}: they are for --engine vllm")
    command = [sys.executable, "-m", "understudy.server", "--workspace", str(workspace)]
    command += ["--host", host] if host is not None else []
    command += ["--port", str(port)] if port is not None else []
    command += ["--model", str(model.absolute())] if model is not None else []
    command += ["--engine", engine, *flags]
    os.execv(sys.executable, command)
