"""What every request goes through before an endpoint sees it.

A key where keys are asked for; a body that is read whole, within its size and time, before
anything is made of it; a caller that hangs up ends its work. Outside it all a line in the log, a
count, and an answer that quotes nothing where something of ours fails.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from starlette.datastructures import Headers

from guardkit.serve.api_errors import ApiError
from guardkit.serve.log import said_of, server_log
from guardkit.serve.service import Service

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

#: Answered without a key: they tell nothing that a text or a key could be learnt from.
OPEN_PATHS = frozenset(
    {"/", "/page.js", "/page.css", "/docs", "/openapi.json", "/healthz", "/readyz", "/metrics"}
)
#: A body that is sent slower than this is given up.
BODY_S = 10.0
#: All bodies that are being read or answered together.
BODIES_BYTES = 64 * 2**20

_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"content-security-policy",
     b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
     b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
]  # fmt: skip


class _Gone(Exception):
    """The caller hung up."""


class Gate:
    """ASGI middleware around the whole application."""

    def __init__(self, app: App, service: Service) -> None:
        self.app, self.service = app, service
        self._held = 0  # bytes of all bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        else:  # a websocket: there is none here
            await send({"type": "websocket.close", "code": 1008})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, request = time.perf_counter(), uuid.uuid4().hex
        scope.setdefault("state", {})["request"] = request
        status = 0

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [*_HEADERS, (b"x-request-id", request.encode())]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        try:
            await self._admitted(scope, receive, answer)
        except _Gone:
            status = 499  # as nginx calls it; nobody reads it but the log
        except ApiError as error:
            await error.response()(scope, receive, answer)
        except Exception as error:  # told without a word of what it says
            server_log.error("request %s failed: %s", request, said_of(error))
            if status:
                raise ConnectionError("the answer broke off") from None
            failed = ApiError(500, "internal", f"an error of ours; the log has {request}")
            await failed.response()(scope, receive, answer)
        finally:
            self._told(scope, request, status, time.perf_counter() - begun)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        self._check_key(scope, headers)
        with self._room() as take:
            body = await self._body(headers, receive, take)
            scope["state"]["size"] = len(body)
            await self._answered(scope, body, receive, send)

    async def _answered(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        """Let the application answer; stop it where the caller hangs up."""
        given, ended = False, asyncio.Event()

        async def receive_whole() -> Message:
            nonlocal given
            if given:
                await ended.wait()
                return {"type": "http.disconnect"}
            given = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def hung_up() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass

        work = asyncio.ensure_future(self.app(scope, receive_whole, send))
        gone = asyncio.ensure_future(hung_up())
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                raise _Gone
            await work
        finally:
            ended.set()
            gone.cancel()
            work.cancel()
            await asyncio.gather(work, gone, return_exceptions=True)

    def _check_key(self, scope: Scope, headers: Headers) -> None:
        keys = self.service.settings.keys
        if keys is None or scope["path"] in OPEN_PATHS:
            return
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        key = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if key not in keys:
            raise ApiError(
                401, "invalid_api_key", "a key is needed: `Authorization: Bearer KEY`",
                headers={"www-authenticate": "Bearer", **_CLOSE},
            )  # fmt: skip

    @contextmanager
    def _room(self) -> Iterator[Callable[[int], None]]:
        """Yield what takes room for bytes of a body, until it is answered."""
        own = 0

        def take(size: int) -> None:
            nonlocal own
            if self._held + size > BODIES_BYTES:
                after = {"retry-after": "1", **_CLOSE}
                raise ApiError(429, "busy", "too much is being read already", headers=after)
            own += size
            self._held += size

        try:
            yield take
        finally:
            self._held -= own

    async def _body(self, headers: Headers, receive: Receive, take: Callable[[int], None]) -> bytes:
        """Return the body, or refuse it as soon as it is too large or too slow; what is left of it
        is not read, and the connection closes."""
        most = self.service.settings.max_body
        declared = headers.get("content-length", "")
        if len(declared) > 20 or (declared.isdecimal() and int(declared) > most):
            raise _too_large(most)
        parts, size, more = [], 0, True
        try:
            async with asyncio.timeout(BODY_S):
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _Gone
                    size += len(part := message.get("body", b""))
                    if size > most:
                        raise _too_large(most)
                    take(len(part))
                    parts.append(part)
                    more = message.get("more_body", False)
        except TimeoutError:
            said = f"the body took longer than {BODY_S:g} s"
            raise ApiError(408, "too_slow", said, headers=_CLOSE) from None
        return b"".join(parts)

    def _told(self, scope: Scope, request: str, status: int, seconds: float) -> None:
        # the route as it was written, for the path may hold anything
        endpoint = getattr(scope.get("route"), "path", "other")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        telemetry = self.service.telemetry
        telemetry.requests.labels(endpoint, str(status)).inc()
        telemetry.duration.labels(endpoint).observe(seconds)
        if endpoint not in ("/healthz", "/readyz", "/metrics") or status >= 500:
            server_log.info(
                "%s %s %d %.1f ms %s", method, endpoint, status, 1000 * seconds, request
            )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLOSE = {"connection": "close"}


def _too_large(most: int) -> ApiError:
    return ApiError(413, "too_large", f"a body may have {most:,} bytes", headers=_CLOSE)
