"""`understudy threads`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.options import JsonOption, WorkspaceOption, conversation_file

if TYPE_CHECKING:
    from understudy.conversation import ConversationRepository

FOUND_SOMETHING = 1


def threads(
    file: str | None = None,
    *,
    check: Annotated[bool, Parameter(negative="", help="Report what a hand edit broke.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> int | None:
    """List the conversations, or the threads and messages of FILE with the ids that other commands take.

    With --check, list instead what is malformed or lost in the files as they stand, committed or not; the
    exit status is then 1 if there is anything.
    """
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    only = None if file is None else conversation_file(file)
    if check:
        return _check(repository, only, as_json)
    if as_json:
        _list_json(repository, only)
    elif only is None:
        for name in repository.files():
            conversation = repository.read(name)
            print(f"{name}\t{len(conversation.threads)} threads\t{len(conversation.messages)} messages")
    else:
        _list_messages(repository, only)
    return None


def _list_messages(repository: "ConversationRepository", file: str) -> None:
    from understudy.cli.answering import first_line

    for thread in repository.read(file).threads:
        print(f"### {thread.title}")
        for message in thread.walk():
            words = "(deleted)" if message.deleted else first_line(message.body)
            print(f"{'  ' * (message.depth + 1)}{message.id}  @{message.author}: {words}")


def _list_json(repository: "ConversationRepository", file: str | None) -> None:
    from understudy.cli.answering import print_json
    from understudy.conversation import export_json

    if file is not None:
        return print_json(export_json({file: repository.read(file)})["conversations"][0])
    read = {name: repository.read(name) for name in repository.files()}
    return print_json(
        [
            {"file": name, "threads": len(conversation.threads), "messages": len(conversation.messages)}
            for name, conversation in read.items()
        ]
    )


def _check(repository: "ConversationRepository", file: str | None, as_json: bool) -> int:
    from dataclasses import asdict

    from understudy.cli.answering import print_json
    from understudy.conversation import check

    findings = [finding for finding in check(repository) if file in (None, finding.file)]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            place = f"{finding.file}:{finding.line}" if finding.line else finding.file
            print(f"{place}: {finding.kind}: {finding.text}")
    return FOUND_SOMETHING if findings else 0
