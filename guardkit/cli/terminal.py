"""What is printed goes through here: nothing that others wrote can drive a terminal.

``say`` prints a line, ``console.console`` tables. Characters that nobody sees are spelt out
(``[U+001B]``), those that a terminal's encoding lacks are escaped (``\\u2026``).
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from guardkit.errors import OutputError
from guardkit.text.visible import visible


def say(text: str = "", *, err: bool = False) -> None:
    """Print ``text`` and a line end on standard output, or standard error. Raises what
    ``written_to`` raises."""
    with written_to(err=err):
        print(visible(text), file=sys.stderr if err else sys.stdout, flush=err)


@contextmanager
def written_to(*, err: bool = False) -> Iterator[None]:
    """Raise OutputError where standard output cannot be written, BrokenPipeError where nobody reads
    a stream. Standard error that cannot be written is lost: there is nowhere to say so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if not err:
            raise OutputError(f"standard output: cannot be written: {error.strerror}") from error


def open_streams() -> list[TextIO]:
    """Return standard output and standard error, ready to take any character.

    A stream that was closed when the process began is opened: else the next file would get its
    number. What is written to standard output then fails, as does reading standard input;
    standard error is lost.
    """
    closed = [stream is None for stream in (sys.stdin, sys.stdout, sys.stderr)]
    for number, (name, mode, flags) in enumerate(_STREAMS):
        if closed[number]:
            _occupy(number, flags)
            stream: Any = open(number, mode, encoding="utf-8", closefd=False)  # noqa: SIM115
            stream.buffer.raw.name = f"<{name}>"  # as it is called in messages
            setattr(sys, name, stream)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    return [sys.stdout, sys.stderr]


_STREAMS = (
    ("stdin", "r", os.O_WRONLY),  # a file that cannot be read: an input that is not there is told
    ("stdout", "w", os.O_RDONLY),  # and one that cannot be written
    ("stderr", "w", os.O_WRONLY),
)


def _occupy(number: int, flags: int) -> None:
    try:
        os.fstat(number)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)


def finish(streams: Sequence[TextIO]) -> None:
    """Write out what standard output and standard error hold back. Where that fails it is dropped,
    or the interpreter would complain of it at its end. Raises what ``say`` raises."""
    for index, stream in enumerate(streams):
        with written_to(err=index == 1):
            try:
                stream.flush()
            except OSError:
                devnull = os.open(os.devnull, os.O_WRONLY)
                os.dup2(devnull, stream.fileno())
                os.close(devnull)
                raise
