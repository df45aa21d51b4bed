"""`understudy edit`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
    text_or_stdin,
)


def edit(
    file: str,
    text: str | None = None,
    *,
    message: str,
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Replace the text of MESSAGE in the conversation FILE by TEXT (or standard input).

    An edit of the model's message becomes a proposed lesson: see `understudy lessons list`.
    """
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    posted = repository.edit(conversation_file(file), message, author_or_login(author), text_or_stdin(text))
    print(posted.message)
