"""`understudy split`."""

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


def split(
    file: str,
    title: str,
    *,
    message: MessageOption,
    paragraph: Annotated[int, Parameter(help="Which of the message's paragraphs, counted from 1.")],
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Open a thread called TITLE whose first message quotes a PARAGRAPH of MESSAGE and links to it.

    The message itself stays as it is.
    """
    from understudy.cli.answering import print_posted, standing
    from understudy.workspace import Workspace

    if paragraph < 1:
        raise CommandError(f"expected a paragraph, counted from 1, got {paragraph}")
    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    here = standing(repository, name, message)
    posted = repository.split(name, here, paragraph - 1, title, author_or_login(author))
    print_posted(name, posted, as_json)
