"""How far a command is: bars on a terminal, lines in a log, both on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from guardkit.cli.console import console
from guardkit.cli.terminal import say
from guardkit.types import Progress

QUIET_S = 30.0  # between two lines of progress where there is no terminal to draw a bar on


class _Bars:
    """Progress on a terminal: one bar per stage."""

    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console(err=True),
        )
        self._tasks: dict[str, Any] = {}

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self.bars.add_task(stage, total=None, note="")
        self.bars.update(self._tasks[stage], completed=done, total=total or None, note=note)


class _Lines:
    """Progress in a log: a line when a stage begins, then one now and then."""

    def __init__(self) -> None:
        self._stage = ""
        self._last = 0.0

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage or now - self._last >= QUIET_S:
            self._stage, self._last = stage, now
            of = f"/{total}" if total else ""
            say(f"{stage} {done}{of} {note}".rstrip(), err=True)


class _LongRun:
    """A log of a run that may be short, and then leaves no line: how far it is, how long yet."""

    def __init__(self) -> None:
        self._stage = ""
        self._begun = self._last = time.monotonic()
        self._first = 0  # done when the stage began, by a run before it

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage != self._stage:
            self._stage, self._begun, self._first = stage, now, done
        if now - self._last < QUIET_S:
            return
        self._last = now
        words = [f"{stage} {done:,}"]
        if total:
            words = [f"{stage} {done:,} of {total:,} ({done / total:.0%})"]
            if fresh := done - self._first:
                seconds = (now - self._begun) * (total - done) / fresh
                words.append(f"{timedelta(seconds=round(seconds))} left")
        say(", ".join([*words, note]).removesuffix(", "), err=True)


def shown_progress() -> AbstractContextManager[Progress]:
    """Return a context that shows progress: bars on a terminal, else a line now and then. Of
    several processes that train together the first alone shows it."""
    if os.environ.get("RANK", "0") != "0":
        return nullcontext(lambda stage, done, total, note="": None)
    return _drawing() if sys.stderr.isatty() else nullcontext(_Lines())


def seldom_progress(*, beside_output: bool) -> AbstractContextManager[Progress | None]:
    """As ``shown_progress``, but nothing where bars would run into the output on a terminal, and no
    line in a log before a run has lasted."""
    if not sys.stderr.isatty():
        return nullcontext(_LongRun())
    return nullcontext(None) if beside_output and sys.stdout.isatty() else _drawing()


@contextmanager
def _drawing() -> Iterator[Progress]:
    bars = _Bars()
    with bars.bars:
        yield bars
