"""Errors as OpenAI's clients read them: a status, and an object that says what to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import Response

from guardkit.errors import ClosedError, DeadlineError, GuardkitError, QueueFullError


class ApiError(HTTPException):
    """A request that is answered with ``status`` and a reason; the reason quotes no text.

    FastAPI lets only its own kind of exception out of the reading of a body.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, message, dict(headers or {}))
        self.code, self.param = code, param

    def response(self) -> Response:
        kind = "invalid_request_error" if self.status_code < 500 else "server_error"
        error = {"message": self.detail, "type": kind, "param": self.param, "code": self.code}
        return json_response({"error": error}, self.status_code, self.headers)


class ErrorFields(BaseModel):
    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(BaseModel):
    """What went wrong. A text that was not judged counts as unsafe."""

    error: ErrorFields


#: Every endpoint may answer so.
RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorBody, "description": "The request is refused; `error` says why."},
    "5XX": {"model": ErrorBody, "description": "Not judged: take the text as unsafe, or retry."},
}


def not_judged(error: GuardkitError) -> ApiError:
    """Return what a client is told of texts that were not judged."""
    match error:
        case QueueFullError():
            after = {"retry-after": str(error.retry_after_s)}
            return ApiError(429, "queue_full", str(error), headers=after)
        case DeadlineError():
            return ApiError(503, "deadline", str(error), headers={"retry-after": "1"})
        case ClosedError():
            return ApiError(503, "closing", str(error), headers={"retry-after": "1"})
    return ApiError(503, "not_judged", "not judged, for a reason that the server's log has")


def invalid(error: RequestValidationError) -> ApiError:
    """Return which field of a request is wrong and all that it might be, and not what it held."""
    mistakes = error.errors()
    fields = [str(mistake["loc"][1]) if len(mistake["loc"]) > 1 else "" for mistake in mistakes]
    place = fields[0]
    own = [m["msg"] for m, field in zip(mistakes, fields, strict=True) if field == place]
    message = f"{place or 'the body'}: {', or: '.join(dict.fromkeys(own))}"
    return ApiError(400, "invalid_request", message, param=place or None)


def json_response(
    content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    data = msgspec.json.encode(content)
    return Response(data, status, dict(headers or {}), media_type="application/json")
