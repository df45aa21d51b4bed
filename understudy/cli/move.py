"""`understudy move`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    MessageOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def move(
    file: str,
    *,
    message: MessageOption,
    thread: Annotated[str | None, Parameter(help="The title of a thread that is there.")] = None,
    title: Annotated[str | None, Parameter(help="The title of a new thread.")] = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Move MESSAGE and all replies below it to the end of THREAD, or into a new thread called TITLE.

    Prints the id that the message has there; its permanent link stays what it was.
    """
    from understudy.cli.answering import print_posted, standing
    from understudy.workspace import Workspace

    if (thread is None) == (title is None):
        raise CommandError("expected --thread or --title, one of the two")
    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    here = standing(repository, name, message)
    print_posted(name, repository.move(name, here, thread, author_or_login(author), title=title), as_json)
