"""`understudy train`."""

from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import WorkspaceOption


def train(
    *,
    workspace: WorkspaceOption = Path(),
    dry_run: Annotated[bool, Parameter(help="Compute and report; change nothing.")] = False,
    setting: Annotated[
        tuple[str, ...], Parameter(name="--set", help="A training setting, such as lr=1e-4.")
    ] = (),
) -> None:
    """Train the approved lessons now on the running server, and say what came of it."""
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    body = {"settings": dict(_parsed(one) for one in setting), "dry_run": dry_run}
    result = call(opened, "POST", "/lessons/train", body)
    for lesson, outcome in zip(result["lessons"], result["outcomes"], strict=True):
        gated = "  known already" if outcome["gated"] else ""
        print(f"{lesson}  loss {outcome['loss_before']:.3f} -> {outcome['loss_after']:.3f}{gated}")
    for refused in result["not_taught"]:
        print(f"{refused['lesson']}  not taught: {refused['why']}")
    done = "nothing was changed (dry run)" if dry_run else f"weight commit {result['commit']}"
    print(f"{result['steps']} steps, {result['tokens']} tokens, {result['seconds']:.2f} s; {done}")


def _parsed(setting: str) -> tuple[str, Any]:
    import json

    key, equals, value = setting.partition("=")
    if not equals:
        raise CommandError(f"expected --set key=value, got {setting!r}")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value
