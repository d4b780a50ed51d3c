"""Patterns of a policy, compiled once."""

from __future__ import annotations

from functools import cache
from typing import Any


@cache
def compile_pattern(re2_pattern: str) -> Any:
    """Return the compiled pattern, for UTF-8 bytes; ValueError says what is wrong with it."""
    import re2

    options = re2.Options()
    options.log_errors = False  # raised below, not printed
    options.never_capture = True
    try:
        return re2.compile(re2_pattern, options)
    except re2.error as error:
        reason = error.args[0]
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise ValueError(text) from error
