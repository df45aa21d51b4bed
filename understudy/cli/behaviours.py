"""`understudy behaviours list|check`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from understudy.cli.failures import CommandError
from understudy.cli.options import JsonOption, WorkspaceOption
from understudy.cli.subjects import subject_of
from understudy.cli.tables import print_table, printable, watching
from understudy.cli.weights import print_json

if TYPE_CHECKING:
    from understudy.behaviours import Invariant, Looked, Smooth, Split, Subject, Verdict
    from understudy.workspace import Workspace

BudgetOption = Annotated[int, Parameter(help="How many scenarios of each invariant may be asked.")]
SeedOption = Annotated[int, Parameter(help="What the order of the scenarios and drawn answers follow from.")]
SplitOption = Annotated[
    Literal["test", "development"], Parameter(help="Whose scenarios; `test` is for what is claimed.")
]
SaveOption = Annotated[
    Path | None, Parameter(help="Write the predictions to this file, to --compare with later.")
]
CompareOption = Annotated[
    Path | None, Parameter(help="A file of --save: what changed since, scenario by scenario.")
]
Flag = Parameter(negative="")
FAILED = 1
"""Exit status when a kept invariant is violated, or a certificate does not hold."""
_SHOWN = 100


def list_behaviours(*, json: JsonOption = False, workspace: WorkspaceOption = Path()) -> None:
    """List the invariants in `behaviours/`."""
    from understudy.workspace import Workspace

    invariants = chosen(Workspace.open(workspace), ())
    if json:
        print_json([_described(invariant) for invariant in invariants])
        return
    rows = []
    for one in invariants:
        marks = f"{one.requirement.required:g} / {one.requirement.indifferent:g}"
        counts = " / ".join(str(len(found)) for found in one.scenarios.values())
        kind = str(one.judge.__struct_config__.tag)
        rows.append((one.name, one.kind, one.wanted, marks, kind, counts))
    splits = " / ".join(invariants[0].scenarios)
    print_table(("name", "kind", "wanted", "required / indifferent", "judge", splits), rows)


def check_behaviours(
    *names: str,
    budget: BudgetOption = 200,
    seed: SeedOption = 0,
    split: SplitOption = "test",
    self_knowledge: Annotated[
        bool, Flag, Parameter(help="Also ask the model what it would do, and hold that against what it does.")
    ] = False,
    save: SaveOption = None,
    compare: CompareOption = None,
    json: JsonOption = False,
    workspace: WorkspaceOption = Path(),
) -> None:
    """Ask the model until each invariant, or each of NAMES, is decided: holds, violated, or undecided when
    the budget is spent.

    Asks the running server, else loads the model. The errors hold over all invariants together, however
    often one looks. Exits with 1 when a kept invariant is violated, with 2 when something could not be done;
    a wanted one that is violated is still to be learned, which is no failure.
    """
    from understudy.cli.self_knowledge import look_inside, print_view, read_report, view_json, write_report
    from understudy.workspace import Workspace

    if not self_knowledge and (save or compare):
        raise CommandError("expected --self-knowledge with --save and --compare, which are about it")
    opened = Workspace.open(workspace)
    invariants = chosen(opened, names)
    before = None if compare is None else read_report(compare)
    with subject_of(opened) as subject:
        verdicts = checked(invariants, subject, budget, seed, split)
        inside = None
        if self_knowledge:
            inside = look_inside(
                opened, invariants, subject, budget=budget, seed=seed, split=split, before=before
            )
    if save is not None and inside is not None:
        write_report(save, inside.report)
    if json:
        told: dict[str, Any] = {"split": split, "budget": budget, "seed": seed}
        told["verdicts"] = [_verdict_json(verdict) for verdict in verdicts]
        print_json(told if inside is None else {**told, "self_knowledge": view_json(inside)})
    else:
        _print_verdicts(verdicts)
        if inside is not None:
            print()
            print_view(inside)
    if any(one.kind == "kept" and one.decision == "violated" for one in verdicts):
        sys.exit(FAILED)


# ---------------------------------------------------------------------- what these commands share


def chosen(workspace: "Workspace", names: Sequence[str]) -> "tuple[Invariant, ...]":
    """The invariants of these names, or all of them. Raises CommandError."""
    from understudy.workspace import BEHAVIOURS

    known = {invariant.name: invariant for invariant in workspace.invariants()}
    if not known:
        raise CommandError(
            f"expected invariants in {workspace.root / BEHAVIOURS}/*.toml, found none: docs/behaviours.md "
            "tells how one is written"
        )
    if unknown := [name for name in names if name not in known]:
        raise CommandError(f"expected invariants among {', '.join(known)}, got {', '.join(unknown)}")
    return tuple(known[name] for name in dict.fromkeys(names)) or tuple(known.values())


def checked(
    invariants: "Sequence[Invariant]", subject: "Subject", budget: int, seed: int, split: "Split"
) -> "tuple[Verdict, ...]":
    """The verdicts, with a bar on the terminal meanwhile. Raises CommandError for what cannot be checked."""
    from understudy.behaviours import check

    if budget < 1 or seed < 0:
        raise CommandError(
            f"expected a --budget of 1 scenario or more and a --seed of 0 or more, got {budget} and {seed}"
        )
    with watching() as bar:
        task = bar.add_task("asking", total=None)

        def looked(now: "Looked") -> None:
            done = sum(said != "undecided" for said in now.decided.values())
            bar.update(
                task,
                completed=now.asked,
                total=now.asked + now.most_left,
                description=f"{done} of {len(now.decided)} decided",
            )

        try:
            return check(invariants, subject, budget=budget, seed=seed, split=split, looked=looked)
        except ValueError as error:
            raise CommandError(str(error)) from error


def _described(one: "Invariant") -> dict[str, Any]:
    return {
        "name": one.name,
        "kind": one.kind,
        "wanted": one.wanted,
        **asdict(one.requirement),
        "judge": str(one.judge.__struct_config__.tag),
        "scenarios": {split: len(found) for split, found in one.scenarios.items()},
        "prediction": one.prediction is not None,
    }


def _print_verdicts(verdicts: "Sequence[Verdict]") -> None:
    rows = []
    for one in verdicts:
        rate, low, high = one.corrected
        shown = f"{rate:.2f} [{low:.2f}, {high:.2f}]" + ("" if one.error is None else " *")
        rows.append((one.invariant, one.kind, one.decision, shown, _smooth(one.smooth), str(one.rate.n)))
    print_table(("name", "kind", "decision", "rate", "smooth measure", "n"), rows)
    for one in verdicts:
        if one.error is not None:
            yes, no = one.error.sensitivity, one.error.specificity
            print(
                f"* {one.invariant}: allowing for its judge, which says yes in {yes:.2f} of the answers that "
                f"show it, and no in {no:.2f} of the others"
            )
    for one in verdicts:
        if one.decision == "violated":
            print(f"\n{one.invariant} is violated, for example:")
            for scenario, answer in one.failures:
                asked = scenario.prompt[-1].content if scenario.prompt else scenario.target
                print(f"  {_short(asked)}\n    {_short(answer) or '(scored, not answered)'}")


def _smooth(one: "Smooth") -> str:
    return f"{one.mean:.3f} [{one.low:.3f}, {one.high:.3f}] {one.unit}"


def _short(text: str) -> str:
    line = printable(text)
    return line if len(line) <= _SHOWN else line[: _SHOWN - 3] + "..."


def _verdict_json(one: "Verdict") -> dict[str, Any]:
    rate, low, high = one.corrected
    return {
        "invariant": one.invariant,
        "kind": one.kind,
        "decision": one.decision,
        "successes": one.rate.successes,
        "n": one.rate.n,
        "rate": rate,
        "low": low,
        "high": high,
        "judge_error": None if one.error is None else asdict(one.error),
        "smooth": _smooth_json(one.smooth),
        "failures": [
            {
                "prompt": [asdict(turn) for turn in scenario.prompt],
                "target": scenario.target,
                "answer": answer,
            }
            for scenario, answer in one.failures
        ],
    }


def _smooth_json(smooth: "Smooth") -> dict[str, Any]:
    from math import isfinite

    told = asdict(smooth)
    return {
        key: None if isinstance(value, float) and not isfinite(value) else value
        for key, value in told.items()
    }
