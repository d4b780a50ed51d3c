"""How a command is stopped by SIGINT (Ctrl-C) and SIGTERM: nothing that is done is lost."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from guardkit.cli.terminal import say
from guardkit.errors import RunInterrupted, TrainingInterrupted
from guardkit.types import Progress

DRAIN_S = 4.0  # what cannot be interrupted may go on for so long after a signal


@contextmanager
def stopped_between_steps(progress: Progress) -> Iterator[Progress]:
    """Make the first SIGINT or SIGTERM stop training between two steps; a second one kills."""
    asked = False

    def ask(number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        asked = True
        signal.signal(number, signal.SIG_DFL)
        say("\nstopping after this step; once more stops at once", err=True)

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
def stopped_at_once() -> Iterator[None]:
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
                say(said.format(signal.Signals(numbers[0]).name), err=True)
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
