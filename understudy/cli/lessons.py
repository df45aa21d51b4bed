"""`understudy lessons ...`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, WorkspaceOption, author_or_login

if TYPE_CHECKING:
    from understudy.lessons import Ledger, Training
    from understudy.workspace import Workspace

StateOption = Literal["proposed", "approved", "trained", "kept", "reverted", "refused"]
_SETTINGS = ("objective", "lr", "rank", "epochs", "replay", "gate")
"""Of a session, what people ask about first; the ledger has them all."""
AllOption = Annotated[bool, Parameter(name="--all", help="All that are proposed.")]


def _opened(root: Path) -> "tuple[Workspace, Ledger]":
    """The ledger, with every edit that stands in the history by now."""
    from understudy.lessons import mine
    from understudy.workspace import Workspace

    workspace = Workspace.open(root)
    ledger = workspace.ledger
    for lesson in mine(workspace.repository, workspace.settings.model.name):
        ledger.propose(lesson)
    return workspace, ledger


def list_lessons(state: StateOption | None = None, *, workspace: WorkspaceOption = Path()) -> None:
    """List lessons, all or those in STATE."""
    _, ledger = _opened(workspace)
    for entry in ledger.list(state):
        rejected = _short(entry.lesson.rejected or "")
        print(f"{entry.short}  {entry.state:<9} {rejected!r} -> {_short(entry.lesson.chosen)!r}")


def show_lessons(lesson: str, *, workspace: WorkspaceOption = Path()) -> None:
    """Show LESSON (its id, or the beginning of it)."""
    _, ledger = _opened(workspace)
    entry = ledger.get(lesson)
    source = entry.lesson.source
    print(f"lesson   {entry.id}\nstate    {entry.state}")
    print(
        f"source   {source.file} ({source.thread}), message {source.message}, "
        f"commit {source.commit[:12]}, {source.author}"
    )
    for turn in entry.lesson.context:
        print(f"{turn.role:<9}{turn.content}")
    print(f"rejected {entry.lesson.rejected}\nchosen   {entry.lesson.chosen}")
    for training in ledger.trainings(entry.id):
        _show_training(training)
    for event in ledger.history(entry.id):
        print(f"{event.at}  {event.state_from or '-'} -> {event.state_to}  by {event.by}  {event.why or ''}")


def _show_training(training: "Training") -> None:
    """One training of a lesson: when, with which settings, what it did, and the weight commit."""
    settings, result = training.settings, training.result
    told = ", ".join(f"{name} {settings[name]}" for name in _SETTINGS if name in settings)
    gated = ", known already: no step was taken" if result.gated else ""
    print(f"trained  {training.ended_at}, {told}")
    print(f"loss     {_number(result.loss_before)} -> {_number(result.loss_after)} nats per token{gated}")
    for name, before, after in (
        ("chosen", result.chosen_before, result.chosen_after),
        ("rejected", result.rejected_before, result.rejected_after),
    ):
        if before is not None:
            print(f"log p    {_number(before)} -> {_number(after)} nats for the whole {name} answer")
    print(f"weights  {training.weight_commit}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def approve_lessons(
    *lessons: str, every: AllOption = False, author: AuthorOption = None, workspace: WorkspaceOption = Path()
) -> None:
    """Approve LESSONS by id, or all that are proposed. A running server trains them at once."""
    _, ledger = _opened(workspace)
    for entry in ledger.approve_together(_chosen(ledger, lessons, every), author_or_login(author)):
        print(f"{entry.short}  approved")


def reject_lessons(
    *lessons: str,
    every: AllOption = False,
    reason: str = "not to be learned",
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Refuse LESSONS by id, or all that are proposed."""
    _, ledger = _opened(workspace)
    for identity in _chosen(ledger, lessons, every):
        print(f"{ledger.refuse(identity, author_or_login(author), reason).short}  refused")


def _chosen(ledger: "Ledger", given: tuple[str, ...], every: bool) -> list[str]:
    if every == bool(given):
        raise CommandError("expected lesson ids or --all (one of the two): see `understudy lessons list`")
    return [entry.id for entry in ledger.list("proposed")] if every else [ledger.get(one).id for one in given]


def _short(text: str, width: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 3] + "..."
