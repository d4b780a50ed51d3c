"""A command at work: its progress on standard error, and how it is stopped."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import timedelta
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from guardkit.errors import RunInterrupted, TrainingInterrupted
from guardkit.types import Progress

DRAIN_S = 4.0  # what cannot be interrupted may go on for so long after a signal
QUIET_S = 30.0  # between two lines of progress where there is no terminal to draw a bar on


class _Bars:
    """Progress on a terminal: one bar per stage."""

    def __init__(self) -> None:
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
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
            print(f"{stage} {done}{of} {note}".rstrip(), file=sys.stderr, flush=True)


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
        print(", ".join([*words, note]).removesuffix(", "), file=sys.stderr, flush=True)


def progress() -> AbstractContextManager[Progress]:
    """Return a context that shows progress: bars on a terminal, else a line now and then. Of
    several processes that train together the first alone shows it."""
    if os.environ.get("RANK", "0") != "0":
        return nullcontext(lambda stage, done, total, note="": None)
    return _drawing() if sys.stderr.isatty() else nullcontext(_Lines())


def terminal_progress(*, beside_output: bool) -> AbstractContextManager[Progress | None]:
    """As ``progress``, but nothing where bars would run into the output on a terminal, and no
    line in a log before a run has lasted."""
    if not sys.stderr.isatty():
        return nullcontext(_LongRun())
    return nullcontext(None) if beside_output and sys.stdout.isatty() else _drawing()


@contextmanager
def _drawing() -> Iterator[Progress]:
    bars = _Bars()
    with bars.bars:
        yield bars


@contextmanager
def interruptible(progress: Progress) -> Iterator[Progress]:
    """Make the first SIGINT or SIGTERM stop training between two steps; a second one kills."""
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)
        print("\nstopping after this step; once more stops at once", file=sys.stderr, flush=True)

    def stoppable(stage: str, done: int, total: int, note: str = "") -> None:
        progress(stage, done, total, note)
        if asked:
            raise TrainingInterrupted(
                f"training stopped ({stage} {done} of {total}); the same command with --resume "
                "goes on from here"
            )

    before = {s: signal.signal(s, ask) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stoppable
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Stop(KeyboardInterrupt):
    """A signal came. Not an Exception: a plugin that survives those must not survive this."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Make SIGINT and SIGTERM end a classification at once: what is done is saved already.

    Where the process is busy with what cannot be interrupted, it is ended after DRAIN_S.
    """
    said = "stopped by {}; the same command with --resume goes on from here"

    def stop(number: int, _frame: FrameType | None) -> None:
        for each in before:  # a second one kills
            signal.signal(each, signal.SIG_DFL)
        raise _Stop(signal.Signals(number).name)

    def end_in_time(pipe: int) -> None:
        # told by the interpreter as the signal comes, which may be long before ``stop`` is called
        while numbers := os.read(pipe, 1):
            if numbers[0] in before:
                time.sleep(DRAIN_S)
                print(said.format(signal.Signals(numbers[0]).name), file=sys.stderr, flush=True)
                os._exit(RunInterrupted.exit_code)
        os.close(pipe)

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    threading.Thread(target=end_in_time, args=(reader,), daemon=True).start()
    awake = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {s: signal.signal(s, stop) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except _Stop as signalled:
        raise RunInterrupted(said.format(signalled)) from None
    finally:
        signal.set_wakeup_fd(awake)
        os.close(writer)
        for number, handler in before.items():
            signal.signal(number, handler)
