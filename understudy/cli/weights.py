"""`understudy weights log|show|commit|checkout|revert|sync`: the history and how it goes on.

With a server running the server's trainer does the work, on the weights that are being served. Without
one the command takes the model directory itself.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, JsonOption, WorkspaceOption, author_or_login

if TYPE_CHECKING:
    from understudy.weights import WeightCommit, WeightHistory
    from understudy.workspace import Workspace

INITIAL = "initial"
"""How the model as it came is called where a commit's id is expected."""


def log_weights(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """List the weight commits, oldest first, with who taught what. `*`: the files do not hold it yet."""
    from understudy.weights import WeightHistory
    from understudy.workspace import Workspace

    history = WeightHistory.view(model_directory(Workspace.open(workspace)))
    pending = {commit.id for commit in history.pending}
    if json:
        print_json([{**_without_hashes(c), "pending": c.id in pending} for c in history.commits])
        return
    for commit in history.commits:
        mark = "*" if commit.id in pending else " "
        print(f"{commit.id} {mark} {commit.created}  {commit.author}: {commit.message}")


def show_weights(
    commit: Annotated[str | None, Parameter(help="The commit; else the newest.")] = None,
    *,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show one weight commit: who, when, why, lessons, settings, measured effect, what moved, hashes."""
    from dataclasses import asdict

    from understudy.weights import WeightHistory
    from understudy.workspace import Workspace

    history = WeightHistory.view(model_directory(Workspace.open(workspace)))
    found = history.find(commit or history.head or "")
    before = history.hashes_at(found.parent)
    moved = [name for name, after in found.tensors.items() if before.get(name) != after]
    delta = history.delta_file(found.id)
    size = delta.stat().st_size if delta.is_file() else None
    if json:
        print_json({**asdict(found), "moved": moved, "delta_bytes": size})
        return
    print(f"weight commit {found.id} (number {found.number}, after {found.parent or INITIAL})")
    print(f"{found.created}  {found.author}: {found.message}")
    print(f"{len(moved)} of {len(found.tensors)} tensors moved, by {found.update_norm:.6g} in all")
    print(f"delta: {f'{size:,} bytes' if size is not None else 'given up by gc'}")
    for lesson in found.lessons:
        print(f"lesson {lesson}")
    for key, value in found.details.items():
        _print_detail(key, value)


def commit_weights(
    *,
    source: Annotated[Path, Parameter(name="--from", help="A model directory or one safetensors file.")],
    message: Annotated[str, Parameter(name=["--message", "-m"], help="Why.")],
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Record values that another tool made as a weight commit; they are served from then on."""
    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    opened, who, given = Workspace.open(workspace), author_or_login(author), source.expanduser().resolve()
    if not given.exists():
        raise CommandError(f"expected a model directory or a safetensors file, found nothing at {given}")
    if opened.server() is not None:
        answer = call(
            opened, "POST", "/weights/adopt", {"source": str(given), "message": message, "author": who}
        )
        print(answer["commit"])
        return
    with writing(opened) as history, progress("recording") as report:
        print(history.adopt(None, given, message=message, author=who, created=_now(), progress=report).id)
        history.sync()


def checkout_weights(
    commit: str, *, author: AuthorOption = None, workspace: WorkspaceOption = Path()
) -> None:
    """Bring the weights back to what they were at COMMIT, or at `initial`: bit for bit, and as a commit."""
    from understudy.weights import WeightHistory
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    history = WeightHistory.view(model_directory(opened))
    target = None if commit == INITIAL else history.find(commit).id
    made = _restore(opened, target, author_or_login(author), f"Restore {target or 'the model as it came'}")
    print(f"{made}  restored {commit}")


def revert_weights(commit: str, *, author: AuthorOption = None, workspace: WorkspaceOption = Path()) -> None:
    """Undo COMMIT and all that came after it: the weights as they were before, bit for bit, as a commit."""
    from understudy.weights import WeightHistory
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    history = WeightHistory.view(model_directory(opened))
    found = history.find(commit)
    made = _restore(opened, found.parent, author_or_login(author), f"Revert {found.id}: {found.message}")
    undone = len(history.commits) - found.number + 1
    print(f"{made}  reverted {found.id}: {undone} commit{'s' if undone > 1 else ''} undone")


def sync_weights(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """Bring the model directory's own files up to the newest weight commit."""
    from dataclasses import asdict

    from understudy.cli.remote import call
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    if opened.server() is not None:
        report: dict[str, Any] = call(opened, "POST", "/checkpoint", {})
    else:
        with writing(opened) as history:
            report = asdict(history.brought)
    if json:
        print_json(report)
    elif report["files"]:
        print(
            f"{report['commit']}  {', '.join(report['files'])}: {report['blocks_written']} of "
            f"{report['blocks_total']} blocks, {report['bytes_written']:,} bytes, {report['seconds']:.2f} s"
        )
    else:
        print(f"{report['commit'] or INITIAL}  the files are up to date")


# ---------------------------------------------------------------------- what these commands share


def model_directory(workspace: "Workspace") -> Path:
    """The workspace's model directory; raises CommandError when the model has no history to look at."""
    directory = workspace.model_path
    if not isinstance(directory, Path):
        raise CommandError(
            f"expected a model directory with a history, the workspace names {directory!r}: serve it "
            "once, or make the workspace with a copy (`understudy init --copy`)"
        )
    return directory


@contextmanager
def writing(workspace: "Workspace") -> Iterator["WeightHistory"]:
    """The history, held for this process alone and brought up to date. Raises HistoryBusy when served."""
    from understudy.weights import WeightHistory, owned, teaching

    directory = model_directory(workspace)
    with (
        owned(directory),
        teaching(directory, wait_seconds=5.0),
        progress("bringing files up to date") as report,
    ):
        yield WeightHistory.open(directory, progress=report)


@contextmanager
def progress(what: str) -> Iterator[Any]:
    """A bar on the terminal for what takes long; gone when it is done, silent where no one watches."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def print_json(value: Any) -> None:
    """One JSON document, for programs."""
    from json import dumps

    print(dumps(value, indent=1, default=str))


def _restore(workspace: "Workspace", target: str | None, author: str, message: str) -> str:
    from understudy.cli.remote import call
    from understudy.weights import lessons_held

    if workspace.server() is not None:
        answer = call(workspace, "POST", "/weights/restore", {"commit": target, "author": author})
        return str(answer["commit"])
    with writing(workspace) as history, progress("restoring") as report:
        made = history.restore(None, target, author=author, created=_now(), message=message, progress=report)
        history.sync()
        workspace.ledger.settle(lessons_held(history.commits), author, message)
        return made.id


def _print_detail(key: str, value: Any) -> None:
    if isinstance(value, dict):
        print(f"{key}:")
        for name, entry in value.items():
            print(f"  {name} = {entry}")
    else:
        print(f"{key}: {value}")


def _without_hashes(commit: "WeightCommit") -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(commit).items() if key != "tensors"}


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
