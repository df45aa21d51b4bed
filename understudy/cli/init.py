"""`understudy init`."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from understudy.config import POCKET

POCKET_SETTINGS = """\
[training]
# Measured on the pocket model: rank 1 holds a lesson after fewer corrections than rank 64 (docs/LOG.md).
rank = 1
"""
REHEARSALS = 400


def init(
    directory: Path,
    *,
    model: Annotated[
        str, Parameter(help="A model directory (Hugging Face layout), or the model that ships.")
    ] = POCKET,
    copy: Annotated[
        bool, Parameter(help="Copy a model directory into the workspace instead of teaching it in place.")
    ] = False,
) -> None:
    """Make a workspace in DIRECTORY.

    Without --model it gets a copy of the pocket model that ships with Understudy, and rehearsals that
    protect what that model does well.
    """
    from understudy.workspace import Rehearsal, Workspace

    if model == POCKET:
        from understudy.pocket import checkpoint_directory, replay

        rehearsals = [Rehearsal(tuple(messages), kept) for messages, kept in replay(seed=0, count=REHEARSALS)]
        made = Workspace.create(
            directory,
            model=checkpoint_directory(),
            copy_model=True,
            replay=rehearsals,
            settings=POCKET_SETTINGS,
        )
    else:
        path = Path(model).expanduser()
        given = path.absolute() if path.is_dir() else model
        made = Workspace.create(directory, model=given, copy_model=copy, replay=(), settings="")
    print(f"workspace: {made.root}\nmodel: {made.model_path}\nnext: understudy serve --workspace {directory}")
