"""`understudy behaviours decisions`, `keep` and `revert`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.options import AuthorOption, JsonOption, WorkspaceOption, author_or_login

if TYPE_CHECKING:
    from understudy.lessons import KeepOrRevert

WhyOption = Annotated[str, Parameter(help="Why; it stands in the ledger.")]


def list_decisions(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """List what was decided about training sessions, by the gate and by people, oldest first."""
    from understudy.lessons import Decisions
    from understudy.workspace import Workspace

    decisions = Decisions(Workspace.open(workspace).ledger.path)
    if json:
        import dataclasses

        from rich import print_json

        print_json(data=[dataclasses.asdict(one) for one in decisions.list()])
        return
    waiting = {one.session for one in decisions.open()}
    for one in decisions.list():
        mark = "  (waits for you: understudy behaviours keep or revert)" if one.session in waiting else ""
        print(f"{one.at[:19]}Z  {one.session[:12]}  {one.choice:<6}  by {one.by}: {one.why}{mark}")


def keep_session(
    session: str, *, why: WhyOption = "", author: AuthorOption = None, workspace: WorkspaceOption = Path()
) -> None:
    """Keep SESSION, about which the gate asks; training goes on."""
    _decide(session, "keep", why, author, workspace)


def revert_session(
    session: str, *, why: WhyOption = "", author: AuthorOption = None, workspace: WorkspaceOption = Path()
) -> None:
    """Revert SESSION, about which the gate asks: the weights are as before it, to the bit."""
    _decide(session, "revert", why, author, workspace)


def _decide(session: str, choice: "KeepOrRevert", why: str, author: str | None, workspace: Path) -> None:
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    body = {"session": session, "decision": choice, "why": why, "author": author_or_login(author)}
    done = call(Workspace.open(workspace), "POST", "/behaviours/decide", body)
    print(
        f"{done['session']}  {choice}: the weights are those of commit {done['weight_commit'] or 'initial'}"
    )
