"""The page at ``/`` and the reference at ``/docs``: files of ours, nothing from elsewhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request
from starlette.responses import Response

from guardkit.serve.reference import reference

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent / "page"
_TYPES = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


@router.get("/")
async def page() -> Response:
    return _file("page.html")


@router.get("/page.js")
async def script() -> Response:
    return _file("page.js")


@router.get("/page.css")
async def style() -> Response:
    return _file("page.css")


@router.get("/docs")
async def docs(request: Request) -> Response:
    return Response(reference(request.app.openapi()), media_type="text/html; charset=utf-8")


def _file(name: str) -> Response:
    kind = _TYPES[Path(name).suffix]
    return Response(_bytes(name), media_type=f"{kind}; charset=utf-8")


@cache
def _bytes(name: str) -> bytes:
    return (_FOLDER / name).read_bytes()
