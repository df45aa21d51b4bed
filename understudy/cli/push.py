"""`understudy push`."""

from pathlib import Path

from understudy.cli.options import WorkspaceOption


def push(remote: str = "origin", *, workspace: WorkspaceOption = Path()) -> None:
    """Send what was said here to REMOTE."""
    from understudy.conversation import ConversationRepository
    from understudy.conversation import push as push_to

    print(push_to(ConversationRepository.open(workspace), remote))
