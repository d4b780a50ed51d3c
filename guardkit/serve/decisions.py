"""``POST /v1/classify`` and ``/v1/explain``: all that a policy says of texts and conversations."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from msgspec.structs import replace
from starlette.responses import Response

from guardkit.classify.records import decision_record
from guardkit.serve.api_errors import RESPONSES, ApiError, json_response
from guardkit.serve.bodies import StrictRoute, aside, rows_of
from guardkit.serve.live import Judged
from guardkit.serve.schemas import ClassifyAnswer, ClassifyRequest, ExplainAnswer
from guardkit.serve.service import Service
from guardkit.types import Row

router = APIRouter(route_class=StrictRoute, responses=RESPONSES)


@router.post("/v1/classify", response_model=ClassifyAnswer)
async def classify(body: ClassifyRequest, request: Request) -> Response:
    """Decide one text or conversation, or several in `inputs`: a decision for each, in order.

    A decision's `error` says that a text could not be judged; its `action` is then what the
    policy's `on_error` gives.
    """
    service: Service = request.app.state.service
    rows = await aside(request, _rows, body)
    judged = await service.judge(rows, request.state.request)
    decisions = [_record(one, row) for one, row in zip(judged, rows, strict=True)]
    return json_response({"decisions": decisions})


@router.post("/v1/explain", response_model=ExplainAnswer)
async def explain(body: ClassifyRequest, request: Request) -> Response:
    """Decide one text or conversation and say what each token adds, member by member."""
    service: Service = request.app.state.service
    if body.inputs is not None:
        raise ApiError(400, "invalid_request", "inputs: one text at a time", param="inputs")
    (row,) = await aside(request, _rows, body)
    judged, evidence = await service.explain(row, request.state.request)
    return json_response({"decision": _record(judged, row), "evidence": evidence})


def fields_of(body: ClassifyRequest) -> dict[str, Any]:
    """Return the fields that a body has, as they came: a copy of them would take long."""
    return {name: getattr(body, name) for name in body.model_fields_set}


def _rows(body: ClassifyRequest) -> list[Row]:
    fields = fields_of(body)
    if body.inputs is None:
        return rows_of([fields], "")
    if len(fields) > 1:
        others = ", ".join(sorted(fields.keys() - {"inputs"}))
        message = f"inputs stand alone; put {others} into one of them"
        raise ApiError(400, "invalid_request", message, param="inputs")
    return rows_of(body.inputs)


def _record(judged: Judged, row: Row) -> dict[str, Any]:
    record = decision_record(replace(judged.decision, id=row.id))
    if record.get("shadow", {}).get("error"):
        # where a shadow policy fails at a batch, the reason may be another request's
        record["shadow"] = {**record["shadow"], "error": "it could not be judged"}
    return record
