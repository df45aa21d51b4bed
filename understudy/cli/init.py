"""`understudy init`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.config import POCKET


def init(
    directory: Path,
    *,
    model: Annotated[
        str, Parameter(help="A model directory (Hugging Face layout), or the model that ships.")
    ] = POCKET,
    copy: Annotated[
        bool, Parameter(help="Copy a model directory into the workspace instead of teaching it in place.")
    ] = False,
    sample: Annotated[
        bool, Parameter(help="With the model that ships: a conversation to begin with.")
    ] = False,
) -> None:
    """Make a workspace in DIRECTORY.

    Without --model it gets a copy of the pocket model that ships with Understudy, and rehearsals that
    protect what that model does well.
    """
    from understudy.workspace import Workspace

    if sample and model != POCKET:
        raise CommandError("expected --sample with the model that ships only: it is about what that one does")
    if model == POCKET:
        from understudy.pocket import new_workspace

        made = new_workspace(directory, sample=sample)
    else:
        path = Path(model).expanduser()
        if not path.is_dir():  # a hub name: its cache belongs to every program, so the workspace gets a copy
            from understudy.engine import locate_model

            path, copy = locate_model(model), True
        made = Workspace.create(directory, model=path.absolute(), copy_model=copy, replay=(), settings="")
    print(f"workspace: {made.root}\nmodel: {made.model_path}\nnext: understudy serve --workspace {directory}")
