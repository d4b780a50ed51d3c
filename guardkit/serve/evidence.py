"""Why a policy decided as it did: what each token adds to the verdicts of the members asked."""

from __future__ import annotations

from typing import Any

from guardkit.errors import GuardkitError
from guardkit.evaluation.explanation import Explanation, explain
from guardkit.rounding import six_digits
from guardkit.serve.live import Judged
from guardkit.types import RouteStep, Row

#: Explanations of one answer: each reads the text again.
_MOST = 8
#: A longer text is judged and not explained: nobody would read a mark on each word of it.
MAX_EXPLAINED = 20_000


def explained(judged: Judged, row: Row) -> list[dict[str, Any]]:
    """Return the evidence of each member on the route, for the text it decided about.

    A member that gives none has ``error`` instead.
    """
    router = judged.live.router
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for step in judged.decision.route:
        text = _text_of(step, row)
        if step.member in router.sources and text and len(found) < _MOST:
            key = step.member, text
            if key not in found:
                found[key] = _evidence(judged, step, text)
    return list(found.values())


def _evidence(judged: Judged, step: RouteStep, text: str) -> dict[str, Any]:
    model = judged.live.router.model(step.member)
    told = {"member": step.member, "message": step.message, "part": step.part}
    if len(text) > MAX_EXPLAINED:
        return {
            **told,
            "error": f"of more than {MAX_EXPLAINED:,} characters: judged, not explained",
        }
    try:
        explanation = explain(model, text)
    except GuardkitError as error:
        return {**told, "error": str(error)}
    except Exception as error:  # a plugin's: told, and the decision stands
        return {**told, "error": f"it gives no evidence: {type(error).__name__}"}
    return {**told, **_facts(explanation)}


def _facts(explanation: Explanation) -> dict[str, Any]:
    p = explanation.probabilities
    return {
        "label": explanation.label,
        "scorer": explanation.scorer,
        "probabilities": {label: six_digits(value) for label, value in p.items()},
        "text": explanation.text,
        "as_it_stands": explanation.as_it_stands,
        "readings": explanation.readings,
        "pieces": [[piece.start, piece.end, piece.value] for piece in explanation.pieces],
    }


def _text_of(step: RouteStep, row: Row) -> str | None:
    """Return the text that a step of the route judged."""
    if not row.origins:
        return row.texts[0]
    for text, origin in zip(row.texts, row.origins, strict=True):
        if (origin.message, origin.part) == (step.message, step.part):
            return text
    return None
