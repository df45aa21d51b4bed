"""`understudy dream`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.behaviours import SeedOption, chosen
from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.subjects import subject_of, weights_now
from understudy.cli.tables import print_table, watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.behaviours import Batch, DreamLog, Invariant, Material, RoundBegun, RoundReport, Zone
    from understudy.lessons import Ledger, LedgerEntry
    from understudy.workspace import Workspace

RECENT = 200
"""Messages and lessons, newest first, that scenarios are made from."""
MOVING = (
    "expected weights that stay as they are while their dreams last, the server trains: try again when it is "
    "done"
)


def dream(
    *names: str,
    budget: Annotated[int, Parameter(help="How many scenarios are asked.")] = 200,
    seed: SeedOption = 0,
    zone: Annotated[str, Parameter(help="The share of failures that is aimed at.")] = "0.2,0.5",
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Imagine new scenarios, let the model answer, and propose lessons from what it failed.

    Of all invariants that have an instruction, or of NAMES: scenarios are recombined from their templates and
    from what was said lately, or said anew by the model; none is of the development or test split. A round
    that was cut off goes on where it was. Lessons wait for approval, but those of an invariant whose file
    says `approved_by`.
    """
    from datetime import UTC, datetime

    from understudy.behaviours import dream as dream_on
    from understudy.behaviours import open_round, report_round
    from understudy.workspace import Workspace

    opened = Workspace.open(workspace)
    invariants = chosen(opened, ())
    with subject_of(opened) as subject:
        begun = _begun(opened, invariants, names, budget, seed, _zone(zone))
        with open_round(opened.root / ".understudy" / "dreams", begun) as log, watching() as bar:
            if log.left is not None:
                _say_left(log.left, log.begun)
            known = "goes on" if log.batches else "begins"
            task = bar.add_task(f"round {log.begun.number} {known}", total=budget, completed=len(log.dreams))

            def note(batch: "Batch") -> None:
                _propose(opened.ledger, log.begun, [batch])
                bar.update(task, completed=len(log.dreams), description=f"failed {batch.failed.value:.2f}")

            dream_on(
                log,
                invariants,
                subject,
                now=lambda: datetime.now(UTC),
                weights=lambda: _weights(opened),
                dreamed=note,
            )
            proposed = _propose(opened.ledger, log.begun, log.batches)
            _approve(opened.ledger, proposed, invariants)
            if not log.batches:
                raise CommandError(_why_empty(log))
            report = report_round(log)
    if json:
        from understudy.behaviours import round_json

        print_json({**round_json(report), "lessons": [entry.id for _, entry in proposed]})
    else:
        _print(report, len(proposed))


def _say_left(left: "RoundBegun", begun: "RoundBegun") -> None:
    """That a round which was not over is not gone on with, and why."""
    same = left.weights == begun.weights
    why = "it had other settings or invariants" if same else f"it was of the weights {left.weights[:12]}"
    print(f"round {left.number} is left as it is, since {why}: round {begun.number} begins", file=sys.stderr)


def _why_empty(log: "DreamLog") -> str:
    if log.ended is not None and log.ended.why == "weights moved":
        return MOVING
    return (
        "expected scenarios to ask, none could be made that is not held out or known: give the invariants "
        "more templates or words (docs/behaviours.md)"
    )


def _begun(
    workspace: "Workspace",
    invariants: "Sequence[Invariant]",
    names: Sequence[str],
    budget: int,
    seed: int,
    zone: "Zone",
) -> "RoundBegun":
    from understudy.behaviours import RoundBegun, can_be_dreamed, digests_of

    if budget < 1:
        raise CommandError(f"expected a budget of at least one scenario, got {budget}")
    asked_for = chosen(workspace, names) if names else invariants
    dreamed = tuple(one.name for one in asked_for if can_be_dreamed(one))
    barred = [one.name for one in asked_for if names and not can_be_dreamed(one)]
    if barred:
        raise CommandError(
            f"expected invariants with an instruction and a judge of answers, got {', '.join(barred)}: "
            "without an instruction that brings the behaviour out, a failure teaches nothing"
        )
    if not dreamed:
        raise CommandError(
            "expected invariants with an [instruction], found none: without one that brings the behaviour "
            "out, a failure teaches nothing (docs/behaviours.md)"
        )
    if (weights := _weights(workspace)) is None:
        raise CommandError(MOVING)
    known, material = digests_of(invariants), _material(workspace)
    return RoundBegun(0, weights, budget, seed, zone, dreamed, known, material)


def _weights(workspace: "Workspace") -> str | None:
    """The weight commit that speaks now; None between two."""
    found = weights_now(workspace)
    return None if found.training else found.commit or "initial"


def _material(workspace: "Workspace") -> "Material":
    """What people asked lately, and the lessons that they gave."""
    from datetime import UTC, datetime

    from understudy.behaviours import DREAMED, Material
    from understudy.concepts import STEERED
    from understudy.lessons import chat_context

    repository, name = workspace.repository, workspace.settings.model.name
    oldest = datetime.min.replace(tzinfo=UTC)  # of a time that cannot be read
    asked = [
        (message.created_at or oldest, conversation.path(message.id))
        for conversation in (repository.read(file) for file in repository.files())
        for message in conversation.walk()
        if message.author != name and not message.deleted
    ]
    asked.sort(key=lambda pair: pair[0], reverse=True)
    states = ("approved", "trained", "kept")
    given = [
        entry.lesson
        for entry in reversed(workspace.ledger.list())
        if entry.state in states and entry.lesson.source.file not in (DREAMED, STEERED)
    ]
    prompts = [chat_context(path, name) for _, path in asked[:RECENT]]
    return Material(tuple(prompts), tuple(given[:RECENT]))


def _propose(
    ledger: "Ledger", begun: "RoundBegun", batches: "Sequence[Batch]"
) -> "list[tuple[str, LedgerEntry]]":
    """Enter the batches' lessons, each with its invariant's name. Again changes nothing."""
    from understudy.behaviours import lessons_of

    made = [one for batch in batches for one in lessons_of(begun, batch)]
    return [(name, ledger.propose(lesson).entry) for name, lesson in made]


def _approve(
    ledger: "Ledger", entered: "Sequence[tuple[str, LedgerEntry]]", invariants: "Sequence[Invariant]"
) -> None:
    """Approve lessons of invariants whose files say so: when the round is over, since a running server trains
    what is approved at once, and the rest of the round would be asked of other weights.
    """
    for invariant in invariants:
        waiting = [entry.id for of, entry in entered if of == invariant.name and entry.state == "proposed"]
        if invariant.approved_by and waiting:
            why = f"dreamed for {invariant.name}, approved in its file"
            ledger.approve_together(waiting, invariant.approved_by, why)


def _zone(text: str) -> "Zone":
    from understudy.behaviours import Zone

    try:
        low, high = (float(part) for part in text.split(","))
        return Zone(low, high)
    except ValueError as error:
        raise CommandError(f"expected a zone such as 0.2,0.5 for --zone, got {text!r}: {error}") from error


def _print(report: "RoundReport", lessons: int) -> None:
    rows = [
        (
            one.invariant,
            str(one.failed.n),
            str(one.failed) if one.failed.n else "-",
            str(one.lessons),
            ", ".join(f"{count} {why}" for why, count in one.dropped.items()) or "-",
        )
        for one in report.counted
    ]
    print_table(("invariant", "asked", "failed", "lessons", "dropped"), rows)
    zone = f"{report.zone.low:g} to {report.zone.high:g}"
    settled = f"failed {report.settled} in its last half, {report.reach} ({zone})"
    print(f"\nround {report.number}, {report.why}: {settled}")
    if report.correlation is not None:
        print(f"ratings against failures: rank correlation {report.correlation}")
        rated = [(f"{mean:.2f}", str(failed)) for mean, failed in report.ratings]
        print_table(("rated", "failed"), rated)
    print(f"{lessons} lessons proposed: understudy lessons list proposed")
