"""`understudy concepts steer`: which strengths do something and break nothing, and lessons."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.reading import DirectionsOption, directions_of, usual_layer
from understudy.cli.steering_inputs import (
    STRENGTHS,
    ModeName,
    ProbeName,
    Prompt,
    SweepPlan,
    read_probe,
    read_prompts,
    read_sampling,
    read_steers,
)
from understudy.cli.steering_tables import print_lessons, print_sweep, sweep_json
from understudy.cli.tables import printable, watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.concepts import Effect, UsableRange
    from understudy.lessons import LedgerEntry
    from understudy.workspace import Workspace

StrengthOption = Annotated[
    str | None,
    Parameter(
        help="Strengths to try, as A,B,...: numbers, or such as 2x for times the length of the difference of "
        "means. 0.5x,1x,2x,4x without, and 0.25,0.5,1 for ablate.",
        allow_leading_hyphen=True,
    ),
]
ModeOption = Annotated[ModeName, Parameter(help="What is done along the direction (docs/api.md).")]
LayersOption = Annotated[
    tuple[int, ...],
    Parameter(help="A layer to steer behind; may be repeated. All with directions, without.", negative=""),
]
SpanOption = Annotated[
    str | None,
    Parameter(
        help="Where to steer: `first` (what the answer's first token is chosen from), `answer`, `prompt`, or "
        "positions A:B. Everywhere, without."
    ),
]
PromptOption = Annotated[
    tuple[str, ...],
    Parameter(
        help="A prompt to answer; may be repeated. Openings that ask for nothing special, without.",
        negative="",
        allow_leading_hyphen=True,
    ),
]
PromptsOption = Annotated[
    Path | None,
    Parameter(help="A file of prompts, one to a line; as .jsonl, lines with `prompt` or `messages`."),
]
WordOption = Annotated[
    tuple[str, ...],
    Parameter(help="A word that shows the concept in an answer; may be repeated.", negative=""),
]
CorpusOption = Annotated[
    Path | None, Parameter(help="The corpus whose words for the concept show it; Understudy's own, without.")
]
ProbeOption = Annotated[
    ProbeName,
    Parameter(help="What shows the concept: its words, or that it is read in the answer with z 1 and more."),
]
SamplesOption = Annotated[
    int | None, Parameter(help="Answers to each prompt; 4 without, and 1 at temperature 0.")
]
ProposeOption = Annotated[
    str | None,
    Parameter(
        help="A strength: what is said under it to --prompt and --prompts is proposed as lessons.",
        allow_leading_hyphen=True,
    ),
]


def steer_concepts(
    concept: str,
    *,
    directions: DirectionsOption = None,
    strength: StrengthOption = None,
    mode: ModeOption = "add",
    layer: LayersOption = (),
    span: SpanOption = None,
    prompt: PromptOption = (),
    prompts: PromptsOption = None,
    word: WordOption = (),
    corpus: CorpusOption = None,
    probe: ProbeOption = "words",
    samples: SamplesOption = None,
    temperature: float = 0.8,
    max_tokens: int = 40,
    seed: Annotated[int, Parameter(help="What drawn answers follow from.")] = 0,
    propose: ProposeOption = None,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Answer prompts while CONCEPT is steered more and more: how often it shows, and what breaks.

    Answers are measured by the model without steering: how perplexing they are to it, and what it reads in
    them. A strength is usable while the perplexity at it and at weaker ones stays below 1.5 times that of the
    answers without. With --propose a steered answer to each prompt enters the ledger as a lesson, against the
    answer without; a person approves it, as any lesson.
    """
    from understudy.concepts import OPENINGS, scale_of, usable
    from understudy.lessons import ChatMessage
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    folder, whole = directions_of(opened, directions)
    tried = STRENGTHS[mode] if strength is None else strength
    wanted = None if propose is None else read_steers(whole, concept, propose, mode, layer, span)
    if wanted is not None and len(wanted) > 1:
        raise CommandError(f"expected one strength for --propose, got {propose}")
    steers = read_steers(whole, concept, f"{tried},{propose}" if propose else tried, mode, layer, span)
    asked = read_prompts(prompt, prompts)
    barred = _bar_held_out(opened, asked) if wanted else None
    words, found = read_probe(probe, whole, folder, concept, word, corpus)
    sampling, count = read_sampling(temperature, max_tokens, samples)
    plan = SweepPlan(
        concept=concept,
        folder=folder,
        steers=steers,
        proposed=wanted[0] if wanted else None,
        prompts=asked or tuple((ChatMessage("user", text),) for text in OPENINGS),
        words=words,
        found=found,
        layer=usual_layer(folder, whole)[0],
        sampling=sampling,
        samples=count,
        seed=seed,
    )
    effects, commit = _swept(opened, plan)
    within, scale = usable(effects, fewest=plan.fewest), scale_of(whole)
    entries = [] if barred is None else _propose(opened, plan, effects, within, commit, barred)
    if json:
        print_json(sweep_json(plan, effects, within, scale, commit, entries))
        return
    print_sweep(plan, effects, within, scale, commit)
    if barred is not None:
        print_lessons(plan, entries)


def _swept(workspace: "Workspace", plan: SweepPlan) -> "tuple[Sequence[Effect], str | None]":
    """The effects, and the weight commit that spoke."""
    from understudy.cli.subjects import engine_of
    from understudy.concepts import sweep

    with engine_of(workspace, readout=plan.folder) as engine, watching() as bar:
        task = bar.add_task("answering", total=None)
        effects = sweep(
            engine,
            plan.prompts,
            [(steer,) for steer in plan.steers],
            concept=plan.concept,
            found=plan.found,
            sampling=plan.sampling,
            samples=plan.samples,
            layer=plan.layer,
            seed=plan.seed,
            told=lambda done, of: bar.update(task, completed=done, total=of),
        )
        return effects, engine.weight_commit


# ---------------------------------------------------------------------- lessons


def _bar_held_out(workspace: "Workspace", prompts: Sequence[Prompt]) -> Callable[[str], bool]:
    """Whether an answer has a word that invariants hold out. Raises CommandError for prompts that give away
    what they hold out: what would be learned could no longer be measured.
    """
    from understudy.behaviours import HeldOut, Scenario

    if not prompts:
        raise CommandError(
            "expected --prompt or --prompts with --propose: lessons are of prompts that you give"
        )
    invariants = workspace.invariants()
    held = HeldOut(invariants)
    for prompt in prompts:
        if any(held.gives_away(one, Scenario(prompt)) for one in invariants):
            raise CommandError(
                f"expected prompts that no invariant holds out, got {printable(prompt[-1].content)!r}: it is "
                "nearly a scenario of a development or test split, or has a word that only these have, and "
                "what is learned from it could no longer be measured"
            )
    return lambda text: any(held.names(one, text) for one in invariants)


def _propose(
    workspace: "Workspace",
    plan: SweepPlan,
    effects: "Sequence[Effect]",
    within: "UsableRange",
    commit: str | None,
    barred: Callable[[str], bool],
) -> "list[tuple[LedgerEntry, bool]]":
    """The ledger's entry of each lesson, and whether it is new. No one has approved them."""
    from datetime import UTC, datetime

    from understudy.concepts import steered_lessons

    [effect] = [one for one in effects if one.steering and one.steering[0] == plan.proposed]
    if effect not in within.effects:
        print(f"{plan.proposed} is not usable: look at its lessons with care", file=sys.stderr)
    lessons = steered_lessons(
        plan.prompts,
        effects[0],
        effect,
        weights=commit or "initial",
        at=datetime.now(UTC).isoformat(),
        fewest=plan.fewest,
        barred=barred,
    )
    ledger = workspace.ledger
    found = [ledger.propose(lesson) for lesson in lessons]
    return [(one.entry, one.new) for one in found]
