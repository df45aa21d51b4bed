"""`understudy import`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import (
    AuthorOption,
    JsonOption,
    WorkspaceOption,
    author_or_login,
    conversation_file,
)


def import_conversation(
    source: Path,
    file: str,
    *,
    model: Annotated[
        str | None, Parameter(help="Who the assistant of a chat export is; the workspace's model by itself.")
    ] = None,
    author: AuthorOption = None,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Make the new conversation FILE of SOURCE.

    SOURCE is a chat export: JSON or JSON Lines of {"messages": [{"role", "content"}, ...]}, each a thread; or
    a folder with public/data/conversation.md and participants.json: its Git history comes along.
    """
    from dataclasses import asdict

    from understudy.cli.answering import print_json
    from understudy.conversation import import_chats, import_older
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    name, person, model_name = conversation_file(file), author_or_login(author), opened.settings.model.name
    if source.is_dir():
        made = import_older(opened.repository, source, name, person, model_name=model_name)
    elif source.is_file():
        names = {"user": person, "assistant": model or model_name}
        made = import_chats(opened.repository, source, name, person, names=names)
    else:
        raise CommandError(f"expected a chat export or a folder to import, {source} is neither")
    if as_json:
        return print_json(asdict(made))
    print(f"{made.file}: {made.messages} messages, {made.commits} commits")
    if made.left_out:
        print(f"left out: {made.left_out} messages without any text")
    if made.participants:
        print(f"participants.toml was made; {person} has every right")
    return None
