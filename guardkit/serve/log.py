"""The server's log: lines that hold no text, whatever went wrong.

An exception may quote what it failed at. Of one that is not guardkit's own its type is logged and
the place in the code, never its message.
"""

from __future__ import annotations

import logging
import sys
import traceback

from guardkit.errors import UsageError

server_log = logging.getLogger("guardkit.serve")


def said_of(error: BaseException) -> str:
    """Return what may be logged of ``error``: all of what is wrong with a policy or a model, of
    others the type and the place, and those of their causes."""
    if isinstance(error, UsageError):
        return str(error)
    parts, seen = [], set[int]()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        frames = traceback.extract_tb(cause.__traceback__)
        place = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        parts.append(f"{type(cause).__name__}{place}")
        cause = cause.__cause__
    return ", from ".join(parts)


class _NoText(logging.Formatter):
    """Leaves out what exceptions say."""

    def formatException(self, ei: object) -> str:
        error = ei[1] if isinstance(ei, tuple) else None
        return said_of(error) if isinstance(error, BaseException) else ""

    def formatStack(self, stack_info: str) -> str:
        return ""


def log_to_stderr() -> None:
    """Send the server's lines, and what uvicorn and asyncio warn of, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_NoText("%(asctime)s %(levelname)s %(message)s"))
    for name, level in (
        ("guardkit.serve", logging.INFO),
        ("uvicorn", logging.WARNING),
        ("asyncio", logging.ERROR),
    ):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
