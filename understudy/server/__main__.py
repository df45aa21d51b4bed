"""`python -m understudy.server`: the server process of a workspace."""

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

from understudy.config import ConfigError
from understudy.conversation import ConversationError
from understudy.server.assembly import serve_workspace
from understudy.server.vllm_launch import VllmFailed, serve_with_vllm
from understudy.workspace import Workspace, WorkspaceError


def main() -> None:
    """Entry point; `understudy serve` becomes this process."""
    parser = argparse.ArgumentParser(description="Serve a workspace until interrupted.")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--host", default=None)
    parser.add_argument("--port", type=int, default=None)
    parser.add_argument("--model", default=None)
    parser.add_argument("--engine", choices=("embedded", "vllm"), default="embedded")
    known, flags = parser.parse_known_args()
    if flags and known.engine != "vllm":
        parser.error(f"unrecognized arguments: {' '.join(flags)}")
    given = vars(known)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        sys.exit(_serve(given, flags))
    except _expected() as error:
        sys.exit(f"understudy: {error}")


def _serve(given: dict[str, Any], vllm_flags: list[str]) -> int:
    address: dict[str, Any] = {key: given[key] for key in ("host", "port") if given[key] is not None}
    flags: dict[str, Any] = {"server": address} if address else {}
    if given["model"] is not None:
        flags["model"] = {"path": given["model"]}
    workspace = Workspace.open(given["workspace"], **flags)
    if given["engine"] == "vllm":
        return serve_with_vllm(workspace, vllm_flags)
    serve_workspace(workspace)
    return 0


def _expected() -> tuple[type[Exception], ...]:
    """What a person can mend: said in a line, without a traceback."""
    from understudy.engine import EngineError
    from understudy.weights import WeightsError

    return (ConfigError, WorkspaceError, ConversationError, EngineError, WeightsError, VllmFailed, OSError)


if __name__ == "__main__":
    main()
