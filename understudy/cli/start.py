"""`understudy start`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
    text_or_stdin,
)


def start(
    file: str,
    title: str,
    text: str | None = None,
    *,
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Open a thread called TITLE in the conversation FILE; TEXT (or standard input) is its first message."""
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    posted = repository.start(conversation_file(file), title, author_or_login(author), text_or_stdin(text))
    print(posted.message)
