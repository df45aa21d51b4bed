"""`understudy study`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.sessions import SettingOption

if TYPE_CHECKING:
    from understudy.config import TrainingSettings


def study(
    *,
    workspace: Annotated[
        Path | None,
        Parameter(
            name=["--workspace", "-w"],
            help="A workspace whose model and settings are studied; else the pocket model as it came.",
        ),
    ] = None,
    out: Annotated[Path, Parameter(help="The folder for report.json and report.html.")] = Path("study"),
    side: Annotated[
        tuple[Literal["learning", "least", "parts", "bending"], ...],
        Parameter(help="What to look at; all of it when not given. May be repeated."),
    ] = (),
    marks: Annotated[str, Parameter(help="After how many lessons to measure.")] = "1,3,10,30,100",
    draw: Annotated[int, Parameter(help="Which lessons: a number for the draw.")] = 0,
    setting: SettingOption = (),
) -> None:
    """Watch a model learn: what counts show and what lies under them, side by side.

    A copy of the pocket model, in memory, is taught to act on clear directions: rates and margins over the
    number of lessons, the least lesson that shows, the heads and matrices that moved and those that carry
    it, and how sharply the loss bends along APOLLO's update and AdamW's. Takes a few minutes; writes a page
    and its figures. Measured on the development split.
    """
    numbers = _numbers(marks)
    import tempfile

    from rich.console import Console

    from understudy.pocket import checkpoint_directory, new_workspace
    from understudy.watching import SIDES, run_study, write_study
    from understudy.workspace import Workspace

    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as folder:
        opened = new_workspace(Path(folder) / "pocket") if workspace is None else Workspace.open(workspace)
        directory = checkpoint_directory() if workspace is None else opened.model_path
        if not isinstance(directory, Path):
            raise CommandError(f"expected a model directory to study, got {directory!r}")
        found = run_study(
            directory,
            _changed(opened.settings.training, setting),
            opened.rehearsals(),
            draw=draw,
            marks=numbers,
            sides=side or SIDES,
            say=lambda text: console.print(text, highlight=False, soft_wrap=True),
        )
    data, page = write_study(out, found)
    print(f"{page}\n{data}")


def _numbers(marks: str) -> list[int]:
    try:
        return [int(part) for part in marks.split(",")]
    except ValueError:
        raise CommandError(f"expected numbers such as 1,3,10 for --marks, got {marks!r}") from None


def _changed(held: "TrainingSettings", setting: tuple[str, ...]) -> "TrainingSettings":
    from pydantic import ValidationError

    from understudy.cli.sessions import session_settings

    try:
        return type(held).model_validate({**held.model_dump(), **session_settings(setting)})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise CommandError(f"--set {name}: {first['msg']}, got {first['input']!r}") from error
