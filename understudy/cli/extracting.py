"""`understudy concepts train` and `report`: directions from a corpus, and what they are worth."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.tables import print_table, watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.concepts import Card, Corpus, Extraction, QualityReport, Recipe, Validity
    from understudy.concepts.extraction import Told
    from understudy.engine import LoadedModel

MethodName = Literal["mean_difference", "pair_pca", "logistic", "logistic_l1", "subspace", "whitened_mean"]
RoleName = Literal["system", "user", "assistant"]

DirectionsOut = Annotated[Path, Parameter(help="The folder to write: a new or empty one.")]
LayersOption = Annotated[
    tuple[str, ...],
    Parameter(help="A layer: a number, -1 for the last, a depth such as 50%, or `all`; may be repeated."),
]
MethodOption = Annotated[MethodName, Parameter(help="How a direction is found (docs/concepts.md).")]
TokensOption = Annotated[
    str, Parameter(help="A text is the mean over its last so many tokens: 1 is the last alone, or `all`.")
]
RoleOption = Annotated[
    RoleName | None, Parameter(help="Read each text as a message of this role, not as plain text.")
]
ModelOption = Annotated[
    Path | None, Parameter(help="A model directory to read with, in the stead of the workspace's model.")
]
TwinOption = Annotated[
    bool, Parameter(help="Measure an untrained model of the same architecture beside.", negative="")
]
ReportOption = Annotated[bool, Parameter(help="Write quality.json and report.html too.", negative="")]


def train_concepts(
    corpus: Path | None = None,
    *,
    out: DirectionsOut,
    layer: LayersOption = ("50%", "75%"),
    method: MethodOption = "mean_difference",
    tokens: TokensOption = "all",
    role: RoleOption = None,
    model: ModelOption = None,
    twin: TwinOption = False,
    report: ReportOption = False,
    seed: int = 0,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Find each concept's direction in CORPUS, or in the one that comes with Understudy.

    Directions are made from training texts and measured on held-out ones. OUT gets readout.safetensors,
    readout.json and card.json: name it as `readout` under [model] to read and steer by it.
    """
    from understudy.concepts import load_corpus, require_sound, shipped_corpus, write_card

    loaded_corpus = load_corpus(shipped_corpus() if corpus is None else corpus)
    require_sound(loaded_corpus)
    recipe = _recipe(layer, method, tokens, role)
    _require_new(out)
    with _model(workspace, model, recipe) as (loaded, commit):
        found = _extract(loaded, loaded_corpus, recipe, twin, seed)
        card = _card(loaded, commit, loaded_corpus, recipe, found, seed)
        written = _write_report(loaded, loaded_corpus, recipe, found, out) if report else None
    found.directions.save(out)
    write_card(out, card)
    if json:
        from msgspec import to_builtins

        print_json({"folder": str(out), "card": to_builtins(card)})
        return
    _print(found.validity, card.depths)
    if written is not None:
        _print_triage(written.report)
    print(f"\n{len(loaded_corpus.concepts)} concepts behind {len(found.reading.layers)} layers in {out}")


def report_concepts(
    directions: Path,
    corpus: Path | None = None,
    *,
    out: Annotated[Path | None, Parameter(help="Where to write; beside the directions, without.")] = None,
    model: ModelOption = None,
    twin: TwinOption = False,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Say what DIRECTIONS are worth: quality.json, and report.html to look at.

    CORPUS is the one that they were made from, by its card. They are measured anew with the model's weights
    of now.
    """
    from dataclasses import replace

    from understudy.concepts import Pooling, Recipe, UnknownConcept, load_corpus, read_card, shipped_corpus
    from understudy.engine import Directions

    found = Directions.load(directions)
    card = read_card(directions)
    loaded_corpus = load_corpus(shipped_corpus() if corpus is None else corpus)
    if loaded_corpus.digest != card.corpus:
        raise UnknownConcept(
            f"expected the corpus that {directions} were made from ({card.corpus[:12]}), got "
            f"{loaded_corpus.folder} ({loaded_corpus.digest[:12]}): name that one, or train anew"
        )
    layers = tuple(str(layer) for layer in card.layers)
    recipe = Recipe(layers, card.method, Pooling(card.pooled_tokens), card.role)
    with _model(workspace, model, recipe) as (loaded, _):
        found.check_model(
            loaded.model.config.get_text_config().num_hidden_layers,
            loaded.model.config.get_text_config().hidden_size,
        )
        made = replace(_extract(loaded, loaded_corpus, recipe, twin, card.seed), directions=found)
        written = _write_report(loaded, loaded_corpus, recipe, made, directions if out is None else out)
    if json:
        print_json({"files": [str(file) for file in written.files]})
        return
    _print(made.validity, card.depths)
    _print_triage(written.report)
    print("\n" + "\n".join(str(file) for file in written.files))


def _recipe(layers: Sequence[str], method: MethodName, tokens: str, role: RoleName | None) -> "Recipe":
    from understudy.concepts import Pooling, Recipe

    try:
        count = None if tokens == "all" else int(tokens)
    except ValueError as error:
        raise CommandError(f"expected a number of tokens or `all` for --tokens, got {tokens!r}") from error
    return Recipe(tuple(layers), method, Pooling(count), role)


def _require_new(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CommandError(f"expected a new or empty folder for --out, there is something in {out}")


@contextmanager
def _model(
    workspace: Path, model: Path | None, recipe: "Recipe"
) -> "Iterator[tuple[LoadedModel, str | None]]":
    """The model to read with and its weight commit. Layers are looked at before it is loaded."""
    from understudy.concepts import resolve_layers
    from understudy.engine import load_model, locate_model, read_config
    from understudy.workspace import Workspace

    if model is not None:
        directory = locate_model(model)
        resolve_layers(recipe.layers, read_config(directory).get_text_config().num_hidden_layers)
        yield load_model(directory), None
        return
    from understudy.cli.subjects import engine_of

    opened = Workspace.open(workspace)
    config = read_config(locate_model(opened.model_path)).get_text_config()
    resolve_layers(recipe.layers, config.num_hidden_layers)
    with engine_of(opened) as engine:
        yield engine.loaded, engine.weight_commit


def _extract(
    loaded: "LoadedModel", corpus: "Corpus", recipe: "Recipe", twin: bool, seed: int
) -> "Extraction":
    from understudy.concepts import extract
    from understudy.engine import untrained_twin

    with _telling() as told:
        untrained = untrained_twin(loaded, seed) if twin else None
        return extract(loaded, corpus, recipe, twin=untrained, seed=seed, told=told)


@contextmanager
def _telling() -> "Iterator[Told]":
    """A bar for each stage, with the time that is left."""
    with watching() as bar:
        tasks: dict[str, int] = {}

        def told(stage: str, done: int, of: int, _seconds_left: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=of)
            bar.update(tasks[stage], completed=done, total=of)  # type: ignore[arg-type]  # rich's TaskID

        yield told


def _card(
    loaded: "LoadedModel",
    commit: str | None,
    corpus: "Corpus",
    recipe: "Recipe",
    found: "Extraction",
    seed: int,
) -> "Card":
    from datetime import UTC, datetime
    from importlib.metadata import version

    from understudy.concepts import Card, depth, describe_validity

    layers = loaded.model.config.get_text_config().num_hidden_layers
    return Card(
        model=loaded.directory.name,
        architecture=type(loaded.model).__name__,
        weight_commit=commit,
        corpus=corpus.digest,
        texts=len(corpus.texts),
        method=recipe.method,
        pooled_tokens=recipe.pooling.tokens,
        role=recipe.role,
        layers=found.reading.layers,
        depths=tuple(round(depth(layer, layers), 4) for layer in found.reading.layers),
        seed=seed,
        made=datetime.now(UTC).isoformat(timespec="seconds"),
        understudy=version("understudy"),
        validity=describe_validity(found.validity),
    )


class _Written(NamedTuple):
    report: "QualityReport"
    files: Sequence[Path]


def _write_report(
    loaded: "LoadedModel", corpus: "Corpus", recipe: "Recipe", found: "Extraction", folder: Path
) -> _Written:
    from datetime import UTC, datetime

    from understudy.concepts import make_report, write_report

    made = datetime.now(UTC).isoformat(timespec="seconds")
    report = make_report(
        loaded, corpus, found.reading, found.directions, found.validity, recipe=recipe, made=made
    )
    return _Written(report, write_report(report, folder))


def _print_triage(report: "QualityReport") -> None:
    from understudy.concepts import buckets_of

    rows = [
        (bucket.replace("_", " "), why, ", ".join(names) or "-") for bucket, why, names in buckets_of(report)
    ]
    print()
    print_table(("filed under", "because", "concepts"), rows)


def _print(validity: "Validity | None", depths: Sequence[float]) -> None:
    if validity is None:
        print("no text is held out: nothing was measured")
        return
    rows = [
        (
            str(layer),
            f"{100 * share:.0f} %",
            str(found.average),
            str(found.keyword_free),
            "-" if found.transfer is None else str(found.transfer),
            f"{found.random[0]:.2f} [{found.random[1]:.2f}, {found.random[2]:.2f}]",
            f"{found.shuffled[0]:.2f} [{found.shuffled[1]:.2f}, {found.shuffled[2]:.2f}]",
            "-" if found.twin is None else str(found.twin),
        )
        for (layer, found), share in zip(validity.layers.items(), depths, strict=True)
    ]
    controls = ("random", "shuffled", "twin")
    print_table(("layer", "depth", "AUROC, held out", "no keywords", "scenes left out", *controls), rows)
    best = validity.layers[validity.best_layer]
    print(f"\nbest layer {best.layer}, each concept against the rest on held-out texts:")
    ordered = sorted(best.concepts.items(), key=lambda pair: -pair[1].held_out.value)
    print_table(
        ("concept", "AUROC, held out", "no keywords", "stability"),
        [(name, str(one.held_out), str(one.keyword_free), f"{one.stability:.2f}") for name, one in ordered],
    )
