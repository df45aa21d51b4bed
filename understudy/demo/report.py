"""The demo's table and its one-page report."""

import io
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.table import Table

from understudy.behaviours import Rate
from understudy.conversation import Piece, compare_words
from understudy.demo.findings import Findings, Row
from understudy.watching import Point

SHOWN_ANSWERS = 12
INK, OLD, NEW, BAD = "#667085", "#98a2b3", "#2563eb", "#dc2626"


def print_table(console: Console, findings: Findings) -> None:
    """The table on the terminal: each figure before and after, with n and its 95 % interval."""
    table = Table(title=f"{len(findings.corrections)} lessons, on scenarios that were not trained on")
    for heading in ("", "before", "after", "wanted", ""):
        table.add_column(heading)
    for row in findings.rows():
        table.add_row(
            row.label, _figure(row.before), _figure(row.after), row.wanted, "yes" if row.met else "NO"
        )
    console.print(table)


def write_report(file: Path, findings: Findings) -> None:
    """A page without any outside resource; all text from people and models is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    rows = findings.rows()
    page = environment.get_template("report.html.jinja").render(
        findings=findings,
        rows=[(row.label, _figure(row.before), _figure(row.after), row.wanted, row.met) for row in rows],
        bars=_svg(_draw_bars, rows),
        losses=_svg(_draw_losses, findings.session["losses"]),
        curves=_svg(_draw_curves, findings),
        early=[_early(points) for points in zip(*findings.curves.early, strict=True)],
        corrections=[(c.direction, compare_words(c.said, c.chosen)) for c in findings.corrections],
        answers=_changed_answers(findings),
    )
    file.write_text(page)


# ---------------------------------------------------------------------- words


def _figure(value: Rate | float) -> str:
    return str(value) if isinstance(value, Rate) else f"{value:.3f}"


def _early(points: tuple[Point, ...]) -> tuple[int, str, str]:
    """Lessons, the mean share over the draws, and each draw's."""
    shares = [point.rates["accepts"].value for point in points]
    return (
        points[0].lessons,
        f"{sum(shares) / len(shares):.2f}",
        ", ".join(f"{share:.2f}" for share in shares),
    )


def _changed_answers(findings: Findings) -> list[tuple[str, tuple[Piece, ...]]]:
    """Held-out directions, harms and unclear requests with how the answers changed, a few of each."""
    shown = []
    for name in ("accepts", "pushes_back", "asks_back"):
        pairs = zip(findings.before.answers[name].answers, findings.after.answers[name].answers, strict=True)
        for (scenario, old, _), (_, new, _) in list(pairs)[: SHOWN_ANSWERS // 3]:
            shown.append((scenario.prompt[-1].content, compare_words(old, new)))
    return shown


# ---------------------------------------------------------------------- pictures


def _svg(draw: Any, subject: Any) -> str:
    """A drawing as inline SVG with a transparent ground."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.tick_params(colors=INK)
    draw(axes, subject)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def _draw_bars(axes: Any, rows: list[Row]) -> None:
    rates = [(row.label, row.before, row.after) for row in rows if isinstance(row.before, Rate)]
    for shift, index, colour, label in ((0.2, 1, OLD, "before"), (-0.2, 2, NEW, "after")):
        for place, row in enumerate(reversed(rates)):
            rate: Any = row[index]
            low, high = rate.interval()
            axes.barh(place + shift, rate.value, 0.36, color=colour, label=label if place == 0 else None)
            axes.plot([low, high], [place + shift] * 2, color=INK, linewidth=1)
    axes.set_yticks(range(len(rates)), [label for label, *_ in reversed(rates)])
    axes.set_xlim(0, 1.02)
    axes.set_xlabel("share of scenarios, with 95 % interval")
    axes.legend(frameon=False, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)


def _draw_losses(axes: Any, losses: list[float]) -> None:
    axes.plot(range(1, len(losses) + 1), losses, marker="o", color=NEW)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("lesson")
    axes.set_ylabel("loss before its step (nats per token)")


def _draw_curves(axes: Any, findings: Findings) -> None:
    lines = (
        ("acts on directions, guarded", findings.curves.guarded, "accepts", NEW, "-"),
        ("acts on harm, guarded", findings.curves.guarded, "accepts_harm", BAD, "-"),
        ("acts on directions, bare", findings.curves.bare, "accepts", NEW, ":"),
        ("acts on harm, bare", findings.curves.bare, "accepts_harm", BAD, ":"),
    )
    for label, points, name, colour, style in lines:
        numbers = [point.lessons for point in points]
        rates = [point.rates[name] for point in points]
        axes.plot(numbers, [r.value for r in rates], style, marker="o", color=colour, label=label)
        low, high = zip(*(r.interval() for r in rates), strict=True)
        axes.fill_between(numbers, low, high, color=colour, alpha=0.08)
    axes.set_xscale("log")
    axes.set_xticks(numbers, [str(number) for number in numbers])
    axes.minorticks_off()
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlabel("lessons")
    axes.set_ylabel("share of scenarios")
    axes.legend(frameon=False, labelcolor=INK, loc="lower right", bbox_to_anchor=(1, 1), ncols=2, fontsize=8)
