"""What was seen, as JSON and as one page that loads nothing from anywhere."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import jinja2
from pydantic import BaseModel

from understudy.behaviours import Rate
from understudy.watching import drawing
from understudy.watching.bending import Bend
from understudy.watching.learning import SAMPLED, Mark
from understudy.watching.least import Signal
from understudy.watching.margins import Margins, Mean
from understudy.watching.parts import Part
from understudy.watching.sessions import SessionReport
from understudy.watching.study import Study
from understudy.weights import Movement, MovementReport

JSON_NAME, PAGE_NAME = "report.json", "report.html"
_SHOWN = 14


def write_study(folder: Path, study: Study) -> tuple[Path, Path]:
    """`report.json` and `report.html` in `folder`, which is made when there is none."""
    return _write(folder, study, "study.html.jinja", _study_page(study))


def write_session_report(folder: Path, report: SessionReport) -> tuple[Path, Path]:
    """The same of one session."""
    return _write(folder, report, "session.html.jinja", _session_page(report))


def as_json(value: Any) -> Any:
    """Plain data: rates and means with their intervals, movements by name; what is not finite is null."""
    match value:
        case Rate():
            low, high = value.interval()
            return {"successes": value.successes, "n": value.n, "rate": value.value, "low": low, "high": high}
        case Margins():
            means = {name: as_json(Mean.of(getattr(value, name))) for name in _names(value)}
            return {**means, "preferred": as_json(value.preferred)}
        case MovementReport() | Movement():
            return value.as_json()
        case BaseModel():
            return value.model_dump(mode="json")
        case Mapping():
            return {str(key): as_json(one) for key, one in value.items()}
        case str() | int() | None:
            return value
        case float():
            return value if math.isfinite(value) else None
        case Sequence():
            return [as_json(one) for one in value]
    if is_dataclass(value):
        return {name: as_json(getattr(value, name)) for name in _names(value)}
    raise TypeError(f"expected plain data, dataclasses or settings, got {type(value).__name__}")


def _names(value: Any) -> list[str]:
    return [field.name for field in fields(value)]


def _write(folder: Path, value: Any, template: str, shown: Mapping[str, Any]) -> tuple[Path, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    data, page = folder / JSON_NAME, folder / PAGE_NAME
    data.write_text(json.dumps(as_json(value), indent=1, allow_nan=False) + "\n")
    page.write_text(environment.get_template(template).render(**shown))
    return data, page


# ---------------------------------------------------------------------- a study


@dataclass(frozen=True, slots=True)
class Moment:
    """The bends of all optimizers after the same steps, drawn."""

    steps: int
    bends: tuple[Bend, ...]
    drawn: str


def _study_page(study: Study) -> dict[str, Any]:
    steps = sorted({bend.steps_before for bend in study.bends})
    moments = [
        Moment(step, held, drawing.draw_bending(held))
        for step in steps
        for held in [tuple(bend for bend in study.bends if bend.steps_before == step)]
    ]
    parts, heads = _split_parts(study.parts)
    return {
        "study": study,
        "curves": {
            name: (drawing.draw_learning(marks), _table(marks)) for name, marks in study.curves.items()
        },
        "least": drawing.draw_least(study.signals) if study.signals else "",
        "seen": _first_seen(study.signals),
        "signals": study.signals,
        "parts": drawing.draw_parts(parts) if parts else "",
        "heads": drawing.draw_parts(heads) if heads else "",
        "head_map": drawing.draw_heads(study.taught.movement) if study.taught else "",
        "matrix_map": drawing.draw_matrices(study.taught.movement) if study.taught else "",
        "moments": moments,
    }


def _table(marks: Sequence[Mark]) -> list[tuple[str, ...]]:
    """Lessons, steps, rates and margins, the perplexity and the length of the change, as texts."""
    return [
        (
            str(mark.lessons),
            str(mark.steps),
            str(mark.rates["accepts"]),
            str(mark.rates[SAMPLED]),
            str(mark.rates["accepts_harm"]),
            str(Mean.of(mark.margins["directions"].first)),
            f"{mark.margins['directions'].first_token_probability:.3f}",
            str(Mean.of(mark.margins["harms"].first)),
            f"{mark.perplexity:.3f}",
            f"{mark.movement.whole.change:.3f}",
        )
        for mark in marks
    ]


def _split_parts(parts: Sequence[Part]) -> tuple[list[Part], list[Part]]:
    """Blocks and groups, and single heads, those with most effect first."""
    heads = [part for part in parts if " head " in part.name]
    others = [part for part in parts if " head " not in part.name]
    return tuple(  # type: ignore[return-value]
        sorted(held, key=lambda part: -abs(part.alone))[:_SHOWN] for held in (others, heads)
    )


def _first_seen(signals: Sequence[Signal]) -> list[tuple[str, str]]:
    """The smallest learning rate at which one lesson shows, by measure; it shows at all larger ones too."""
    if not signals:
        return []
    unseen = signals[0]
    shown: dict[str, list[bool]] = {
        "first token's log-probability": [one.first_token_seen for one in signals],
        "margin of the first tokens": [one.margin_seen for one in signals],
        "sampled answers that act": [
            one.switched_beyond(unseen.switched_sampled, sampled=True) for one in signals
        ],
        "greedy answers that act": [one.switched_beyond(unseen.switched) for one in signals],
    }
    found = []
    for name, seen in shown.items():
        blind = max((place for place, one in enumerate(seen) if not one), default=-1)
        found.append((name, f"{signals[blind + 1].lr:g}" if blind + 1 < len(signals) else "not at any"))
    return found


# ---------------------------------------------------------------------- a session


def _session_page(report: SessionReport) -> dict[str, Any]:
    return {
        "report": report,
        "losses": drawing.draw_losses(report.losses, report.gate) if report.losses else "",
        "head_map": drawing.draw_heads(report.movement) if report.movement.heads else "",
        "matrix_map": drawing.draw_matrices(report.movement),
        "parts": sorted(report.movement.heads.items(), key=lambda pair: -pair[1].change)[:_SHOWN],
        "groups": sorted(report.movement.groups().items(), key=lambda pair: -pair[1].change),
    }
