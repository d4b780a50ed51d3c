"""How tables are written: rows, and figures with their intervals, a record's ``value``, ``low`` and
``high``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def interval(value: Mapping[str, Any], form: str = ".3f") -> str:
    """Return the figure and its interval, each formatted by ``form``; "-" where there is none."""
    if value["value"] is None:
        return "-"
    figure, low, high = (format(value[name], form) for name in ("value", "low", "high"))
    return f"{figure} ({low} to {high})"


def percent(value: Mapping[str, Any], decimals: int = 1) -> str:
    """Return a share with its interval, in percent."""
    return interval(value, f".{decimals}%")


def points(value: Mapping[str, Any], decimals: int = 1) -> str:
    """Return a difference of shares with its interval, in points."""
    form = f"+.{decimals}f"
    figure, low, high = (format(100 * value[name], form) for name in ("value", "low", "high"))
    return f"{figure} points ({low} to {high})"


def header(*names: str) -> list[str]:
    """Return the lines that a table with these columns begins with."""
    return [row(*names), "|" + " --- |" * len(names)]


def row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"
