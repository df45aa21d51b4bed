"""`understudy reply`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
    text_or_stdin,
)


def reply(
    file: str,
    text: str | None = None,
    *,
    to: str,
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Reply to message TO in the conversation FILE with TEXT (or standard input)."""
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    posted = repository.reply(conversation_file(file), to, author_or_login(author), text_or_stdin(text))
    print(posted.message)
