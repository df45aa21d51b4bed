"""`understudy restore`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    MessageOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def restore(
    file: str,
    *,
    message: MessageOption,
    commit: Annotated[
        str | None, Parameter(help="The commit that deleted it; the newest one that did when not given.")
    ] = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Bring the deleted MESSAGE of the conversation FILE back, with what its author had said below it.

    It stands where it stood, with the same author, time and id. What others said since stays as it is.
    """
    from understudy.cli.answering import print_posted, standing
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    here = standing(repository, name, message).rpartition("#")[2]
    deleted_in = commit if commit is not None else repository.deleted_in(name, here)
    print_posted(name, repository.restore(name, here, deleted_in, author_or_login(author)), as_json)
