"""The application: every endpoint behind the gate."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from guardkit import __version__
from guardkit.errors import NotJudgedError, RunError
from guardkit.serve import decisions, litellm, moderations, operations, pages
from guardkit.serve.api_errors import ApiError, invalid, not_judged
from guardkit.serve.gate import Gate
from guardkit.serve.service import Service

_ABOUT = "A guardkit policy over HTTP. A text that could not be judged never reads as safe."


def create_app(service: Service) -> FastAPI:
    """Return the ASGI application that serves ``service`` and closes it at its end."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await service.close()

    app = FastAPI(
        title="guardkit", description=_ABOUT, version=__version__, lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None, redoc_url=None,  # these load scripts from elsewhere; pages has /docs
    )  # fmt: skip
    app.state.service = service
    for part in (moderations, decisions, litellm, operations, pages):
        app.include_router(part.router)
    handlers: dict[Any, Any] = {
        ApiError: _api_error,
        NotJudgedError: _not_judged,
        RunError: _not_judged,
        RequestValidationError: _invalid,
        HTTPException: _http_exception,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Gate, service=service)
    return app


async def _api_error(_: Request, error: ApiError) -> Response:
    return error.response()


async def _not_judged(_: Request, error: RunError) -> Response:
    return not_judged(error).response()


async def _invalid(_: Request, error: RequestValidationError) -> Response:
    return invalid(error).response()


async def _http_exception(_: Request, error: HTTPException) -> Response:
    what = {404: "no such path; /docs lists them", 405: "not with this method; /docs lists them"}
    message = what.get(error.status_code, "refused")
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "refused")
    return ApiError(error.status_code, code, message, headers=error.headers).response()
