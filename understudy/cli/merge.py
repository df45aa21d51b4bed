"""`understudy merge`."""

from pathlib import Path

from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def merge(
    file: str,
    source: str,
    target: str,
    *,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Put all that the thread SOURCE holds behind the thread TARGET (titles, in the conversation FILE)."""
    from understudy.cli.answering import print_posted
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    posted = repository.merge_threads(name, source, target, author_or_login(author))
    print_posted(name, posted, as_json)
