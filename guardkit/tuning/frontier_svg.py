"""A picture of a sweep: recall against cost, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from guardkit.metrics import Interval
from guardkit.tuning.frontier import Frontier
from guardkit.tuning.sweep import Point

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 240, 48, 56
_STYLE = """
  text { font: 13px system-ui, sans-serif; fill: #222 }
  .title { font-size: 15px; font-weight: 600 }
  .grid { stroke: #ddd }
  .tried { fill: #b8c4d6 }
  .frontier { fill: none; stroke: #3b6fb5; stroke-width: 1.5 }
  .shown { fill: #3b6fb5 }
  .file { fill: #c0392b }
  .single { fill: #2e8b57 }
  .chosen { fill: none; stroke: #e08a00; stroke-width: 2.5 }
  .held { stroke: #e08a00; stroke-width: 2 }
"""


def frontier_picture(frontier: Frontier) -> str:
    """Return the picture: every choice tried, those none beats, the members alone, the file's
    point, the chosen one and, as a bar, its recall on texts it was not chosen on."""
    sweep = frontier.sweep
    own = [] if sweep.own is None else [sweep.own]
    axes = _Axes([*sweep.points, *sweep.singles, *own])
    parts = [
        *_head(f"{frontier.category}: recall at {frontier.max_fpr:.2%} false positives"),
        *axes.drawn(),
        *(axes.dot(point, "tried", 2.5) for point in sweep.points),
        axes.line(sweep.frontier),
        *(axes.dot(point, "shown", 4) for point in sweep.frontier),
        # their names one below the other: members often cost and catch much the same
        *(axes.named(p, "single", p.name, 22 + 30 * i) for i, p in enumerate(sweep.singles)),
        *(axes.named(p, "file", f"the file: {p.fpr:.2%} false positives", -12) for p in own),
        axes.dot(sweep.chosen, "chosen", 8),
        *axes.bar(sweep.held_out["ms"]["value"], sweep.held_out["recall"]),
        *_legend(),
        "</svg>",
    ]
    return "\n".join(part for part in parts if part) + "\n"


class _Axes:
    """Milliseconds to the right, recall upwards."""

    def __init__(self, points: list[Point]) -> None:
        self.high_ms = 1.08 * max([point.ms for point in points] or [1.0]) or 1.0
        self.low = math.floor(10 * min([point.recall for point in points] or [0.0])) / 10

    def x(self, ms: float) -> float:
        return round(_LEFT + (_WIDTH - _LEFT - _RIGHT) * ms / self.high_ms, 1)

    def y(self, recall: float) -> float:
        share = (recall - self.low) / (1.0 - self.low or 1.0)
        return round(_HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * share, 1)

    def drawn(self) -> Iterator[str]:
        right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
        for i in range(round(10 * self.low), 11):
            y = self.y(i / 10)
            yield f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
            yield f'<text x="{_LEFT - 8}" y="{y + 4}" text-anchor="end">{10 * i}%</text>'
        step = _round_step(self.high_ms / 5)
        for i in range(int(self.high_ms / step) + 1):
            x = self.x(i * step)
            yield f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>'
            yield f'<text x="{x}" y="{bottom + 18}" text-anchor="middle">{i * step:g}</text>'
        middle = (_LEFT + right) / 2
        yield f'<text x="{middle}" y="{_HEIGHT - 14}" text-anchor="middle">ms per text</text>'

    def dot(self, point: Point, kind: str, radius: float) -> str:
        x, y = self.x(point.ms), self.y(point.recall)
        about = f"<title>{point.ms:.2f} ms, recall {point.recall:.1%}</title>"
        return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{radius}">{about}</circle>'

    def named(self, point: Point, kind: str, name: str, down: int) -> str:
        x, y = self.x(point.ms), self.y(point.recall) + down
        text = f'<text x="{x}" y="{y:.1f}" text-anchor="middle">{escape(name)}</text>'
        return self.dot(point, kind, 5.5) + text

    def line(self, points: Sequence[Point]) -> str:
        steps = " ".join(f"{self.x(p.ms)},{self.y(p.recall)}" for p in points)
        return f'<polyline class="frontier" points="{steps}"/>' if len(points) > 1 else ""

    def bar(self, ms: float | None, recall: Interval) -> Iterator[str]:
        low, high = recall["low"], recall["high"]
        if ms is not None and low is not None and high is not None:
            x = self.x(ms)
            ends = f'y1="{self.y(max(low, self.low))}" y2="{self.y(max(high, self.low))}"'
            yield f'<line class="held" x1="{x}" x2="{x}" {ends}/>'


def _head(title: str) -> Iterator[str]:
    size = f'viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}"'
    yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">'
    yield f"<title>{escape(title)}</title><style>{_STYLE}</style>"
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>'
    yield f'<text class="title" x="{_LEFT}" y="26">{escape(title)}</text>'


def _legend() -> Iterator[str]:
    x, y = _WIDTH - _RIGHT + 24, _TOP + 14
    for kind, radius, text in (
        ("tried", 3, "a choice of bounds"),
        ("shown", 4, "none costs and misses less"),
        ("single", 5.5, "a member alone"),
        ("file", 5.5, "the file as written"),
        ("chosen", 7, "chosen on these texts"),
    ):
        yield f'<circle class="{kind}" cx="{x}" cy="{y - 4}" r="{radius}"/>'
        yield f'<text x="{x + 14}" y="{y}">{text}</text>'
        y += 22
    yield f'<line class="held" x1="{x}" y1="{y - 10}" x2="{x}" y2="{y + 2}"/>'
    yield f'<text x="{x + 14}" y="{y}">its recall, cross-fitted</text>'


def _round_step(rough: float) -> float:
    """Return 1, 2 or 5 times a power of ten, near ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
