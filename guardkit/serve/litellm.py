"""``POST /beta/litellm_basic_guardrail_api``: a policy in front of every model of a LiteLLM proxy.

The form is LiteLLM's Generic Guardrail API (litellm 1.108,
``types/proxy/guardrails/guardrail_hooks/generic_guardrail_api.py``): texts in, and out one of
NONE, BLOCKED, or GUARDRAIL_INTERVENED with other texts in the place of those that came.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardkit.serve.api_errors import RESPONSES, ApiError, json_response
from guardkit.serve.bodies import StrictRoute, aside, check_texts
from guardkit.serve.live import Judged
from guardkit.serve.schemas import GuardrailAnswer, GuardrailRequest
from guardkit.serve.service import Service
from guardkit.text.chat import read_chat
from guardkit.text.chat_fields import NotRead, Said
from guardkit.types import Origin, Role, Row

router = APIRouter(route_class=StrictRoute, responses=RESPONSES)


@router.post("/beta/litellm_basic_guardrail_api", response_model=GuardrailAnswer)
async def guardrail(body: GuardrailRequest, request: Request) -> Response:
    """Judge what a LiteLLM proxy is about to send to a model, or to a user.

    What cannot be judged is BLOCKED, images among it, or a 503, at which LiteLLM refuses too.
    """
    service: Service = request.app.state.service
    try:
        said = await aside(request, _said, body)
    except NotRead as why:
        return _blocked(str(why))
    check_texts(len(said))
    if body.images:
        return _blocked("images cannot be judged")
    said = _judged_by_a_category(service, said)
    if not said:
        return json_response({"action": "NONE"})
    name = request.state.request
    (judged,) = await service.judge([_row(said)], name)
    if judged.unjudged:
        raise ApiError(503, "not_judged", "not judged, and the policy would let it pass")
    action = judged.decision.action
    if action == "allow" or (action == "flag" and service.settings.on_flag == "pass"):
        return json_response({"action": "NONE"})
    if action == "flag" and service.settings.on_flag == "withhold":
        return await _withheld(service, body.texts or [], said, name)
    return _blocked(_why(judged))


async def _withheld(
    service: Service, texts: Sequence[str], said: Sequence[Said], name: str
) -> Response:
    """Return the texts without those that are flagged; all is blocked where that leaves any."""
    origins = {one.text: one.origin for one in reversed(said)}
    own = {text: _row([Said(text, origins[text])]) for text in texts if text in origins}
    rest = [one for one in said if one.text not in own]
    judged = await service.judge([*own.values(), *([_row(rest)] if rest else [])], name)
    instead = {
        text: f"[withheld: {', '.join(_flagged(one))}]"
        for text, one in zip(own, judged, strict=False)
        if not one.passed
    }
    shown = [instead.get(text, text) for text in texts]
    if not instead or any(not one.passed for one in judged[len(own) :]):
        return _blocked("flagged in a place that cannot be withheld")
    return json_response({"action": "GUARDRAIL_INTERVENED", "texts": shown})


def _said(body: GuardrailRequest) -> list[Said]:
    """Return all that the request says: the conversation, and what of ``texts`` and ``tool_calls``
    is not in it. Raises NotRead where that cannot be judged."""
    fields: dict[str, Any] = {}
    if body.structured_messages:
        fields["messages"] = body.structured_messages
    if body.tools:
        fields |= {"messages": fields.get("messages", []), "tools": body.tools}
    said = read_chat(fields)
    # an answer may repeat what stands in the request, in another's words
    known = {one.text for one in said} if body.input_type == "request" else set[str]()
    role: Role = "user" if body.input_type == "request" else "assistant"
    for i, text in enumerate(body.texts or ()):
        if text not in known:
            said.append(Said(text, Origin(f"texts[{i}]", role)))
    if body.tool_calls:
        calls = read_chat({"messages": [{"role": "assistant", "tool_calls": body.tool_calls}]})
        said += [one for one in calls if one.text not in known]
    return said


def _judged_by_a_category(service: Service, said: Sequence[Said]) -> list[Said]:
    """Return what is said by those whose words some category of the policy judges."""
    categories = service.live.router.policy.categories.values()
    return [one for one in said if any(c.judges(one.origin.role) for c in categories)]


def _row(said: Sequence[Said]) -> Row:
    return Row(1, None, tuple(one.text for one in said), origins=tuple(one.origin for one in said))


def _flagged(judged: Judged) -> list[str]:
    return [name for name, c in judged.decision.categories.items() if c.action != "allow"]


def _why(judged: Judged) -> str:
    policy = judged.live.router.policy.name
    failed = "; it could not be judged" if judged.decision.error else ""
    return f"policy {policy!r}: {', '.join(_flagged(judged))}{failed}"


def _blocked(why: str) -> Response:
    return json_response({"action": "BLOCKED", "blocked_reason": why})
