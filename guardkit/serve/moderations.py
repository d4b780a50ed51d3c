"""``POST /v1/moderations``: a policy where OpenAI's clients expect a moderation model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardkit.serve.api_errors import RESPONSES, ApiError, json_response
from guardkit.serve.bodies import StrictRoute, aside, rows_of
from guardkit.serve.live import Judged
from guardkit.serve.schemas import ImagePart, ModerationAnswer, ModerationRequest, TextPart
from guardkit.serve.service import Service
from guardkit.types import Row

router = APIRouter(route_class=StrictRoute, responses=RESPONSES)


@router.post("/v1/moderations", response_model=ModerationAnswer)
async def moderations(body: ModerationRequest, request: Request) -> Response:
    """Judge a text, several texts, or parts of one.

    `categories` are the policy's own, and those of OpenAI's names that the server was told to map.
    A text that could not be judged is flagged, or the answer is a 503; it never reads as safe.
    """
    service: Service = request.app.state.service
    name = request.state.request
    rows = await aside(request, _rows, body.input)
    judged = await service.judge(rows, name)
    if whys := {i: why for i, one in enumerate(judged) if (why := one.unjudged)}:
        at = ", ".join(map(str, whys))
        message = (
            f"the policy lets pass what it could not judge (on_error: open), and this form cannot "
            f"say so: input {at}. POST /v1/classify can"
        )
        raise ApiError(503, "not_judged", message)
    policy = judged[0].decision.policy
    return json_response(
        {
            "id": f"modr-{name}",
            "model": f"guardkit-{policy}",
            "results": [_result(one) for one in judged],
        }
    )


def _rows(given: str | Sequence[str | TextPart | ImagePart]) -> list[Row]:
    if isinstance(given, str):
        return rows_of([given], "input")
    texts = [one for one in given if isinstance(one, str)]
    if len(texts) == len(given):
        return rows_of(texts, "input")
    for i, part in enumerate(given):
        if isinstance(part, ImagePart):
            message = f"input[{i}]: an image; only text is judged, and no URL is fetched"
            raise ApiError(400, "image_not_supported", message, param=f"input[{i}]")
    parts = [part.model_dump() for part in given if isinstance(part, TextPart)]
    return rows_of([{"messages": [{"content": parts}]}], "input")


def _result(judged: Judged) -> dict[str, Any]:
    decision, live = judged
    flags, scores = {}, {}
    for name, category in live.names.items():
        own = decision.categories[category]
        flags[name] = live.enforced and own.action != "allow"
        # who compares scores with thresholds of their own must not take "not judged" for safe
        scores[name] = (1.0 if own.action != "allow" else 0.0) if own.score is None else own.score
    return {
        "flagged": decision.action != "allow",
        "categories": flags,
        "category_scores": scores,
        "category_applied_input_types": {name: ["text"] for name in flags},
        "guardkit": {
            "action": decision.action,
            "error": decision.error,
            "truncated": decision.truncated,
            "policy": decision.policy,
        },
    }
