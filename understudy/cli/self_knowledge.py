"""What `understudy behaviours check --self-knowledge` measures, prints and keeps."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from understudy.behaviours import (
    Estimate,
    Foretold,
    SelfKnowledge,
    SelfKnowledgeChange,
    SelfReport,
    compare_self_knowledge,
    foretell,
    measure_self_knowledge,
    pair_foretold,
)
from understudy.cli.failures import CommandError
from understudy.cli.subjects import weights_now
from understudy.cli.tables import print_table, watching

if TYPE_CHECKING:
    from understudy.behaviours import Invariant, Split, Subject
    from understudy.workspace import Workspace

_TITLES = ("self-knowledge", "n", "accuracy", "base rate", "Brier score", "calibration error", "AUROC")


@dataclass(frozen=True, slots=True)
class SelfView:
    """What the model foretold, how well by invariant and over all, and what changed, if that was asked."""

    report: SelfReport
    figures: dict[str, SelfKnowledge]
    over_all: SelfKnowledge
    changes: dict[str, SelfKnowledgeChange]
    change_over_all: SelfKnowledgeChange | None


def look_inside(
    workspace: "Workspace",
    invariants: "Sequence[Invariant]",
    subject: "Subject",
    *,
    budget: int,
    seed: int,
    split: "Split",
    before: SelfReport | None,
) -> SelfView:
    """Ask about, and in, the scenarios of those invariants that say how. Raises CommandError."""
    asked = [invariant for invariant in invariants if invariant.prediction is not None]
    if not asked:
        raise CommandError(
            "expected invariants with a [prediction], the question that the model is asked about itself; "
            f"found none in {', '.join(one.name for one in invariants)}: see docs/behaviours.md"
        )
    foretold: dict[str, tuple[Foretold, ...]] = {}
    with watching() as bar:
        size = sum(min(budget, len(one.scenarios[split])) for one in asked)
        task = bar.add_task("asking what it would do", total=size)

        def told(now: int, of: int) -> None:
            bar.update(task, completed=now + sum(len(found) for found in foretold.values()))

        for one in asked:
            try:
                foretold[one.name] = foretell(one, subject, budget=budget, seed=seed, split=split, told=told)
            except ValueError as error:
                raise CommandError(str(error)) from error
    commit = weights_now(workspace).commit
    return _measured(SelfReport(weight_commit=commit, split=split, seed=seed, invariants=foretold), before)


def read_report(file: Path) -> SelfReport:
    """What an earlier --save wrote. Raises CommandError."""
    try:
        return msgspec.json.decode(file.read_bytes(), type=SelfReport)
    except (OSError, msgspec.MsgspecError) as error:
        raise CommandError(f"expected a file of --self-knowledge --save at {file}: {error}") from error


def write_report(file: Path, report: SelfReport) -> None:
    """For a later --compare."""
    aside = file.with_name(f".{file.name}.new")
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    aside.rename(file)


def print_view(view: SelfView) -> None:
    """The figures, and with a comparison how each of them changed."""
    rows = [(name, *_row(found)) for name, found in view.figures.items()]
    print_table(_TITLES, [*rows, ("all of them", *_row(view.over_all))])
    if view.change_over_all is not None:
        changes = [*view.changes.items(), ("all of them", view.change_over_all)]
        print_table(
            ("change", "n", "figure", "before", "after", "after - before"),
            [row for name, change in changes for row in _change_rows(name, change)],
        )


def view_json(view: SelfView) -> dict[str, Any]:
    """The same for programs."""
    told: dict[str, Any] = {
        "weight_commit": view.report.weight_commit,
        "invariants": {name: _json(found) for name, found in view.figures.items()},
        "all": _json(view.over_all),
    }
    if view.change_over_all is not None:
        told["changes"] = {name: _change_json(found) for name, found in view.changes.items()}
        told["change_of_all"] = _change_json(view.change_over_all)
    return told


def _measured(report: SelfReport, before: SelfReport | None) -> SelfView:
    figures = {name: measure_self_knowledge(found, report.seed) for name, found in report.invariants.items()}
    together = [one for found in report.invariants.values() for one in found]
    over_all = measure_self_knowledge(together, report.seed)
    if before is None:
        return SelfView(report, figures, over_all, {}, None)
    pairs = {
        name: pair_foretold(before.invariants.get(name, ()), found)
        for name, found in report.invariants.items()
    }
    common = [pair for found in pairs.values() for pair in found]
    if not common:
        raise CommandError(
            "--compare: expected scenarios that were asked about then and now in the same words, found none: "
            "take the same --split"
        )
    changes = {name: compare_self_knowledge(found, report.seed) for name, found in pairs.items() if found}
    return SelfView(report, figures, over_all, changes, compare_self_knowledge(common, report.seed))


def _row(found: SelfKnowledge) -> tuple[str, ...]:
    low, high = found.accuracy.interval()
    return (
        str(found.n),
        f"{found.accuracy.value:.2f} [{low:.2f}, {high:.2f}]",
        f"{found.base_rate:.2f}",
        f"{found.brier} (base {found.base_brier:.3f})",
        f"{found.calibration_error} ({found.bins} bins, chance < {found.calibrated_below:.3f})",
        _estimate(found.auroc),
    )


def _change_rows(name: str, change: SelfKnowledgeChange) -> list[tuple[str, ...]]:
    before, after = change.before, change.after
    rows = (
        ("accuracy", f"{before.accuracy.value:.3f}", f"{after.accuracy.value:.3f}", change.accuracy),
        ("Brier score", f"{before.brier.value:.3f}", f"{after.brier.value:.3f}", change.brier),
        (
            "calibration error",
            f"{before.calibration_error.value:.3f}",
            f"{after.calibration_error.value:.3f}",
            change.calibration_error,
        ),
        ("AUROC", _value(before.auroc), _value(after.auroc), change.auroc),
    )
    return [
        (name if place == 0 else "", str(before.n) if place == 0 else "", figure, was, is_now, _estimate(by))
        for place, (figure, was, is_now, by) in enumerate(rows)
    ]


def _estimate(found: Estimate | None) -> str:
    return "-" if found is None else str(found)


def _value(found: Estimate | None) -> str:
    return "-" if found is None else f"{found.value:.3f}"


def _json(found: SelfKnowledge) -> dict[str, Any]:
    low, high = found.accuracy.interval()
    accuracy = {
        "successes": found.accuracy.successes,
        "value": found.accuracy.value,
        "low": low,
        "high": high,
    }
    return {"n": found.n, **asdict(found), "accuracy": accuracy}


def _change_json(change: SelfKnowledgeChange) -> dict[str, Any]:
    return {**asdict(change), "before": _json(change.before), "after": _json(change.after)}
