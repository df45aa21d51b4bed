"""`understudy lessons lean`."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.subjects import subject_of
from understudy.cli.tables import printable, watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from understudy.behaviours import Leaning, NoteMatrix, Smooth, Subject
    from understudy.config import ParticipantSettings
    from understudy.lessons import LedgerEntry, Note, Reply
    from understudy.workspace import Workspace

Flag = Parameter(negative="")
AUTHOR = "understudy"
"""Who proposes: the program, no person."""
MOST_NULLS = 200
"""Null replies that are scored, the newest, unless the level needs more: twice as many cost twice as much."""
DRAWN_AT = 1.0
"""The temperature of null replies where the participant speaks at 0, which has one answer to a context."""
_WIDTH = 100
"""Columns of a page that is no terminal."""
_NAME_WIDTH, _REPLY_WIDTH = 24, 8


@dataclass(frozen=True, slots=True)
class _Found:
    """What was measured, and how: null replies that were posted and drawn, replies too long for the notes."""

    matrix: "NoteMatrix"
    posted: int
    drawn: int
    too_long: int
    alternates: "Mapping[Leaning, str]"


def lean_lessons(
    *,
    recent: Annotated[int, Parameter(help="How many of the newest replies to look at.")] = 20,
    level: Annotated[
        float, Parameter(help="Of replies that use no note, the share that is not to count as leaning.")
    ] = 0.95,
    alternates: Annotated[
        bool, Flag, Parameter(help="Also what the model says without the notes, beside each leaning reply.")
    ] = False,
    propose: Annotated[bool, Flag, Parameter(help="Propose leaning replies as lessons.")] = False,
    as_json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Score recent replies with all notes, without each and without any, and say which lean on the notes.

    A reply leans when it is less likely without the notes by more than nearly all replies that used none.
    With --propose such replies enter the ledger as lessons without the notes; a person approves them, as any
    lesson. Asks the running server, else loads the model.
    """
    from understudy.workspace import Workspace

    if recent < 1 or not 0 < level < 1:
        raise CommandError(
            f"expected --recent of 1 or more and --level between 0 and 1, got {recent} and {level}"
        )
    opened = Workspace.open(workspace)
    notes = opened.notes
    if not notes:
        raise CommandError(f"expected notes in {opened.root / 'notes'}/*.md, found none: write one first")
    spoken, unaided = _said(opened, recent)
    with subject_of(opened) as subject:
        found = _measured(
            subject, notes, spoken, unaided, level, opened.settings.participant, alternates=alternates
        )
    entries = _propose(opened, found) if propose else {}
    if as_json:
        print_json(_as_data(found, entries))
    else:
        _print_matrix(found)
        _print_leaning(found, entries)


def _said(workspace: "Workspace", recent: int) -> "tuple[list[Reply], list[Reply]]":
    """The newest replies that were spoken with notes, and all that were spoken without."""
    from understudy.lessons import replies

    name = workspace.settings.model.name
    said = replies(workspace.repository, name)
    spoken = [one for one in said if one.notes]
    if not spoken:
        raise CommandError(
            f"expected replies that {name} gave with notes and that stand as it gave them, found none among "
            f"{len(said)}: let it answer, with `understudy say` or a server, now that there are notes"
        )
    return spoken[-recent:], [one for one in said if not one.notes]


def _measured(
    subject: "Subject",
    notes: "Sequence[Note]",
    spoken: "Sequence[Reply]",
    unaided: "Sequence[Reply]",
    level: float,
    speaks: "ParticipantSettings",
    *,
    alternates: bool,
) -> _Found:
    from understudy.behaviours import ENOUGH_NULLS, Speech, draw_nulls, fits_with, lean, nulls_needed

    wanted = max(ENOUGH_NULLS, nulls_needed(level))
    held = [one for one in spoken if fits_with(subject, notes, (one.context, one.text))]
    if not held:
        raise CommandError(
            f"expected replies that the model can hold behind the notes, {len(spoken)} are too long for "
            f"its {subject.context_length} tokens: shorten the notes"
        )
    newest = [(one.context, one.text) for one in unaided[-max(MOST_NULLS, wanted) :]]
    nulls = [said for said in newest if fits_with(subject, notes, said)]
    posted = len(nulls)
    contexts = [one.context for one in held]
    with watching() as bar:
        task = bar.add_task("answering without notes", total=None)
        told = partial(_advance, bar, task)
        speech = Speech(speaks.temperature or DRAWN_AT, speaks.max_tokens)
        drawn = draw_nulls(subject, contexts, wanted - posted, speech, told)
        nulls += [said for said in drawn if fits_with(subject, notes, said)]
        bar.reset(task, description="scoring", total=None)
        matrix = lean(held, notes, nulls, subject, level=level, scored=told)
        others: dict[Leaning, str] = {}
        if alternates and matrix.leaning:
            bar.reset(task, description="answering where it leans", total=None)
            speech = Speech(speaks.temperature, speaks.max_tokens)
            answers = subject.answer([one.reply.context for one in matrix.leaning], speech)
            others = dict(zip(matrix.leaning, answers, strict=True))
    return _Found(matrix, posted, len(nulls) - posted, len(spoken) - len(held), others)


def _advance(bar: "Progress", task: "TaskID", done: int, of: int) -> None:
    bar.update(task, completed=done, total=of)


def _propose(workspace: "Workspace", found: _Found) -> "dict[Leaning, LedgerEntry]":
    """The ledger's entry for each leaning reply: a lesson without the notes, entered now or there already.

    What a person decided stays decided, also when the alternate reads otherwise by now.
    """
    from dataclasses import replace

    from understudy.lessons import Lesson

    entries: dict[Leaning, LedgerEntry] = {}
    ledger = workspace.ledger
    for one in found.matrix.leaning:
        reply = one.reply
        other = found.alternates.get(one, "")
        rejected = other if other.strip() and other.split() != reply.text.split() else None
        known = [
            entry
            for entry in ledger.list()
            if (entry.lesson.context, entry.lesson.chosen) == (reply.context, reply.text)
            and entry.superseded_by is None
        ]
        if known and (rejected is None or known[-1].state != "proposed"):
            entries[one] = known[-1]
            continue
        lesson = Lesson(reply.context, reply.text, rejected, replace(reply.source, author=AUTHOR))
        entries[one] = ledger.propose(lesson).entry
    return entries


def _print_matrix(found: _Found) -> None:
    """Notes down, replies across, as many beside each other as there is room for."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    matrix = found.matrix
    console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False)
    short = _short_ids([one.reply.source.message for one in matrix.columns])
    use = [_use(matrix.usefulness(note)) for note in matrix.notes]
    names_width = min(_NAME_WIDTH, max(len(note.name) for note in matrix.notes))
    across = max(1, (console.width - names_width - max(map(len, use)) - 8) // _REPLY_WIDTH)
    for start in range(0, len(matrix.columns), across):
        part = matrix.columns[start : start + across]
        table = Table(box=None, pad_edge=False)
        table.add_column("note", max_width=_NAME_WIDTH, overflow="fold")
        table.add_column("of use, nats a reply")
        for one in part:
            table.add_column(short[one.reply.source.message], justify="right", no_wrap=True)
        for row, note in enumerate(matrix.notes):
            table.add_row(
                Text(printable(note.name)), Text(use[row]), *(f"{one.drops[row]:+.1f}" for one in part)
            )
        table.add_row("all notes", "", *(f"{one.total:+.1f}" for one in part))
        table.add_row("", "", *("leans" if matrix.leans(one) else "" for one in part))
        console.print(table, end="\n\n")
    console.print(
        f"threshold {matrix.threshold:+.2f} nats: level {matrix.level:g}, from {len(matrix.nulls)} "
        f"replies that used no note ({found.posted} posted, {found.drawn} drawn)",
        soft_wrap=True,
    )
    if found.too_long:
        console.print(f"passed over: {found.too_long} replies, too long to stand behind the notes")


def _print_leaning(found: _Found, entries: "Mapping[Leaning, LedgerEntry]") -> None:
    """Each leaning reply: where it stands, what was said, what is said without, what became of it."""
    matrix = found.matrix
    print(f"{len(matrix.leaning)} of {len(matrix.columns)} replies lean on the notes")
    for one in matrix.leaning:
        print(f"\n{one.reply.source.message}  {one.reply.source.file} ({printable(one.reply.source.thread)})")
        print(f"  said     {printable(one.reply.text)}")
        if one in found.alternates:
            print(f"  without  {printable(found.alternates[one])}")
        if one in entries:
            print(f"  lesson   {entries[one].short}  {entries[one].state}")


def _use(found: "Smooth | None") -> str:
    return "-" if found is None else f"{found.mean:.1f} [{found.low:.1f}, {found.high:.1f}] n={found.n}"


def _short_ids(ids: Sequence[str]) -> dict[str, str]:
    """The shortest beginnings that tell the ids apart."""
    length = 4
    while len({one[:length] for one in ids}) < len(set(ids)):
        length += 1
    return {one: one[:length] for one in ids}


def _as_data(found: _Found, entries: "Mapping[Leaning, LedgerEntry]") -> dict[str, Any]:
    matrix = found.matrix
    return {
        "level": matrix.level,
        "threshold": matrix.threshold,
        "unit": "nats",
        "nulls": {"posted": found.posted, "drawn": found.drawn, "leaning": list(matrix.nulls)},
        "too_long": found.too_long,
        "notes": [
            {"name": note.name, "digest": note.digest, "usefulness": _finite(matrix.usefulness(note))}
            for note in matrix.notes
        ],
        "replies": [
            {
                **asdict(one.reply.source),
                "text": one.reply.text,
                "spoken_with": dict(one.reply.notes),
                "tokens": one.tokens,
                "drops": dict(zip((note.name for note in matrix.notes), one.drops, strict=True)),
                "total": one.total,
                "leans": matrix.leans(one),
                "without": found.alternates.get(one),
                "lesson": entries[one].id if one in entries else None,
            }
            for one in matrix.columns
        ],
    }


def _finite(found: "Smooth | None") -> dict[str, Any] | None:
    """JSON knows no infinity: one reply has no interval."""
    if found is None:
        return None
    return {key: None if value in (-math.inf, math.inf) else value for key, value in asdict(found).items()}
