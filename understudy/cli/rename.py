"""`understudy rename`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def rename(
    file: str,
    thread: str,
    title: str,
    *,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Give the thread called THREAD in the conversation FILE the title TITLE.

    Its messages get other ids; their permanent links stay what they were.
    """
    from understudy.cli.answering import print_posted
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    print_posted(name, repository.rename(name, thread, title, author_or_login(author)), as_json)
