"""`understudy weights ...`."""

from pathlib import Path

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, WorkspaceOption, author_or_login

INITIAL = "initial"


def log_weights(*, workspace: WorkspaceOption = Path()) -> None:
    """List the weight commits with who taught what."""
    from understudy.weights import read_commits
    from understudy.workspace import Workspace

    directory = Workspace.open(workspace).model_path
    if not isinstance(directory, Path):
        raise CommandError(f"expected a model directory with a history, got {directory!r}")
    for commit in read_commits(directory):
        print(f"{commit.id}  {commit.created}  {commit.author}: {commit.message}")


def restore_weights(commit: str, *, author: AuthorOption = None, workspace: WorkspaceOption = Path()) -> None:
    """Bring the served weights back to COMMIT, or to `initial`: the model as it came."""
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    body = {"commit": None if commit == INITIAL else commit, "author": author_or_login(author)}
    answer = call(Workspace.open(workspace), "POST", "/weights/restore", body)
    print(f"{answer['commit']}  restored {commit}")
