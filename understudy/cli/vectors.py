"""`understudy weights vector|apply|negate|merge|conflicts`: behaviours as task vectors."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import AuthorOption, JsonOption, WorkspaceOption, author_or_login

if TYPE_CHECKING:
    from understudy.weights import MergeReport, ModelState, Recipe
    from understudy.workspace import Workspace

OutputOption = Annotated[
    Path | None, Parameter(name=["--output", "-o"], help="What to write; must not exist.")
]
CommitOption = Annotated[
    bool, Parameter(negative="", help="Make the result the workspace's weights: a weight commit.")
]
NoteOption = Annotated[str | None, Parameter(name=["--message", "-m"], help="What the weight commit says.")]
DtypeOption = Annotated[
    Literal["float32", "bfloat16", "float16"] | None, Parameter(help="Element type to store.")
]
MethodName = Literal["task-arithmetic", "ties", "dare", "dare-ties", "linear", "slerp"]


def vector_weights(
    span: str,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The safetensors file to write.")],
    dtype: DtypeOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Write the task vector A..B: what leads from A to B.

    A and B are weight commits of the workspace's model (`initial`: the model as it came), or two model
    directories. It is stored in float32 unless --dtype says otherwise.
    """
    from understudy.weights import DTYPES, make_vector

    before, after = _ends(span, workspace)
    report = make_vector(before, after, output, dtype=DTYPES[dtype] if dtype else None)
    share = report.norm / report.base_norm if report.base_norm else float("inf")
    print(f"{output}  {report.origin.before} -> {report.origin.after}")
    print(
        f"{report.tensors} tensors, {report.elements} entries, "
        f"norm {report.norm:.4g} ({share:.2%} of the weights)"
    )


def apply_weights(
    vector: Path,
    *,
    scale: Annotated[float, Parameter(help="How much of it; below 0 takes the behaviour away.")] = 1.0,
    base: Annotated[
        Path | None, Parameter(help="A model directory; the workspace's model if not given.")
    ] = None,
    output: OutputOption = None,
    commit: CommitOption = False,
    message: NoteOption = None,
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Add a task vector to a model: --output a new model directory, or --commit to the workspace's model."""
    from understudy.weights import apply_recipe

    _carry_out(
        lambda found: apply_recipe(vector, found, scale),
        base=base,
        output=output,
        commit=(message or f"Apply {vector.name} at scale {scale:g}") if commit else None,
        author=author,
        workspace=workspace,
    )


def negate_weights(
    vector: Path,
    *,
    output: Annotated[Path, Parameter(name=["--output", "-o"], help="The safetensors file to write.")],
) -> None:
    """Write the vector that takes away what VECTOR brings."""
    from understudy.weights import negate_vector

    origin = negate_vector(vector, output)
    print(f"{output}  {origin.before} -> {origin.after}")


def merge_weights(
    *inputs: Path,
    method: Annotated[MethodName | None, Parameter(help="How to merge; a recipe says it itself.")] = None,
    recipe: Annotated[
        Path | None, Parameter(help="A mergekit recipe (YAML) instead of inputs and options.")
    ] = None,
    base: Annotated[
        Path | None, Parameter(help="The model directory that differences are taken from and added to.")
    ] = None,
    weight: Annotated[
        tuple[float, ...],
        Parameter(
            help="How much of each input: one for all, or one for each.", consume_multiple=True, negative=""
        ),
    ] = (1.0,),
    density: Annotated[
        tuple[float, ...],
        Parameter(
            help="Share of entries that ties and dare keep: one for all, or one for each.",
            consume_multiple=True,
            negative="",
        ),
    ] = (),
    normalize: Annotated[bool | None, Parameter(help="Divide by the weights; ties and linear do.")] = None,
    scale: Annotated[float, Parameter(name=["--lambda"], help="Factor on what is added to the base.")] = 1.0,
    t: Annotated[float, Parameter(name=["--t"], help="slerp: 0 is the first input, 1 the second.")] = 0.5,
    seed: Annotated[int, Parameter(help="dare: which entries are dropped.")] = 0,
    dtype: DtypeOption = None,
    output: OutputOption = None,
    commit: CommitOption = False,
    message: NoteOption = None,
    author: AuthorOption = None,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Merge task vectors and model directories, tensor by tensor, in memory that does not grow with them.

    The result is a model directory (--output), a weight commit (--commit; the base is then the workspace's
    model), or a task vector when all inputs are vectors and no base is given.
    """
    from understudy.weights import DTYPES, RecipeInput, RecipeSlice, constant, read_recipe
    from understudy.weights import Recipe as Merge

    if recipe is not None:
        if inputs or method is not None or base is not None:
            raise CommandError("expected either --recipe, or inputs with --method and --base: not both")
        followed = read_recipe(recipe)
        default = f"Merge as {recipe.name} says"
        _carry_out(
            lambda _: followed,
            base=None,
            output=output,
            commit=(message or default) if commit else None,
            author=author,
            workspace=workspace,
            standalone=True,
        )
        return
    if method is None or not inputs:
        raise CommandError("expected inputs and --method, or --recipe FILE")
    name = {"dare": "dare_linear"}.get(method, method.replace("-", "_"))
    weights = _each("weight", weight, len(inputs))
    densities = _each("density", density or ((0.2,) if name == "ties" else (0.5,)), len(inputs))
    shared = constant(**{"lambda": scale}, t=t, **({} if normalize is None else {"normalize": normalize}))
    piece = RecipeSlice(
        tuple(
            RecipeInput(path, constant(weight=one, density=kept))
            for path, one, kept in zip(inputs, weights, densities, strict=True)
        )
    )

    def build(found: Path | None) -> Merge:
        return Merge(
            name,
            (piece,),
            base=found,
            settings=shared,
            out_dtype=DTYPES[dtype] if dtype else None,
            rescale="density",
            seed=seed,
        )

    _carry_out(
        build,
        base=base,
        output=output,
        commit=(message or f"Merge {', '.join(path.name for path in inputs)} by {method}")
        if commit
        else None,
        author=author,
        workspace=workspace,
        standalone=not commit,
    )


def conflicts_weights(
    *vectors: Path,
    density: Annotated[float, Parameter(help="The share of entries that count as a matrix's largest.")] = 0.2,
    matrices: Annotated[int, Parameter(help="How many matrices to list, strongest opposition first.")] = 10,
    json: JsonOption = False,
) -> None:
    """Compare task vectors: where and how much do these behaviours stand in each other's way?

    cosine: the angle between them. opposite: of the entries that both move, the share with opposite signs (by
    chance 50 %). shared: of each one's largest entries, the share that is among the other's (by chance the
    density). shared opposite: of those, the share with opposite signs.
    """
    from rich import print_json
    from rich.console import Console
    from rich.table import Table

    from understudy.weights import measure_conflicts

    report = measure_conflicts(vectors, density=density)
    if json:
        print_json(data=report.as_json())
        return
    for pair in report.pairs:
        table = Table(title=f"{pair.first} and {pair.second}", title_justify="left")
        for head in ("", "cosine", "opposite", "shared", "shared opposite"):
            table.add_column(head, justify="left" if not head else "right", overflow="fold")
        by_cosine = sorted(pair.matrices.items(), key=lambda item: item[1].cosine)
        for name, found in [("the whole model", pair.whole), *by_cosine[:matrices]]:
            shares = (found.disagreement, found.overlap, found.overlap_disagreement)
            table.add_row(name, f"{found.cosine:+.3f}", *(f"{share:.1%}" for share in shares))
        Console().print(table)
    if not report.same_base:
        print(
            "These vectors start from different weights: what they have in common may be less than it seems."
        )


def _ends(span: str, workspace: Path) -> "tuple[ModelState, ModelState]":
    from understudy.weights import ModelState

    cuts = [n for n in range(1, len(span) - 2) if span[n : n + 2] == ".."]
    for cut in cuts:
        before, after = Path(span[:cut]), Path(span[cut + 2 :])
        if before.is_dir() and after.is_dir():
            return ModelState(before), ModelState(after)
    if len(cuts) != 1 or "/" in span:
        raise CommandError(
            f"expected A..B, two weight commits (or `initial`) or two model directories, got {span!r}"
        )
    directory = _model_directory(workspace)
    return _commit_state(directory, span[: cuts[0]]), _commit_state(directory, span[cuts[0] + 2 :])


def _commit_state(directory: Path, name: str) -> "ModelState":
    from understudy.weights import INITIAL, ModelState, WeightHistory

    if name == INITIAL:
        return ModelState(directory, INITIAL)
    return ModelState(directory, WeightHistory.view(directory).find(name).id)


def _model_directory(workspace: Path) -> Path:
    from understudy.workspace import Workspace

    directory = Workspace.open(workspace).model_path
    if not isinstance(directory, Path):
        raise CommandError(f"expected a model directory with a history, got {directory!r}")
    return directory


def _carry_out(
    recipe_for: "Callable[[Any], Recipe]",
    *,
    base: Path | None,
    output: Path | None,
    commit: str | None,
    author: str | None,
    workspace: Path,
    standalone: bool = False,
) -> None:
    """Merge into `output`, or into the workspace's model with the message `commit`.

    `standalone`: without a base given, there is none, rather than the workspace's model.
    """
    from tempfile import TemporaryDirectory

    from understudy.weights import merge
    from understudy.workspace import Workspace

    if (output is None) == (commit is None):
        raise CommandError("expected either --output FILE or --commit")
    if commit is None:
        assert output is not None
        if base is None and not standalone:
            with _newest(_model_directory(workspace)) as (found, _):
                _tell(merge(recipe_for(found), output))
        else:
            _tell(merge(recipe_for(base), output))
        return
    if base is not None:
        raise CommandError("--commit merges into the workspace's own model: leave out --base")
    opened = Workspace.open(workspace)
    directory = _model_directory(workspace)
    with _newest(directory) as (found, head), TemporaryDirectory(dir=opened.root / ".understudy") as folder:
        merged = Path(folder) / "merged"
        report = merge(recipe_for(found), merged)
        _tell(report, shown="the workspace's model")
        print(f"{_adopt(opened, directory, merged, head, commit, author_or_login(author))}  {commit}")


def _newest(directory: Path) -> Any:
    """The newest weights as a directory: the model's own when its files hold them, else a passing copy."""
    from contextlib import contextmanager
    from tempfile import TemporaryDirectory

    from understudy.weights import ModelState, WeightHistory, write_state

    @contextmanager
    def opened() -> Any:
        history = WeightHistory.view(directory)
        if not history.pending:
            yield directory, history.head
            return
        with TemporaryDirectory(dir=directory.parent, prefix=f".{directory.name}-") as folder:
            newest = Path(folder) / directory.name
            write_state(ModelState(directory, history.head), newest)
            yield newest, history.head

    return opened()


def _adopt(
    workspace: "Workspace", directory: Path, merged: Path, head: str | None, message: str, author: str
) -> str:
    """Make `merged` the weights: through the server when one runs, else here; returns the weight commit."""
    from datetime import UTC, datetime

    from understudy.cli.remote import call
    from understudy.weights import WeightHistory, owned, teaching

    now_at = WeightHistory.view(directory).head
    if now_at != head:
        raise CommandError(f"the model has learned meanwhile ({head} -> {now_at}): merge again")
    if workspace.server() is not None:
        body = {
            "source": str(merged.resolve()),
            "message": message,
            "author": author,
            "parent": head or "initial",
        }
        return str(call(workspace, "POST", "/weights/adopt", body)["commit"])
    with owned(directory), teaching(directory):
        history = WeightHistory.open(directory)
        created = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        made = history.adopt(None, merged, message=message, author=author, created=created)
        history.sync()
    return made.id


def _tell(report: "MergeReport", shown: str | None = None) -> None:
    what = "task vector" if report.vector else "model"
    print(
        f"{shown or report.output}  {what} by {report.method}: "
        f"{report.tensors} tensors, {report.elements} entries, {report.seconds:.1f} s"
    )
    for stranger in report.strangers:
        print(f"note: {stranger} was taken from other weights than the base it is added to")


def _each(name: str, given: tuple[float, ...], count: int) -> tuple[float, ...]:
    if len(given) not in (1, count):
        raise CommandError(
            f"--{name}: expected one value, or one for each of {count} inputs, got {len(given)}"
        )
    return given * count if len(given) == 1 else given
