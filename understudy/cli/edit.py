"""`understudy edit`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    BodyOption,
    JsonOption,
    MessageOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def edit(
    file: str,
    text: str | None = None,
    *,
    message: MessageOption,
    body: BodyOption = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Replace the text of MESSAGE in the conversation FILE by TEXT.

    The editor opens with the message's text; if someone else changes it meanwhile, nothing is overwritten.
    An edit of the model's message becomes a proposed lesson: see `understudy lessons list`.
    """
    from understudy.cli.answering import print_posted, standing
    from understudy.cli.composing import composed
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    message = standing(repository, name, message)
    seen = repository.head()
    with composed(text, body, initial=repository.read(name, seen).message(message).body + "\n") as written:
        posted = repository.edit(name, message, author_or_login(author), written, expected_revision=seen)
    print_posted(name, posted, as_json)
