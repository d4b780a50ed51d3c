"""Reliability diagrams: observed shares by the probability that was given, as bins and as SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from guardkit.metrics import ECE_BINS, wilson_interval

_SIDE, _LEFT, _TOP, _GAP = 260, 56, 40, 40  # of a panel and around it, in pixels


class ReliabilityBin(BaseModel):
    """Texts that were given about the same probability."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    n: int = Field(ge=1)
    mean: float = Field(ge=0, le=1, description="of the probabilities they were given")
    share: float = Field(ge=0, le=1, description="of them for which it was so")


def reliability_bins(
    p_N: npt.NDArray[np.floating], true_N: npt.NDArray[np.bool_], bins: int = ECE_BINS
) -> list[ReliabilityBin]:
    """Return bins of about equal count, by rising probability; equal probabilities share a bin.

    ``p_N`` are the probabilities given, ``true_N`` says for which texts it was so.
    """
    order = np.argsort(p_N, kind="stable")
    p_N, true_N = p_N[order].astype(np.float64), true_N[order]
    bins = min(bins, len(p_N))
    last = np.arange(1, bins) * len(p_N) // bins - 1
    # a cut moves behind the last text of the same probability, so that order decides nothing
    ends = np.unique(np.searchsorted(p_N, p_N[last], side="right"))
    parts = np.split(np.arange(len(p_N)), ends)
    return [
        ReliabilityBin(n=len(part), mean=float(p_N[part].mean()), share=float(true_N[part].mean()))
        for part in parts
        if len(part)
    ]


def reliability_diagram(
    before: Sequence[ReliabilityBin], after: Sequence[ReliabilityBin], *, of: str = ""
) -> str:
    """Return two reliability diagrams side by side as SVG: the nearer to the diagonal, the better.

    ``of`` names what the probabilities are of. Bars are 95% intervals of the observed share, which
    are too narrow where texts of one bin are near-duplicates.
    """
    width = _LEFT + 2 * _SIDE + _GAP + 16
    height = _TOP + _SIDE + 48
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="sans-serif" font-size="12">',
            "<title>Reliability before and after calibration</title>",
            f'<rect width="{width}" height="{height}" fill="white"/>',
            *_panel("before", before, _LEFT),
            *_panel("after", after, _LEFT + _SIDE + _GAP),
            f'<text x="{_LEFT + _SIDE + _GAP / 2}" y="{height - 10}" text-anchor="middle">'
            f"probability given{escape(f' to {of}' if of else '')}</text>",
            f'<text transform="translate(14 {_TOP + _SIDE / 2}) rotate(-90)" '
            'text-anchor="middle">share of texts for which it was so</text>',
            "</svg>\n",
        ]
    )


def _panel(title: str, bins: Sequence[ReliabilityBin], left: int) -> list[str]:
    def x(p: float) -> str:
        return f"{left + p * _SIDE:.1f}"

    def y(p: float) -> str:
        return f"{_TOP + (1 - p) * _SIDE:.1f}"

    n = sum(b.n for b in bins)
    lines = [
        f'<text x="{x(0.5)}" y="{_TOP - 14}" text-anchor="middle">{title}: {n:,} texts</text>',
        f'<rect x="{x(0)}" y="{y(1)}" width="{_SIDE}" height="{_SIDE}" fill="none" stroke="#bbb"/>',
        f'<line x1="{x(0)}" y1="{y(0)}" x2="{x(1)}" y2="{y(1)}" stroke="#bbb" '
        'stroke-dasharray="4 4"/>',
    ]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        lines += [
            f'<text x="{x(tick)}" y="{_TOP + _SIDE + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{left - 6}" y="{float(y(tick)) + 4:.1f}" text-anchor="end">{tick:g}</text>',
        ]
    points = " ".join(f"{x(b.mean)},{y(b.share)}" for b in bins)
    lines.append(f'<polyline points="{points}" fill="none" stroke="#9db8d9"/>')
    for b in bins:
        low, high = wilson_interval(b.share, b.n)
        lines += [
            f'<line x1="{x(b.mean)}" y1="{y(low)}" x2="{x(b.mean)}" y2="{y(high)}" '
            'stroke="#2b5c9e"/>',
            f'<circle cx="{x(b.mean)}" cy="{y(b.share)}" r="3.5" fill="#2b5c9e"><title>{b.n:,} '
            f"texts, {b.mean:.3f} given, {b.share:.3f} so</title></circle>",
        ]
    return lines
