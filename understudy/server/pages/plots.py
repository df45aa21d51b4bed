"""Small plots as inline SVG: presentation attributes and classes only, since pages allow no inline style.

Colours are classes of `learn.css`, so that they hold on light and dark. Each plot says in words what it
shows; the numbers themselves stand in a table beside it.
"""

import math
from collections.abc import Sequence

from markupsafe import Markup

Points = Sequence[tuple[float, float]]
WIDTH, HEIGHT = 320, 96
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 8, 8, 18
_BAR = 18
_NAME = 110


def line_plot(points: Points, label: str, *, dots: bool = False) -> Markup:
    """A line from zero upwards over places that ascend. Empty without a finite point."""
    shown = [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
    if not shown:
        return Markup()
    left, right = shown[0][0], shown[-1][0]
    low, high = min(0.0, *(y for _, y in shown)), max(y for _, y in shown)
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        across = 0.5 if right == left else (x - left) / (right - left)
        up = 0.5 if high == low else (y - low) / (high - low)
        return _LEFT + across * wide, _TOP + (1 - up) * tall

    corners = [place(x, y) for x, y in shown]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in corners)
    parts = [
        Markup('<line class="plot-axis" x1="{0}" y1="{1}" x2="{2}" y2="{1}"/>').format(
            _LEFT, HEIGHT - _BOTTOM, WIDTH - _RIGHT
        ),
        Markup('<polyline class="plot-line" fill="none" stroke-width="2" points="{}"/>').format(line),
        _text(_LEFT - 4, _TOP + 8, f"{high:.2g}", "end"),
        _text(_LEFT - 4, HEIGHT - _BOTTOM, f"{low:.2g}", "end"),
        _text(_LEFT, HEIGHT - 4, f"{left:g}", "start"),
    ]
    if right != left:
        parts.append(_text(WIDTH - _RIGHT, HEIGHT - 4, f"{right:g}", "end"))
    if dots or len(corners) == 1:
        parts += [
            Markup('<circle class="plot-dot" cx="{:.1f}" cy="{:.1f}" r="3"/>').format(*corner)
            for corner in corners
        ]
    return _svg(parts, HEIGHT, label)


def bar_plot(bars: Sequence[tuple[str, float]], label: str) -> Markup:
    """A bar for each name, to the right of the middle or, below zero, to its left."""
    shown = [(name, value) for name, value in bars if math.isfinite(value)]
    if not shown:
        return Markup()
    most = max(abs(value) for _, value in shown) or 1.0
    half = (WIDTH - _NAME - 8) / 2
    middle = _NAME + half
    parts: list[Markup] = []
    for number, (name, value) in enumerate(shown):
        top, length = number * _BAR, abs(value) / most * half
        clipped = name if len(name) <= 16 else name[:15] + "…"
        parts.append(_text(_NAME - 6, top + 13, clipped, "end"))
        parts.append(
            Markup('<rect class="{}" x="{:.1f}" y="{}" width="{:.1f}" height="{}"/>').format(
                "plot-up" if value >= 0 else "plot-down",
                middle if value >= 0 else middle - length,
                top + 3,
                length,
                _BAR - 6,
            )
        )
    height = _BAR * len(shown)
    axis = Markup('<line class="plot-axis" x1="{0:.1f}" y1="0" x2="{0:.1f}" y2="{1}"/>')
    return _svg([*parts, axis.format(middle, height)], height, label)


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    markup = Markup('<text class="plot-text" x="{}" y="{}" font-size="11" text-anchor="{}">{}</text>')
    return markup.format(x, y, anchor, text)


def _svg(parts: Sequence[Markup], height: int, label: str) -> Markup:
    return Markup(
        '<svg class="plot" role="img" aria-label="{}" viewBox="0 0 {} {}" width="{}" height="{}">{}</svg>'
    ).format(label, WIDTH, height, WIDTH, height, Markup().join(parts))
