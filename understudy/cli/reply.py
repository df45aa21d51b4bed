"""`understudy reply`."""

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


def reply(
    file: str,
    text: str | None = None,
    *,
    to: MessageOption,
    body: BodyOption = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Reply to message TO in the conversation FILE with TEXT."""
    from understudy.cli.answering import print_posted, standing
    from understudy.cli.composing import composed
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    to = standing(repository, name, to)
    repository.read(name).message(to)  # a mistake is told before anyone writes a text
    with composed(text, body) as written:
        posted = repository.reply(name, to, author_or_login(author), written)
    print_posted(name, posted, as_json)
