"""Pictures as SVG text, to stand inside an HTML page.

No library and no script: colours and fonts are the page's, by CSS class, so that one picture
serves a light page, a dark one and paper, and every picture says in words what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 22, 12, 46

Values = Sequence[float | None]


@dataclass(frozen=True)
class Axis:
    """One side of a picture: shares from ``low`` to 1, on a logarithmic scale if asked for."""

    label: str
    low: float = 0.0
    log: bool = False

    def place(self, value: float) -> float:
        """Return where ``value`` stands, from 0 to 1."""
        if self.log:
            return 1 - math.log(max(value, self.low)) / math.log(self.low)
        return (min(max(value, self.low), 1.0) - self.low) / (1 - self.low)

    def ticks(self) -> list[float]:
        if self.log:
            return [10.0**e for e in range(round(math.log10(self.low)), 1)]
        return [self.low + (1 - self.low) * i / 5 for i in range(6)]


@dataclass(frozen=True)
class Curve:
    """A line through points, a band round it where ``low`` and ``high`` are given; ``steps``
    joins them by horizontal and vertical lines."""

    x: Sequence[float]
    y: Values
    low: Values = ()
    high: Values = ()
    steps: bool = False


@dataclass(frozen=True)
class Mark:
    """A named point."""

    x: float
    y: float
    label: str


def lines(
    title: str,
    description: str,
    x: Axis,
    y: Axis,
    curves: Sequence[Curve],
    *,
    marks: Sequence[Mark] = (),
    diagonal: bool = False,
    dots: bool = False,
    unsure_below: float | None = None,
) -> str:
    """Return curves over two axes.

    ``diagonal`` draws y = x; ``dots`` marks the points of a curve and draws their intervals as
    whiskers in place of a band; left of ``unsure_below`` the ground is hatched.
    """
    parts = _frame(x, y)
    if unsure_below is not None and unsure_below > x.low:
        width = _x(x, unsure_below) - _LEFT
        height = HEIGHT - _TOP - _BOTTOM
        parts.append(
            f'<rect class="unsure" x="{_LEFT}" y="{_TOP}" width="{width:.1f}" height="{height}"/>'
        )
    if diagonal:
        ends = [(x.low, x.low), (1.0, 1.0)]
        parts.append(f'<polyline class="reference" points="{_points(x, y, ends)}"/>')
    for curve in curves:
        parts += _whiskers(x, y, curve) if dots else _band(x, y, curve)
    for mark in marks:
        cx, cy = _x(x, mark.x), _y(y, mark.y)
        left = cx > WIDTH * 0.6
        dx, anchor = (-10, "end") if left else (10, "start")
        dy = 16 if cy < HEIGHT / 2 else -8
        parts.append(
            f'<circle class="mark" cx="{cx:.1f}" cy="{cy:.1f}" r="5"/>'
            f'<text class="mark-label" x="{cx + dx:.1f}" y="{cy + dy:.1f}" '
            f'text-anchor="{anchor}">{escape(mark.label)}</text>'
        )
    return _svg(title, description, parts)


def histogram(
    title: str,
    description: str,
    x: Axis,
    edges: Sequence[float],
    up: Sequence[int],
    down: Sequence[int],
    *,
    labels: tuple[str, str],
    threshold: float | None = None,
) -> str:
    """Return two histograms over one axis, ``up`` above it and ``down`` below, with ``labels``.

    Each bar is the share of its own side, on a square-root scale, so that a few texts among
    thousands are seen.
    """
    up_share, down_share = (
        [math.sqrt(c / total) if (total := sum(counts)) else 0.0 for c in counts]
        for counts in (up, down)
    )
    tallest = max([*up_share, *down_share]) or 1.0
    middle, half = (_TOP + HEIGHT - _BOTTOM) / 2, (HEIGHT - _TOP - _BOTTOM) / 2 - 2
    parts = [*_x_ticks(x), _x_label(x)]
    for sign, css, shares, counts in ((-1, "hit", up_share, up), (1, "other", down_share, down)):
        for i, (share, count) in enumerate(zip(shares, counts, strict=True)):
            if not count:
                continue
            left, right = _x(x, edges[i]) + 0.7, _x(x, edges[i + 1]) - 0.7
            tall = max(share / tallest * half, 1.5)
            top = middle - tall if sign < 0 else middle
            parts.append(
                f'<rect class="{css}" x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" '
                f'height="{tall:.1f}"><title>{edges[i]:.2f} to {edges[i + 1]:.2f}: '
                f"{count:,}</title></rect>"
            )
    parts.append(
        f'<line class="axis" x1="{_LEFT}" y1="{middle}" x2="{WIDTH - _RIGHT}" y2="{middle}"/>'
    )
    if threshold is not None:
        at = _x(x, threshold)
        parts.append(
            f'<line class="threshold" x1="{at:.1f}" y1="{_TOP}" x2="{at:.1f}" '
            f'y2="{HEIGHT - _BOTTOM}"/>'
        )
    for label, at in zip(labels, (middle - half / 2, middle + half / 2), strict=True):
        parts.append(_y_label(label, at, _LEFT - 12))
    return _svg(title, description, parts)


def whisker(value: float | None, low: float | None, high: float | None) -> str:
    """Return a small picture of an interval between 0 and 1, to stand beside its numbers."""
    if value is None or low is None or high is None:
        return ""
    x1, x2, at = (4 + 92 * min(max(v, 0.0), 1.0) for v in (low, high, value))
    return (
        '<svg class="whisker" viewBox="0 0 100 14" aria-hidden="true">'
        '<line class="rail" x1="4" y1="7" x2="96" y2="7"/>'
        f'<line class="range" x1="{x1:.1f}" y1="7" x2="{x2:.1f}" y2="7"/>'
        f'<circle class="dot" cx="{at:.1f}" cy="7" r="3.2"/></svg>'
    )


def _band(x: Axis, y: Axis, curve: Curve) -> list[str]:
    known = [i for i, v in enumerate(curve.y) if v is not None and curve.x[i] >= x.low]
    parts = []
    if curve.low:
        lower = _stairs([(curve.x[i], curve.low[i] or 0.0) for i in known], curve.steps)
        upper = _stairs([(curve.x[i], curve.high[i] or 0.0) for i in known], curve.steps)
        outline = _points(x, y, [*lower, *reversed(upper)])
        parts.append(f'<polygon class="band" points="{outline}"/>')
    line = _stairs([(curve.x[i], curve.y[i] or 0.0) for i in known], curve.steps)
    return [*parts, f'<polyline class="curve" points="{_points(x, y, line)}"/>']


def _whiskers(x: Axis, y: Axis, curve: Curve) -> list[str]:
    points = [(px, py) for px, py in zip(curve.x, curve.y, strict=True) if py is not None]
    parts = [f'<polyline class="curve thin" points="{_points(x, y, points)}"/>']
    for px, py, low, high in zip(curve.x, curve.y, curve.low, curve.high, strict=True):
        if py is None:
            continue
        at = _x(x, px)
        if low is not None and high is not None:
            parts.append(
                f'<line class="range" x1="{at:.1f}" y1="{_y(y, low):.1f}" '
                f'x2="{at:.1f}" y2="{_y(y, high):.1f}"/>'
            )
        parts.append(f'<circle class="dot" cx="{at:.1f}" cy="{_y(y, py):.1f}" r="3.5"/>')
    return parts


def _stairs(points: Sequence[tuple[float, float]], steps: bool) -> Sequence[tuple[float, float]]:
    """Return the points, with the corners between them where they are steps."""
    if not steps:
        return points
    corners = []
    for i, (px, py) in enumerate(points):
        if i:
            corners.append((px, points[i - 1][1]))
        corners.append((px, py))
    return corners


def _frame(x: Axis, y: Axis) -> list[str]:
    parts = []
    for tick in y.ticks():
        at = _y(y, tick)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{at:.1f}" x2="{WIDTH - _RIGHT}" y2="{at:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{_percent(tick)}</text>'
        )
    middle = (_TOP + HEIGHT - _BOTTOM) / 2
    return [*parts, *_x_ticks(x), _x_label(x), _y_label(y.label, middle, 14)]


def _x_ticks(x: Axis) -> list[str]:
    return [
        f'<line class="grid" x1="{_x(x, t):.1f}" y1="{_TOP}" x2="{_x(x, t):.1f}" '
        f'y2="{HEIGHT - _BOTTOM}"/><text x="{_x(x, t):.1f}" y="{HEIGHT - _BOTTOM + 17}" '
        f'text-anchor="middle">{_percent(t)}</text>'
        for t in x.ticks()
    ]


def _y_label(label: str, middle: float, x: float) -> str:
    return (
        f'<text class="label" transform="translate({x} {middle:.0f}) rotate(-90)" '
        f'text-anchor="middle">{escape(label)}</text>'
    )


def _x_label(x: Axis) -> str:
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return (
        f'<text class="label" x="{middle:.0f}" y="{HEIGHT - 8}" text-anchor="middle">'
        f"{escape(x.label)}</text>"
    )


def _svg(title: str, description: str, parts: Sequence[str]) -> str:
    name = escape(f"{title}. {description}")
    return (
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(parts)}</svg>"
    )


def _points(x: Axis, y: Axis, points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{_x(x, px):.1f},{_y(y, py):.1f}" for px, py in points)


def _x(axis: Axis, value: float) -> float:
    return _LEFT + axis.place(value) * (WIDTH - _LEFT - _RIGHT)


def _y(axis: Axis, value: float) -> float:
    return HEIGHT - _BOTTOM - axis.place(value) * (HEIGHT - _TOP - _BOTTOM)


def _percent(value: float) -> str:
    return f"{value:.0%}" if value >= 0.01 or not value else f"{value:.1%}"
