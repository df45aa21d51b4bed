"""`understudy delete`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    MessageOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def delete(
    file: str,
    *,
    message: MessageOption,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Delete MESSAGE from the conversation FILE; where others have answered it, its place stays, marked.

    Git's history keeps what it said: `understudy history` shows it.
    """
    from understudy.cli.answering import print_posted, standing
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    here = standing(repository, name, message)
    print_posted(name, repository.delete(name, here, author_or_login(author)), as_json)
