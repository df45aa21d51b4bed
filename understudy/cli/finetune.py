"""`understudy finetune`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, WorkspaceOption, author_or_login
from understudy.cli.sessions import (
    DryRunOption,
    EpochsOption,
    ObjectiveOption,
    RateOption,
    SettingOption,
    describe_outcome,
    describe_session,
    session_settings,
)

if TYPE_CHECKING:
    from understudy.workspace import Workspace

POLL_SECONDS = 0.25


def finetune(
    file: Path,
    *,
    workspace: WorkspaceOption = Path(),
    wait: Annotated[bool, Parameter(help="Show the progress, and what came of it.")] = False,
    key: Annotated[
        str | None, Parameter(help="A name for this request: asked again under it, it is done once.")
    ] = None,
    supervise: Annotated[
        Literal["last", "all"], Parameter(help="Of a conversation: the last answer, or all.")
    ] = "last",
    message: Annotated[str | None, Parameter(help="The weight commit's message.")] = None,
    author: AuthorOption = None,
    dry_run: DryRunOption = False,
    objective: ObjectiveOption = None,
    lr: RateOption = None,
    epochs: EpochsOption = None,
    setting: SettingOption = (),
) -> None:
    """Teach the running server the lessons of FILE: JSON Lines with `messages`, `prompt` and `completion`,
    `prompt` with `chosen` and `rejected`, or `prompt` with `criticism`.
    """
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    body: dict[str, Any] = {
        "lessons": read_lines(file),
        "supervise": supervise,
        "message": message or f"Learn {file.name}",
        "author": author_or_login(author),
        "dry_run": dry_run,
        **session_settings(setting, objective=objective, lr=lr, epochs=epochs),
    }
    if key is not None:
        body["key"] = key
    result = call(opened, "POST", "/finetune", body)
    for revised in result.get("revised", ()):
        print(f"{revised['lesson']}  {revised['rejected']!r} -> {revised['answer']!r}")
    if wait:
        result = _followed(opened, result)
    if result["state"] == "finished":
        for outcome in result["outcomes"]:
            print(describe_outcome(outcome))
        print(describe_session(result, dry_run=dry_run))
    elif result["state"] in ("failed", "cancelled"):
        raise CommandError(f"request {result['key']} {result['state']}: {result.get('error')}")
    else:
        print(f"{result['key']}  {result['state']}: see `understudy status`")


def read_lines(file: Path) -> list[Any]:
    """The JSON of each line that is not blank. Raises CommandError with the number of one that is none."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"expected a file of JSON Lines at {file}: {error}") from error
    found = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                found.append(json.loads(line))
            except ValueError as error:
                raise CommandError(f"{file}, line {number}: expected JSON: {error}") from error
    return found


def _followed(workspace: "Workspace", result: dict[str, Any]) -> dict[str, Any]:
    """The request's end; its progress meanwhile on standard error."""
    import time

    from rich.console import Console
    from rich.progress import Progress

    from understudy.cli.remote import call

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("queued", total=None)
        while result["state"] in ("queued", "running"):
            time.sleep(POLL_SECONDS)
            result = call(workspace, "GET", f"/train/status?key={quote(result['key'], safe='')}")
            loss = f", loss {result['loss']:.3f}" if result.get("loss") is not None else ""
            progress.update(
                task,
                description=f"{result['state']}{loss}",
                completed=result.get("step") or 0,
                total=result.get("of") or None,
            )
    return result
