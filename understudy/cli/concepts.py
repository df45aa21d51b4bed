"""`understudy concepts check` and `collect`: corpora of concepts, before any model is loaded."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.lessons import StateOption
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.tables import print_table, printable
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.concepts import Collected, Corpus, Finding, ScoredMessage, Split
    from understudy.lessons import Lesson, State

UNSOUND = 1
"""The exit code when a corpus has errors."""
BASELINES = "(baseline)"
"""The row of the texts that show no concept: no concept can be called that."""

_COUNTED = ("texts", "scenes", "train", "held_out", "pairs")

CorpusOption = Annotated[Path | None, Parameter(help="The corpus's folder.")]
FilesOption = Annotated[Path, Parameter(help="JSON Lines with scored messages, or with lessons.")]
OutOption = Annotated[Path, Parameter(help="The corpus to write: a new or empty folder.")]
ConceptOption = Annotated[
    tuple[str, ...],
    Parameter(help="A concept to collect; may be repeated. All that were scored, without.", negative=""),
]
HighOption = Annotated[float, Parameter(help="A score from here on shows the concept.")]
LowOption = Annotated[float, Parameter(help="A score up to here does not.")]
LessonsOption = Annotated[bool, Parameter(help="Collect from the ledger's lessons.", negative="")]
StatesOption = Annotated[
    tuple[StateOption, ...],
    Parameter(help="Of the ledger, lessons in this state; may be repeated.", negative=""),
]
PositiveOption = Annotated[str | None, Parameter(help="The concept that a lesson's chosen answer shows.")]
NegativeOption = Annotated[
    str | None, Parameter(help="The concept that its rejected answer shows; a baseline, without.")
]
ConversationsOption = Annotated[
    bool,
    Parameter(
        help="Collect from scored messages of the conversations, as without FILES and --lessons.", negative=""
    ),
]
HoldOutOption = Annotated[float, Parameter(help="The share of scenes that directions are measured on.")]


def check_concepts(corpus: CorpusOption = None, /, *, json: JsonOption = False) -> None:
    """Look for what is wrong with CORPUS, or with the one that comes with Understudy."""
    from understudy.concepts import load_corpus, preflight, shipped_corpus

    loaded = load_corpus(shipped_corpus() if corpus is None else corpus)
    findings = preflight(loaded)
    if json:
        print_json(_corpus_json(loaded, findings))
    else:
        _print_corpus(loaded, findings)
    if any(finding.level == "error" for finding in findings):
        sys.exit(UNSOUND)


def collect_concepts(
    *files: FilesOption,
    out: OutOption,
    concept: ConceptOption = (),
    high: HighOption = 7.0,
    low: LowOption = 3.0,
    lessons: LessonsOption = False,
    state: StatesOption = ("approved", "trained", "kept"),
    positive: PositiveOption = None,
    negative: NegativeOption = None,
    conversations: ConversationsOption = False,
    hold_out: HoldOutOption = 0.3,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Make a corpus of messages that people scored, and of lessons."""
    from understudy.concepts import pair_lessons, pair_scored, preflight, write_corpus

    scored, taught = _material(files, workspace, conversations, state if lessons else ())
    if bool(positive) != (bool(taught) or lessons) or (negative and not positive):
        raise CommandError(
            "expected --positive (and --negative beside it) where there are lessons, by --lessons or in a "
            f"file, and there alone; got --positive {positive}, --negative {negative}, {len(taught)} lessons"
        )
    found: list[Collected] = []
    if scored or concept:
        found.append(pair_scored(scored, concept, high=high, low=low))
    if positive and taught:
        found.append(pair_lessons(taught, positive, negative))
    pairs = [pair for one in found for pair in one.pairs]
    left_out = {why: count for one in found for why, count in one.left_out.items()}
    if not pairs:
        raise CommandError(_nothing(scored, taught, left_out, high, low))
    corpus = write_corpus(out, pairs, hold_out=hold_out)
    findings = preflight(corpus)
    if json:
        print_json({**_corpus_json(corpus, findings), "pairs": len(pairs), "left_out": left_out})
        return
    print(f"{len(pairs)} pairs in {out}, of {len(scored)} scored messages and {len(taught)} lessons")
    for why, count in left_out.items():
        print(f"left out: {count} {why}")
    _print_corpus(corpus, findings)


def _material(
    files: Sequence[Path], workspace: Path, conversations: bool, states: "Sequence[State]"
) -> "tuple[list[ScoredMessage], list[Lesson]]":
    """The scored messages and the lessons of all sources. The workspace is opened only if it is one."""
    from understudy.concepts import (
        held_lessons,
        is_lesson_file,
        lessons_in_lines,
        scored_in_conversations,
        scored_in_lines,
    )
    from understudy.workspace import Workspace

    scored: list[ScoredMessage] = []
    taught: list[Lesson] = []
    for file in files:
        if is_lesson_file(file):
            taught += lessons_in_lines(file)
        else:
            scored += scored_in_lines(file)
    if states:
        taught += held_lessons(Workspace.open(workspace).ledger, states)
    if conversations or not (files or states):
        opened = Workspace.open(workspace)
        scored += scored_in_conversations(opened.repository, opened.settings.model.name)
    return scored, taught


def _nothing(
    scored: "Sequence[ScoredMessage]",
    taught: "Sequence[Lesson]",
    left_out: Mapping[str, int],
    high: float,
    low: float,
) -> str:
    """Why there is nothing to write."""
    why = "".join(f"; {count} {reason}" for reason, count in left_out.items())
    return (
        f"expected a message with a score of {high:g} or more and another with {low:g} or less on the same "
        f"concept, or a lesson with both answers; got {len(scored)} scored messages and {len(taught)} lessons"
        f"{why}: nothing was written. A text is taken that shows one of the concepts: name one with "
        "--concept, or move --high and --low"
    )


# What is shown


def _rows(corpus: "Corpus") -> list[dict[str, Any]]:
    """A row for each concept, and one for the baselines where there are some."""
    from understudy.concepts import scenes_of

    rows: list[dict[str, Any]] = []
    for concept in (*corpus.concepts, None):
        own = [text for text in corpus.texts if text.concept == concept]
        if not own:
            continue
        row: dict[str, Any] = {
            "concept": concept,
            "texts": len(own),
            "scenes": len(scenes_of(own)),
            "pairs": 0,
        }
        splits: tuple[Split, Split] = ("train", "held_out")
        for split in splits:
            row[split] = sum(text.split == split for text in own)
            row["pairs"] += len(corpus.pairs(concept, split)) if concept is not None else 0
        rows.append(row)
    return rows


def _corpus_json(corpus: "Corpus", findings: "Sequence[Finding]") -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "corpus": str(corpus.folder),
        "digest": corpus.digest,
        "concepts": [row for row in _rows(corpus) if row["concept"] is not None],
        "baselines": next((row["texts"] for row in _rows(corpus) if row["concept"] is None), 0),
        "findings": [asdict(finding) for finding in findings],
    }


def _print_corpus(corpus: "Corpus", findings: "Sequence[Finding]") -> None:
    rows = [(row["concept"] or BASELINES, *(str(row[part]) for part in _COUNTED)) for row in _rows(corpus)]
    print_table(("concept", *(part.replace("_", " ") for part in _COUNTED)), rows)
    for finding in findings:
        print(f"{finding.level:<9}{printable(str(finding))}")
    errors = sum(finding.level == "error" for finding in findings)
    print(f"{corpus.folder}: {errors} errors, {len(findings) - errors} warnings")
