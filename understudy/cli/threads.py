"""`understudy threads`."""

from pathlib import Path

from understudy.cli.options import WorkspaceOption, conversation_file


def threads(file: str | None = None, *, workspace: WorkspaceOption = Path()) -> None:
    """List the conversations, or the threads and messages of FILE with the ids that other commands take."""
    from understudy.workspace import Workspace

    repository = Workspace.open(workspace).repository
    if file is None:
        for name in repository.files():
            conversation = repository.read(name)
            count = sum(1 for _ in conversation.walk())
            print(f"{name}\t{len(conversation.threads)} threads\t{count} messages")
        return
    for thread in repository.read(conversation_file(file)).threads:
        print(f"### {thread.title}")
        for message in thread.walk():
            first = message.body.strip().splitlines()[:1]
            print(f"{'  ' * (message.depth + 1)}{message.id}  @{message.author}: {first[0] if first else ''}")
