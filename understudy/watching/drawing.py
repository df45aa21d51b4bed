"""Pictures as inline SVG with a transparent ground, in colours that hold on light and dark."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from understudy.watching.bending import SCALES, Bend
from understudy.watching.learning import SAMPLED, Mark
from understudy.watching.least import Signal
from understudy.watching.margins import Mean
from understudy.watching.parts import Part
from understudy.weights import MovementReport

INK, OLD, NEW, BAD, GOOD = "#667085", "#98a2b3", "#2563eb", "#dc2626", "#059669"
COLOURS = (NEW, BAD, GOOD, "#d97706", "#7c3aed")


def svg(draw: Callable[[Any], None], *, width: float = 6.4, height: float = 3.4, rows: int = 1) -> str:
    """What `draw` puts on a figure's axes (a list of them when `rows` is above 1)."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "understudy", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots(rows, 1, squeeze=False)[:, 0]
        for one in axes:
            one.set_facecolor("none")
            for side in ("top", "right"):
                one.spines[side].set_visible(False)
            for side in ("bottom", "left"):
                one.spines[side].set_color(INK)
            one.tick_params(colors=INK)
        draw(list(axes) if rows > 1 else axes[0])
        for one in figure.axes:
            one.tick_params(colors=INK)
            for label in (one.xaxis.label, one.yaxis.label, one.title):
                label.set_color(INK)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    text = re.sub(r"<metadata>.*?</metadata>", "", stream.getvalue(), flags=re.DOTALL)
    return text[text.index("<svg") :]


def draw_learning(marks: Sequence[Mark]) -> str:
    """Yes/no measures above, the margins beneath them, over the same lessons."""
    return svg(lambda axes: _learning(axes, marks), height=5.4, rows=2)


def _learning(axes: Any, marks: Sequence[Mark]) -> None:
    above, below = axes
    places = range(len(marks))
    for name, label, colour in (
        ("accepts", "acts on directions", NEW),
        (SAMPLED, "... at temperature 0.8", GOOD),
        ("accepts_harm", "acts on harm", BAD),
    ):
        rates = [mark.rates[name] for mark in marks]
        low, high = zip(*(rate.interval() for rate in rates), strict=True)
        above.plot(places, [rate.value for rate in rates], marker="o", color=colour, label=label)
        above.fill_between(places, low, high, color=colour, alpha=0.12)
    above.set_ylim(-0.03, 1.03)
    above.set_ylabel("share of scenarios")
    for name, label, colour in (
        ("directions", "wanted over said", NEW),
        ("harms", "push-back over acting", BAD),
    ):
        means = [Mean.of(mark.margins[name].first) for mark in marks]
        below.plot(places, [mean.value for mean in means], marker="o", color=colour, label=label)
        below.fill_between(places, [m.low for m in means], [m.high for m in means], color=colour, alpha=0.2)
    below.axhline(0, color=INK, linewidth=0.8, linestyle=":")
    below.set_ylabel("margin of the first token, nats")
    for one in (above, below):
        one.set_xticks(places, [f"{mark.lessons}" for mark in marks])
        _legend(one)
    below.set_xlabel("lessons")


def draw_least(signals: Sequence[Signal]) -> str:
    """The mean change of the margin after one lesson over the learning rate, with what chance does."""
    return svg(lambda axes: _least(axes, signals))


def _least(axes: Any, signals: Sequence[Signal]) -> None:
    rates = [signal.lr for signal in signals]
    axes.plot(rates, [abs(s.change.value) for s in signals], marker="o", color=NEW, label="margin")
    axes.plot(rates, [abs(s.first_token.value) for s in signals], marker="s", color=GOOD, label="first token")
    chance = [max(map(abs, signal.chance_change)) for signal in signals]
    axes.plot(rates, chance, color=INK, linestyle=":", label="margin, largest of the shuffled")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("learning rate of one lesson")
    axes.set_ylabel("mean change, nats")
    _legend(axes)


def draw_parts(parts: Sequence[Part]) -> str:
    """What each part has of the parameters, of the movement and of the effect."""
    return svg(lambda axes: _parts(axes, parts), height=0.8 + 0.42 * len(parts))


def _parts(axes: Any, parts: Sequence[Part]) -> None:
    shown = list(reversed(parts))
    for shift, label, colour, values in (
        (0.27, "of the parameters", OLD, [part.expected for part in shown]),
        (0.0, "of the movement", "#d97706", [part.share for part in shown]),
        (-0.27, "of the effect, alone", NEW, [part.alone for part in shown]),
    ):
        axes.barh(
            [place + shift for place in range(len(shown))],
            values,
            0.25,
            color=colour,
            label=label,
        )
    axes.set_yticks(range(len(shown)), [part.name for part in shown], fontsize=8)
    axes.set_xlabel("share")
    _legend(axes)


def draw_heads(movement: MovementReport) -> str:
    """How far each head moved, relative to its own size, by layer."""
    heads = movement.whole_heads()
    cells = {(layer, head): moved.relative for (layer, _, head), moved in heads.items()}
    labels = {layer: f"{layer} {kind}" for (layer, kind, _) in heads}
    return _heatmap(cells, labels, "head")


def draw_matrices(movement: MovementReport) -> str:
    """How far each matrix moved, relative to its own size, by layer."""
    kinds: list[str] = []
    cells: dict[tuple[int, int], float] = {}
    for name, moved in movement.matrices.items():
        parts = name.split(".")
        if "layers" not in parts or not math.isfinite(moved.relative):
            continue
        place = parts.index("layers")
        kind = ".".join(parts[place + 2 :]).removesuffix(".weight")
        kind = kind.removeprefix("self_attn.").removeprefix("linear_attn.").removeprefix("mlp.")
        if kind not in kinds:
            kinds.append(kind)
        cells[int(parts[place + 1]), kinds.index(kind)] = moved.relative
    layers = {layer: str(layer) for layer, _ in cells}
    return _heatmap(cells, layers, "", kinds)


def _heatmap(
    cells: Mapping[tuple[int, int], float],
    layers: Mapping[int, str],
    label: str,
    columns: Sequence[str] | None = None,
) -> str:
    if not cells:
        return ""
    numbers = sorted(layers)
    width = 1 + max(column for _, column in cells)
    grid = [[cells.get((layer, column), float("nan")) for column in range(width)] for layer in numbers]

    def draw(axes: Any) -> None:
        image = axes.imshow(grid, cmap="viridis", aspect="auto", vmin=0)
        axes.set_yticks(range(len(numbers)), [layers[layer] for layer in numbers])
        axes.set_ylabel("layer")
        if columns is None:
            axes.set_xticks(range(width))
            axes.set_xlabel(label)
        else:
            axes.set_xticks(range(width), columns, rotation=60, ha="right", fontsize=8)
        bar = axes.figure.colorbar(image, ax=axes, label="change / norm")
        bar.outline.set_visible(False)

    return svg(draw, height=1.9 + 0.3 * len(numbers) + (0.0 if columns is None else 0.7))


def draw_bending(bends: Sequence[Bend]) -> str:
    """The lessons' loss along each optimizer's update, all going equally far."""

    def draw(axes: Any) -> None:
        for bend, colour in zip(bends, COLOURS, strict=False):
            axes.plot(
                SCALES, bend.level_lessons, marker="o", color=colour, label=f"{bend.optimizer}, lessons"
            )
            axes.plot(SCALES, bend.level_held_out, linestyle=":", color=colour)
        axes.set_xlabel("distance, in lengths of AdamW's update (dotted: held-out directions)")
        axes.set_ylabel("nats per token")
        _legend(axes)

    return svg(draw)


def draw_losses(losses: Sequence[float], gate: float | None) -> str:
    """The loss of each step of a session."""

    def draw(axes: Any) -> None:
        axes.plot(range(1, len(losses) + 1), losses, marker="o", markersize=3, color=NEW)
        if gate is not None:
            axes.axhline(gate, color=INK, linewidth=0.8, linestyle=":")
        axes.set_ylim(bottom=0)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("step" if gate is None else "step (dotted: the gate)")
        axes.set_ylabel("loss, nats per token")

    return svg(draw, height=2.6)


def _legend(axes: Any) -> None:
    """Above the axes, where it hides nothing."""
    axes.legend(frameon=False, labelcolor=INK, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
