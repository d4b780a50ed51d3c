"""Decisions made of others: of a policy and its shadow, of the texts of one row."""

from __future__ import annotations

from msgspec.structs import asdict, replace

from guardkit.types import SEVERITY, Decision, Origin, RouteStep, Row


def with_shadow(live: Decision, shadow: Decision) -> Decision:
    """Return ``live`` with a record of what ``shadow`` would have done, even where the shadow
    policy itself has ``mode: shadow``."""
    action = max((c.action for c in shadow.categories.values()), key=SEVERITY.index)
    record = {
        "action": action,
        "categories": {name: asdict(c) for name, c in shadow.categories.items()},
        "error": shadow.error,
        "policy": shadow.policy,
        "models": shadow.models,
    }
    return replace(live, shadow=record)


def is_plain(row: Row) -> bool:
    """Return whether a row is one text, which no role has."""
    return len(row.texts) == 1 and not row.origins


def step_from(step: RouteStep, origin: Origin) -> RouteStep:
    """Return ``step`` with the place of its text."""
    return replace(step, message=origin.message, role=origin.role, part=origin.part)


def severity_and_score(category: str, decision: Decision) -> tuple[int, float]:
    """Return what tells the worst of several decisions on ``category``."""
    own = decision.categories[category]
    return SEVERITY.index(own.action), -1.0 if own.score is None else own.score
