"""Who runs the server asks here: which policy, is it well, what has it done, read it again."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardkit import __version__
from guardkit.errors import GuardkitError
from guardkit.serve.api_errors import RESPONSES, ApiError, json_response
from guardkit.serve.live import Live
from guardkit.serve.schemas import Health, PolicyAnswer, Ready
from guardkit.serve.service import Service

router = APIRouter(responses=RESPONSES)


@router.get("/v1/policy", response_model=PolicyAnswer)
async def policy(request: Request) -> Response:
    """Return the policy that judges now: its name, hash, categories and models."""
    service: Service = request.app.state.service
    return _policy(service.live)


@router.post("/v1/reload", response_model=PolicyAnswer)
async def reload(request: Request) -> Response:
    """Read the policy's file and models again. A policy that is refused changes nothing.

    Only where the server asks for keys; SIGHUP does the same.
    """
    service: Service = request.app.state.service
    if service.settings.keys is None:
        raise ApiError(403, "no_keys", "only a server with --api-key-file is told so; send SIGHUP")
    try:
        return _policy(await service.reload())
    except GuardkitError as error:
        raise ApiError(409, "policy_refused", f"the old policy goes on: {error}") from error


@router.get("/healthz", response_model=Health)
async def healthz(request: Request) -> Response:
    """Return 200 while the server can judge; a 503 asks to be restarted."""
    service: Service = request.app.state.service
    if trouble := service.trouble:
        raise ApiError(503, "unhealthy", trouble)
    return json_response({"status": "ok"})


@router.get("/readyz", response_model=Ready)
async def readyz(request: Request) -> Response:
    """Return 200 where requests are welcome, with the full hashes of what judges them."""
    service: Service = request.app.state.service
    if trouble := service.trouble:
        raise ApiError(503, "unhealthy", trouble)
    live = service.live
    told = {"status": "ready", "version": __version__, "policy": live.router.hash}
    return json_response({**told, "models": live.models})


@router.get("/metrics", response_class=Response)
async def metrics(request: Request) -> Response:
    """Return what Prometheus reads."""
    service: Service = request.app.state.service
    data = service.telemetry.exposition()
    return Response(data, media_type="text/plain; version=0.0.4; charset=utf-8")


def _policy(live: Live) -> Response:
    own, shadow = live.router.policy, live.router.shadow
    categories = {
        name: {
            "action": category.action,
            "threshold": category.threshold.probability,
            "on_error": category.on_error,
            "roles": list(category.roles),
        }
        for name, category in own.categories.items()
    }
    return json_response(
        {
            "name": own.name, "hash": own.hash, "mode": own.mode, "categories": categories,
            "moderation_names": live.names, "members": live.models, "loaded": live.since,
            "shadow": None if shadow is None else {"name": shadow.policy.name, "hash": shadow.hash},
        }
    )  # fmt: skip
