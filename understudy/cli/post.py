"""`understudy post`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    BodyOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def post(
    file: str,
    thread: str,
    text: str | None = None,
    *,
    body: BodyOption = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Say TEXT at the end of THREAD (its title) in the conversation FILE, in answer to no one."""
    from understudy.cli.answering import print_posted
    from understudy.cli.composing import composed
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    repository.read(name).thread(thread)  # a mistake is told before anyone writes a text
    with composed(text, body) as written:
        posted = repository.post(name, thread, author_or_login(author), written)
    print_posted(name, posted, as_json)
