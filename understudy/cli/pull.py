"""`understudy pull`."""

from pathlib import Path

from understudy.cli.options import AuthorOption, WorkspaceOption, author_or_login


def pull(remote: str = "origin", *, author: AuthorOption = None, workspace: WorkspaceOption = Path()) -> None:
    """Fetch what others said in REMOTE and merge it in by message. Says what the merge decided."""
    from understudy.conversation import ConversationRepository
    from understudy.conversation import pull as pull_from

    pulled = pull_from(ConversationRepository.open(workspace), author_or_login(author), remote)
    for file, notes in pulled.notes.items():
        for note in notes:
            print(f"{file}\t{note.kind}\t{note.message}\t{' '.join(note.text.split())[:60]}")
    print(pulled.commit)
