"""HTTP as uvicorn reads it, with an end to what a client may take for its headers.

uvicorn waits for the first request of a connection as long as the client likes, and keeps headers
of any length.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: From connecting, or the first byte of a further request, to the end of the headers.
HEADERS_S = 10.0
HEADERS_BYTES = 32 * 1024


class BoundedHttp(HttpToolsProtocol):
    """Closes connections whose headers are late or too long."""

    _timer: asyncio.TimerHandle | None = None
    _in_headers = True
    _size = 0

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._wait_for_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is not None and self.cycle.response_complete and not self._in_headers:
            self._wait_for_headers()  # empty lines before a request begin none
        if self._in_headers:
            if self._size > HEADERS_BYTES:
                self._refuse(431, "Request Header Fields Too Large")
                return
            self._size += len(data)
        super().data_received(data)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if not self._in_headers:
            self._wait_for_headers()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        super().on_headers_complete()

    def _wait_for_headers(self) -> None:
        self._in_headers, self._size = True, 0
        self._timer = self.loop.call_later(HEADERS_S, self._refuse, 408, "Request Timeout")

    def _stop_waiting(self) -> None:
        self._in_headers = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, phrase: str) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            headers = "content-length: 0\r\nconnection: close\r\n\r\n"
            self.transport.write(f"HTTP/1.1 {status} {phrase}\r\n{headers}".encode())
            self.transport.close()
