"""`understudy concepts read`: what directions say of texts, now or at several weight commits."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.readout_tables import drift_json, print_drift, print_texts, texts_json
from understudy.cli.tables import watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.concepts import Drift, Scale, Text, TextReadouts
    from understudy.engine import Directions
    from understudy.lessons import Role
    from understudy.workspace import Workspace

RoleName = Literal["plain", "system", "user", "assistant"]

FilesOption = Annotated[
    tuple[Path, ...],
    Parameter(
        help="A file whose text is read, `-` for standard input; may be repeated.",
        negative="",
        allow_leading_hyphen=True,
    ),
]
DirectionsOption = Annotated[
    Path | None, Parameter(help="A folder of directions; `readout` under [model], without.")
]
ConceptsOption = Annotated[
    tuple[str, ...], Parameter(help="A concept to read; may be repeated. All, without.", negative="")
]
LayersOption = Annotated[
    tuple[int, ...],
    Parameter(
        help="A layer to read behind; may be repeated. The best one by the card, or the deepest, without.",
        negative="",
    ),
]
PerOption = Annotated[
    Literal["token", "message"], Parameter(help="Each of a text's tokens, or the mean over them.")
]
ReadRoleOption = Annotated[
    RoleName | None,
    Parameter(help="Read each text as a message of this role, or plain; as the card says, without."),
]
RawOption = Annotated[bool, Parameter(help="Scalar products.", negative="")]
ZOption = Annotated[
    bool,
    Parameter(
        name="--z",
        help="Standard deviations from the mean over baseline texts: the default where these are known.",
        negative="",
    ),
]
CommitsOption = Annotated[
    str | None,
    Parameter(help="Weight commits to compare, as A,B,...: the first is what others are held against."),
]
CorpusOption = Annotated[
    Path | None,
    Parameter(help="With --commits and no text: a corpus whose held-out texts are read; Understudy's own."),
]


def read_concepts(
    *texts: str,
    file: FilesOption = (),
    directions: DirectionsOption = None,
    concept: ConceptsOption = (),
    layer: LayersOption = (),
    per: PerOption = "message",
    role: ReadRoleOption = None,
    raw: RawOption = False,
    z: ZOption = False,
    commits: CommitsOption = None,
    corpus: CorpusOption = None,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Read TEXTS with the workspace's newest weights, or with those of several commits."""
    from understudy.concepts import narrow, require_scale
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    folder, whole = directions_of(opened, directions)
    chosen = narrow(whole, concepts=concept, layers=layer or usual_layer(folder, whole))
    scale: Scale = _scale(chosen, raw, z)
    require_scale(chosen, scale)
    given = _texts(texts, file)
    if commits is None:
        if corpus is not None or not given:
            raise CommandError(
                "expected texts to read, as arguments or by --file (`-` for standard input), and --corpus "
                "only with --commits"
            )
        found, commit = _read(opened, chosen, given, _role(folder, role), scale)
        told = {"directions": str(folder), "weight_commit": commit, "scale": scale}
        if json:
            print_json({**told, "texts": texts_json(chosen, given, found, per)})
        else:
            print_texts(chosen, given, found, per, scale)
            print(f"\nweights {commit or 'initial'}, directions {folder}")
        return
    if per == "token":
        raise CommandError("expected --per message with --commits: texts are compared as a whole")
    if corpus is not None and given:
        raise CommandError("expected either texts or --corpus with --commits, got both")
    drift = _drift(opened, chosen, commits, given or _held_out(corpus), _role(folder, role), scale)
    if json:
        print_json({"directions": str(folder), **drift_json(drift)})
    else:
        print_drift(drift)


# What is read


def directions_of(workspace: "Workspace", given: Path | None) -> "tuple[Path, Directions]":
    """The directions, known to be of the workspace's model, before it is loaded."""
    from understudy.engine import Directions, locate_model, read_config

    folder = workspace.readout_path if given is None else given
    if folder is None:
        raise CommandError(
            "expected --directions DIR, or `readout` under [model] in understudy.toml: there are no "
            "directions to read by (`understudy concepts train` makes some)"
        )
    found = Directions.load(folder)
    config = read_config(locate_model(workspace.model_path)).get_text_config()
    found.check_model(config.num_hidden_layers, config.hidden_size)
    return folder, found


def usual_layer(folder: Path, directions: "Directions") -> tuple[int]:
    from understudy.concepts import CARD_FILE, read_card

    validity = read_card(folder).validity if (folder / CARD_FILE).exists() else None
    best = (validity or {}).get("best_layer")
    return (best if best in directions.layers else directions.layers[-1],)


def _role(folder: Path, given: RoleName | None) -> "Role | None":
    """The role to read texts in: the one that directions were made in, if nothing else is said."""
    from understudy.concepts import CARD_FILE, read_card

    if given is not None:
        return None if given == "plain" else given
    return read_card(folder).role if (folder / CARD_FILE).exists() else None


def _scale(directions: "Directions", raw: bool, z: bool) -> "Scale":
    if raw and z:
        raise CommandError("expected either --raw or --z, got both")
    if raw or z:
        return "raw" if raw else "z"
    return "raw" if directions.statistics is None else "z"


def _texts(given: Sequence[str], files: Sequence[Path]) -> "list[Text]":
    from understudy.concepts import Text

    found = [(f"text {number}", text) for number, text in enumerate(given, start=1)]
    for file in files:
        try:
            standard = str(file) == "-"
            text = sys.stdin.read() if standard else file.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeError) as error:
            raise CommandError(f"expected a text in UTF-8 at {file}: {error}") from error
        found.append(("standard input" if standard else str(file), text))
    empty = [name for name, text in found if not text.strip()]
    if empty:
        raise CommandError(f"expected a text to read in {empty[0]}, found none")
    return [Text(name, "story", None, name, "held_out", text.strip()) for name, text in found]


def _held_out(corpus: Path | None) -> "Sequence[Text]":
    from understudy.concepts import load_corpus, shipped_corpus

    loaded = load_corpus(shipped_corpus() if corpus is None else corpus)
    if not loaded.of("held_out"):
        raise CommandError(
            f"expected held-out texts in {loaded.folder}, found none: name some in its manifest.json, or "
            "give texts to read"
        )
    return loaded.of("held_out")


def _read(
    workspace: "Workspace",
    directions: "Directions",
    texts: "Sequence[Text]",
    role: "Role | None",
    scale: "Scale",
) -> "tuple[Sequence[TextReadouts], str | None]":
    from understudy.cli.subjects import engine_of
    from understudy.concepts import read_texts

    with engine_of(workspace) as engine, watching() as bar:
        task = bar.add_task("reading", total=len(texts))
        found = read_texts(
            engine.loaded,
            directions,
            texts,
            role=role,
            scale=scale,
            report=lambda progress: bar.update(task, completed=progress.texts),
        )
        return found, engine.weight_commit


def _drift(
    workspace: "Workspace",
    directions: "Directions",
    commits: str,
    texts: "Sequence[Text]",
    role: "Role | None",
    scale: "Scale",
) -> "Drift":
    import torch

    from understudy.cli.weights import model_directory
    from understudy.concepts import measure_drift, resolve_commits

    directory = model_directory(workspace)
    names = resolve_commits(directory, [name.strip() for name in commits.split(",")])
    settings = workspace.settings.model
    torch.set_num_threads(settings.threads)
    with watching() as bar:
        tasks = {name: bar.add_task(f"reading at {name}", total=len(texts)) for name in names}
        return measure_drift(
            directory,
            names,
            directions,
            texts,
            scale=scale,
            role=role,
            dtype=settings.dtype,
            told=lambda name, done, of: bar.update(tasks[name], completed=done, total=of),
        )
