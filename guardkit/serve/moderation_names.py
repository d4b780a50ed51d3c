"""What OpenAI calls the categories of its moderations."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from guardkit.errors import UsageError
from guardkit.policy.schema import Policy

OPENAI_NAMES = (
    "harassment", "harassment/threatening", "hate", "hate/threatening", "illicit",
    "illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent", "sexual",
    "sexual/minors", "violence", "violence/graphic",
)  # fmt: skip


def check_names(wanted: Mapping[str, str], policy: Policy) -> Mapping[str, str]:
    """Return the names that moderations give -> the policy's categories: its own, and those of
    OpenAI that ``wanted`` maps to them.

    Raises UsageError where a name is none of OpenAI's or a category is none of the policy's: what
    nobody judges must not read as safe.
    """
    mistakes = []
    for name, category in wanted.items():
        if name not in OPENAI_NAMES:
            mistakes.append(f"{name!r} is no category of OpenAI's{_like(name, OPENAI_NAMES)}")
        if category not in policy.categories:
            known = tuple(policy.categories)
            mistakes.append(f"{policy.path} has no category {category!r}{_like(category, known)}")
        elif name in policy.categories and name != category:
            mistakes.append(f"{name!r} is a category of {policy.path} itself")
    if mistakes:
        raise UsageError(f"--openai-name: {'; '.join(mistakes)}")
    return {name: name for name in policy.categories} | dict(wanted)


def _like(name: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f", did you mean {close[0]!r}?" if close else f"; there are: {', '.join(known)}"
