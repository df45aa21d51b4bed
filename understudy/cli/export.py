"""`understudy export`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from understudy.cli.options import WorkspaceOption, conversation_file

if TYPE_CHECKING:
    from understudy.lessons import Shape
    from understudy.workspace import Workspace


def export(
    *files: str,
    form: Annotated[
        Literal["html", "json", "lessons"], Parameter(name="--format", help="A page, data, or JSON Lines.")
    ] = "html",
    output: Annotated[
        Path | None, Parameter(name=["--output", "-o"], help="The file to write; else standard output.")
    ] = None,
    shape: Annotated[
        Literal["messages", "completion", "preference"] | None,
        Parameter(help="Of each lesson; by itself those with a rejected answer are preferences."),
    ] = None,
    as_json: Annotated[
        bool, Parameter(name="--json", negative="", help="The same as --format json.")
    ] = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Write the conversations FILES (default: all): one self-contained page, JSON, or lessons.

    Lessons are the corrections of what the model said that stand in the history, approved or not.
    """
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    names = [conversation_file(file) for file in files] or list(opened.repository.files())
    if form == "lessons" and not as_json:
        return _write_lessons(opened, names, shape, output)
    text = _text(opened, names, "json" if as_json else form)
    if output is None:
        print(text, end="")
    else:
        output.write_text(text, encoding="utf-8", newline="\n")
    return None


def _text(opened: "Workspace", names: list[str], form: str) -> str:
    import json

    from understudy.conversation import export_html, export_json

    repository = opened.repository
    read = {name: repository.read(name) for name in names}
    if form == "json":
        return json.dumps(export_json(read), indent=1, ensure_ascii=False) + "\n"
    title = names[0] if len(names) == 1 else opened.root.name
    return export_html(read, title, repository.participants())


def _write_lessons(opened: "Workspace", names: list[str], shape: "Shape | None", output: Path | None) -> None:
    import sys
    import tempfile

    from understudy.lessons import mine, write_lessons

    for name in names:
        opened.repository.read(name)  # says which conversations there are
    lessons = [one for one in mine(opened.repository, opened.settings.model.name) if one.source.file in names]
    if output is not None:
        return write_lessons(output, lessons, shape)
    with tempfile.TemporaryDirectory() as folder:
        write_lessons(Path(folder) / "lessons.jsonl", lessons, shape)
        sys.stdout.write((Path(folder) / "lessons.jsonl").read_text(encoding="utf-8"))
    return None
