"""`understudy start`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    BodyOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def start(
    file: str,
    title: str,
    text: str | None = None,
    *,
    body: BodyOption = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Open a thread called TITLE in the conversation FILE; TEXT is its first message.

    The file is made if it is not there. Prints the message's id.
    """
    from understudy.cli.answering import print_posted
    from understudy.cli.composing import composed
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    with composed(text, body) as written:
        posted = repository.start(name, title, author_or_login(author), written)
    print_posted(name, posted, as_json)
