"""`understudy show`."""

from pathlib import Path
from typing import TYPE_CHECKING

from understudy.cli.options import JsonOption, WorkspaceOption, conversation_file

if TYPE_CHECKING:
    from understudy.conversation import Message


def show(what: str, *, as_json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """Show a conversation as it reads, or one message with the replies below it.

    WHAT is a conversation's name, or a permanent link, `conversations/talk.md#id` or the id alone: it finds
    the message wherever it was moved.
    """
    from understudy.cli.answering import print_json
    from understudy.conversation import Index, export_json
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    file, mark, message = what.partition("#")
    name = conversation_file(file)
    if not mark and name in repository.files():
        conversation = repository.read(name)
        if as_json:
            return print_json(export_json({name: conversation})["conversations"][0])
        for thread in conversation.threads:
            print(f"### {thread.title}\n")
            for root in thread.messages:
                _print(root)
        return None
    index = Index(repository)
    if not mark and not _is_id(what):
        repository.read(name)  # says that there is no such conversation, and which there are
    place = index.resolve(f"{name}#{message}" if mark else what)
    found = repository.read(place.file).message(place.id)
    if as_json:
        data = export_json({place.file: repository.read(place.file)})["conversations"][0]
        rows = {row["id"]: row for thread in data["threads"] for row in thread["messages"]}
        below = [rows[one.id] for one in found.walk()]
        link = index.anchor(place.file, place.id)
        return print_json({"file": place.file, "thread": found.thread.title, "link": link, "messages": below})
    print(f"{place.file}, {found.thread.title}\nlink: {index.anchor(place.file, place.id)}\n")
    return _print(found)


def _is_id(text: str) -> bool:
    return len(text) >= 6 and all(character in "0123456789abcdef" for character in text)


def _print(top: "Message") -> None:
    for message in top.walk():
        indent = "  " * (message.depth - top.depth)
        body = "(deleted)" if message.deleted else message.body
        print(f"{indent}@{message.author}  {message.created}  {message.id}")
        print("".join(f"{indent}  {line}".rstrip() + "\n" for line in body.splitlines()))
