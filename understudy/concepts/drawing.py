"""Pictures of a quality report as inline SVG: transparent, in colours that hold on light and dark.

Each says in words what it shows. Names of concepts are text, whatever they hold.
"""

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

INK, BLUE, RED, GREEN, ORANGE = "#667085", "#2563eb", "#dc2626", "#059669", "#d97706"
LONGEST_NAME = 24

Line = tuple[str, str, Sequence[float | None], Sequence[tuple[float, float] | None]]
"""A label, a colour, values over the layers, and the ends of their bands; None where there is none."""


def draw(paint: Callable[[Any], None], label: str, *, width: float = 6.4, height: float = 3.0) -> Markup:
    """What `paint` puts on a figure; `label` says what is to be seen."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": "understudy",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "text.parse_math": False,  # a name may hold dollars
    }
    stream = io.StringIO()
    with rc_context(settings), warnings.catch_warnings():
        # A browser has glyphs that the font that widths are measured with has not.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        paint(figure)
        for axes in figure.axes:
            _tint(axes)
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None})
    return _inline(stream.getvalue(), label)


def _tint(axes: Any) -> None:
    axes.set_facecolor("none")
    axes.tick_params(colors=INK)
    for side, spine in axes.spines.items():
        spine.set_visible(spine.get_visible() and side in ("bottom", "left"))
        spine.set_color(INK)
    for text in (axes.xaxis.label, axes.yaxis.label, axes.title):
        text.set_color(INK)


def _inline(text: str, label: str) -> Markup:
    """The picture as an element with a text alternative; ids that nothing refers to would clash on a page."""
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    used = set(re.findall(r'(?:url\(|href=")#([\w-]+)', text))

    def mend(tag: re.Match[str]) -> str:
        bare = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", tag[0])
        return bare.replace(INK, "currentColor")

    text = re.sub(r"<[^<>]+>", mend, text)  # tags alone: between them stand names, which have their < escaped
    alternative = Markup('<svg role="img" aria-label="{}"').format(label)
    return Markup(text.replace("<svg", alternative, 1))


def clip(name: str) -> str:
    """A name short enough to stand beside an axis."""
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"


def draw_layers(layers: Sequence[int], panels: Sequence[tuple[str, Sequence[Line]]], label: str) -> Markup:
    """Lines over the layers, in panels one above the other, each with the name of its axis."""

    def paint(figure: Any) -> None:
        rows = figure.subplots(len(panels), 1, squeeze=False, sharex=True)[:, 0]
        for axes, (named, lines) in zip(rows, panels, strict=True):
            for line in lines:
                _paint_line(axes, layers, line)
            axes.set_ylabel(named)
            axes.set_ylim(-0.03, 1.03)
            axes.legend(
                frameon=False, labelcolor=INK, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3
            )
        rows[-1].set_xlabel("layer")
        rows[-1].xaxis.get_major_locator().set_params(integer=True)

    return draw(paint, label, height=2.6 * len(panels))


def _paint_line(axes: Any, layers: Sequence[int], line: Line) -> None:
    named, colour, values, bands = line
    shown = [place for place, value in enumerate(values) if value is not None]
    axes.plot(
        [layers[place] for place in shown],
        [values[place] for place in shown],
        marker="o",
        markersize=4,
        color=colour,
        label=named,
    )
    banded = [(layers[place], band) for place, band in enumerate(bands) if band is not None]
    if banded:
        places, ends = zip(*banded, strict=True)
        low, high = zip(*ends, strict=True)
        axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
        axes.vlines(
            places, low, high, color=colour, linewidth=0.8, alpha=0.6
        )  # one layer's band has no width


def draw_cosines(
    names: Sequence[str],
    cosines: Sequence[Sequence[float]],
    merges: Sequence[tuple[int, int, float, int]],
    label: str,
) -> Markup:
    """Cosines between concepts, in the order of the tree above them. `names` and `cosines` are in the order
    that the numbers of `merges` mean.
    """
    from scipy.cluster.hierarchy import dendrogram

    tree = dendrogram(merges, no_plot=True) if merges else {"leaves": [0], "icoord": [], "dcoord": []}
    order = tree["leaves"]

    def paint(figure: Any) -> None:
        above, below = figure.subplots(2, 1, height_ratios=(1, 4), sharex=True)
        for across, up in zip(tree["icoord"], tree["dcoord"], strict=True):
            above.plot(
                [(x - 5) / 10 for x in across], up, color=INK, linewidth=0.9
            )  # leaves lie at 5, 15, ..
        above.set_ylabel("1 - cosine")
        above.tick_params(bottom=False)
        above.spines["bottom"].set_visible(False)
        grid = [[cosines[row][column] for column in order] for row in order]
        image = below.imshow(grid, cmap="coolwarm", vmin=-1, vmax=1, aspect="auto", interpolation="nearest")
        shown = [clip(names[number]) for number in order]
        below.set_xticks(range(len(order)), shown, rotation=90, fontsize=7)
        below.set_yticks(range(len(order)), shown, fontsize=7)
        bar = figure.colorbar(image, ax=[above, below], label="cosine", shrink=0.6)
        bar.outline.set_visible(False)

    side = 2.6 + 0.14 * len(names)
    return draw(paint, label, width=max(6.4, side + 1.4), height=max(3.6, side + 0.8))
