"""`understudy weights diff|verify|diagnose|gc`: what moved, and whether all is as it should be."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.weights import INITIAL, model_directory, print_json, progress

if TYPE_CHECKING:
    from understudy.weights import Diagnosis, HistoryView, MovementReport


def diff_weights(
    before: Annotated[
        str | None, Parameter(help="A commit, or `initial`; else the one before AFTER.")
    ] = None,
    after: Annotated[str | None, Parameter(help="A commit; else the newest.")] = None,
    *,
    top: Annotated[int, Parameter(help="How many matrices and heads to list, those that moved most.")] = 12,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Show what moved between two weight commits: by layer, by matrix, by head."""
    from understudy.weights import WeightHistory, measure_movement, pair_streams, read_config
    from understudy.workspace import Workspace

    directory = model_directory(Workspace.open(workspace))
    history = WeightHistory.view(directory)
    first, second = _ends(history, before, after)
    pairs = pair_streams(history.tensors_at(first), history.tensors_at(second))
    report = measure_movement(pairs, read_config(directory))
    if json:
        print_json({"before": first or INITIAL, "after": second or INITIAL, **report.as_json()})
        return
    print(f"{first or INITIAL} -> {second or INITIAL}")
    _print_movement(report, top)


def _ends(history: "HistoryView", before: str | None, after: str | None) -> tuple[str | None, str | None]:
    def named(given: str) -> str | None:
        return None if given == INITIAL else history.find(given).id

    second = history.head if after is None else named(after)
    if before is not None:
        return named(before), second
    return (history.find(second).parent if second else None), second


def _print_movement(report: "MovementReport", top: int) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 100)

    def table(title: str, rows: "list[tuple[str, float, float]]") -> None:
        held = Table(title, "change (L2)", "relative", box=None, pad_edge=False)
        for name, change, relative in rows:
            held.add_row(name, f"{change:.4g}", f"{relative:.2%}")
        if rows:
            console.print(held, end="\n\n" if rows else "")

    whole = report.whole
    table("weights", [("all", whole.change, whole.relative)])
    table("layer", [(str(n), m.change, m.relative) for n, m in sorted(report.layers.items())])
    matrices = sorted(report.matrices.items(), key=lambda item: -item[1].change)
    table("matrix", [(name, m.change, m.relative) for name, m in matrices[:top] if m.change])
    heads = sorted(report.whole_heads().items(), key=lambda item: -item[1].change)
    rows = [
        (f"layer {n} {kind} head {h}", m.change, m.relative) for (n, kind, h), m in heads[:top] if m.change
    ]
    table("head", rows)
    groups = sorted(report.groups().items(), key=lambda item: -item[1].change)
    rows = [
        (f"layer {n} {kind} {group}", m.change, m.relative)
        for (n, kind, group), m in groups[:top]
        if m.change
    ]
    table("part", rows)


def verify_weights(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """Check every file, record and delta against the recorded hashes. Exits with 1 if something is wrong."""
    from understudy.weights import verify_history
    from understudy.workspace import Workspace

    directory = model_directory(Workspace.open(workspace))
    with progress("verifying") as report:
        found = verify_history(directory, report)
    if json:
        print_json(asdict(found))
    else:
        for problem in found.problems:
            print(problem)
        for name in found.leftovers:
            print(f"left over: {name} (harmless; `understudy weights gc` removes it)")
        state = "wrong" if found.problems else "all as recorded"
        print(f"{found.commits} commits, {found.tensors} tensors, {found.hashes} hashes compared: {state}")
    if found.problems:
        sys.exit(1)


def gc_weights(
    *,
    keep: Annotated[
        int | None, Parameter(help="Give up the deltas of all but so many of the newest commits.")
    ] = None,
    spares: Annotated[
        bool, Parameter(negative="", help="Also the spare files; the next sync writes whole files.")
    ] = False,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Remove what crashes left behind, and with --keep the deltas of older commits.

    Records stay: the log tells of every commit for ever. What --keep gives up cannot be checked out,
    reverted to or compared any more, and nothing brings it back.
    """
    from understudy.weights import owned, teaching, tidy
    from understudy.workspace import Workspace

    if keep is not None and keep < 1:
        raise CommandError(f"expected to keep at least one commit's delta, got --keep {keep}")
    directory = model_directory(Workspace.open(workspace))
    with owned(directory), teaching(directory, wait_seconds=5.0):
        tidied = tidy(directory, keep, spares=spares)
    if json:
        print_json(asdict(tidied))
        return
    for name in tidied.files:
        print(f"removed {name}")
    if tidied.thinned:
        print(f"{len(tidied.thinned)} older commits can no longer be gone back to; their records stay")
    print(f"{tidied.bytes_freed:,} bytes freed")


def diagnose_weights(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """Compare live weights, journal and disk, tensor by tensor. Exits with 1 if they do not fit together."""
    from understudy.weights import diagnose
    from understudy.workspace import Workspace

    directory = model_directory(Workspace.open(workspace))
    with progress("comparing") as report:
        found = diagnose(directory, report)
    if json:
        print_json({**asdict(found), "sound": found.sound})
    else:
        _print_diagnosis(found)
    if not found.sound:
        sys.exit(1)


def _print_diagnosis(found: "Diagnosis") -> None:
    total = len(found.tensors)
    if found.live is None:
        print("live     no one serves this model")
    else:
        state = (
            "a session is writing"
            if found.live.dirty
            else f"{total - len(found.live_differs)} of {total} as committed"
        )
        print(f"live     {found.live.commit or INITIAL} at step {found.live.step}: {state}")
    pending = f", {len(found.pending)} pending" if found.pending else ""
    print(f"journal  {found.head or INITIAL}{pending}: {total - len(found.damaged)} of {total} as committed")
    follows = ", the others follow with the next sync" if found.pending and found.behind else ""
    alike = f"{total - len(found.behind)} of {total} as in the newest commit"
    print(f"disk     {found.synced or INITIAL}: {alike}{follows}")
    for tensor in found.tensors:
        places = {"live": tensor.live is False, "journal": not tensor.journal}
        if differing := [place for place, differs in places.items() if differs]:
            print(f"  {tensor.name}: differs in {', '.join(differing)}")
    print("all fits together" if found.sound else "they do not fit together")
