"""`understudy history`."""

from pathlib import Path

from understudy.cli.options import JsonOption, MessageOption, WorkspaceOption, conversation_file


def history(
    file: str, *, message: MessageOption, as_json: JsonOption = False, workspace: WorkspaceOption = Path()
) -> None:
    """Show each text that MESSAGE in the conversation FILE has had, oldest first, with who and when."""
    from understudy.cli.answering import print_json, standing
    from understudy.workspace import Workspace

    repository, name = Workspace.open(workspace).repository, conversation_file(file)
    revisions = repository.history(name, standing(repository, name, message))
    if as_json:
        return print_json(
            [
                {"commit": one.commit, "author": one.author, "time": one.time.isoformat(), "body": one.body}
                for one in revisions
            ]
        )
    for one in revisions:
        print(f"{one.time:%Y-%m-%d %H:%M:%S} UTC  @{one.author}  {one.commit[:12]}")
        print("".join(f"  {line}".rstrip() + "\n" for line in one.body.splitlines()))
    return None
