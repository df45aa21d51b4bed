"""`understudy train`."""

from pathlib import Path

from understudy.cli.options import WorkspaceOption
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


def train(
    *,
    workspace: WorkspaceOption = Path(),
    dry_run: DryRunOption = False,
    objective: ObjectiveOption = None,
    lr: RateOption = None,
    epochs: EpochsOption = None,
    setting: SettingOption = (),
) -> None:
    """Train the approved lessons now on the running server, and say what came of it."""
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    settings = session_settings(setting, objective=objective, lr=lr, epochs=epochs)
    result = call(opened, "POST", "/lessons/train", {**settings, "dry_run": dry_run})
    for lesson, outcome in zip(result["lessons"], result["outcomes"], strict=True):
        print(f"{lesson}  {describe_outcome(outcome)}")
    for refused in result["not_taught"]:
        print(f"{refused['lesson']}  not taught: {refused['why']}")
    print(describe_session(result, dry_run=dry_run))
