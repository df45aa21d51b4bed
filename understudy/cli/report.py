"""`understudy report`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import WorkspaceOption


def report(
    session_or_commit: str,
    *,
    workspace: WorkspaceOption = Path(),
    out: Annotated[
        Path | None,
        Parameter(help="The folder for report.json and report.html; named after the commit when not given."),
    ] = None,
) -> None:
    """Write what a training session did: outcomes, margins, losses, and what moved by layer and head.

    SESSION_OR_COMMIT is a session's id or the beginning of a weight commit's. Only reads, so the server may
    be running.
    """
    from understudy.lessons import Decisions
    from understudy.watching import read_session_report, write_session_report
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    directory = opened.model_path
    if not isinstance(directory, Path):
        raise CommandError(f"expected a model directory with a history, got {directory!r}")
    found = read_session_report(directory, session_or_commit, Decisions(opened.ledger.path))
    data, page = write_session_report(out or Path(f"report-{found.commit}"), found)
    print(f"{page}\n{data}")
