"""One call of the endpoint, with its retries: an answer, or who is to blame for there being none.

TextTroubleError   the endpoint says no to this text (too long, refused): the text fails
TroubleError       retries are used up: the text fails; three such in a row, and it is down
DownError          nothing will be answered: the endpoint refuses, the budget is spent
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import anyio
import httpx2

from guardkit_judge.answer import Completion, read_completion
from guardkit_judge.budget import Budget, SpentError
from guardkit_judge.options import JudgeOptions
from guardkit_judge.prompt import most_tokens

#: Of a member without `timeout_ms`.
TIMEOUT_S = 60.0
#: A completion of one word is a few kilobytes; more is not read.
MAX_BYTES = 2**20
#: Failures in a row, of different texts, after which the endpoint is down.
STRIKES = 3
_TEXT_AT_FAULT = (400, 413, 422)
_AGAIN = (408, 425, 429)


class TextTroubleError(Exception):
    """The endpoint does not take this text."""


class TroubleError(Exception):
    """There was no answer, after every retry."""


class DownError(Exception):
    """There will be no answer to any text."""


class _AgainError(Exception):
    """A call that failed and may be tried again, after ``wait_s`` if the endpoint says so."""

    def __init__(self, reason: str, *, wait_s: float | None = None, refused: bool = False) -> None:
        super().__init__(reason)
        self.wait_s, self.refused = wait_s, refused


@dataclass
class Endpoint:
    """The endpoint of ``options``. ``down`` says why it is to be asked no more in this batch;
    ``strikes`` counts failures in a row."""

    options: JudgeOptions
    timeout_s: float
    headers: Mapping[str, str]
    budget: Budget
    key: str | None = None
    down: str | None = None
    strikes: int = 0
    _random: random.Random = field(default_factory=random.Random)

    def client(self) -> httpx2.AsyncClient:
        """Return a client for one batch. It follows no redirects."""
        limits = httpx2.Limits(max_connections=self.options.concurrency)
        # anyio keeps the time of a call as a whole: a read at a time, a slow drip never ends
        return httpx2.AsyncClient(timeout=None, limits=limits, headers=dict(self.headers))

    async def ask(self, client: httpx2.AsyncClient, request: Mapping[str, Any]) -> Completion:
        """Return the completion. Raises one of the errors of this module."""
        try:
            completion = await self._with_retries(client, request)
        except TextTroubleError:
            self.strikes = 0
            raise
        except (SpentError, DownError) as error:
            self.down = self.down or self._said(error)
            raise DownError(self.down) from error
        except TroubleError as error:
            self.strikes += 1
            if self.strikes >= STRIKES:
                self.down = self.down or f"{STRIKES} texts in a row had no answer: {error}"
            raise
        self.strikes = 0
        return completion

    async def _with_retries(
        self, client: httpx2.AsyncClient, request: Mapping[str, Any]
    ) -> Completion:
        content = json.dumps(request).encode()
        for attempt in range(self.options.retries + 1):
            if self.down is not None:
                raise DownError(self.down)
            try:
                return await self._once(client, content, most_tokens(request))
            except _AgainError as error:
                reason, last = self._said(error), attempt == self.options.retries
                if last and error.refused:
                    raise DownError(reason) from error
                if last:
                    tries = f" ({attempt + 1} tries)" if attempt else ""
                    raise TroubleError(f"{reason}{tries}") from error
                wait_s = error.wait_s
                if wait_s is None:  # spread, so that not all come back at once
                    wait_s = self.options.backoff_s * 2**attempt * self._random.uniform(0.5, 1.5)
                    wait_s = min(wait_s, self.options.max_wait_s)
                if wait_s > self.options.max_wait_s:
                    raise TroubleError(
                        f"{reason}, and asks to wait {wait_s:.0f} s, more than max_wait_s"
                    ) from error
                await anyio.sleep(wait_s)
        raise AssertionError("the last try ends above")

    async def _once(
        self, client: httpx2.AsyncClient, content: bytes, max_tokens: int
    ) -> Completion:
        charged = self.budget.reserve(len(content), max_tokens)
        try:
            with anyio.fail_after(self.timeout_s):
                status, headers, body = await self._post(client, content)
        except TimeoutError as error:
            raise _AgainError(f"no answer within {self.timeout_s:g} s") from error
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise _AgainError(f"cannot be reached: {error}", refused=True) from error
        except httpx2.TransportError as error:
            raise _AgainError(f"the connection broke: {error or type(error).__name__}") from error
        if status == 200:
            try:
                completion = read_completion(body)
            except ValueError as error:
                raise _AgainError(str(error)) from error
            self.budget.settle(charged, completion.usage)
            return completion
        said = f"answers {status}: {_message(body)}"
        if status in _TEXT_AT_FAULT:
            raise TextTroubleError(self._said(said))
        if status in _AGAIN or status >= 500:
            raise _AgainError(said, wait_s=_retry_after(headers))
        raise DownError(said)

    async def _post(
        self, client: httpx2.AsyncClient, content: bytes
    ) -> tuple[int, httpx2.Headers, bytes]:
        url = f"{self.options.endpoint}/chat/completions"
        headers = {"content-type": "application/json"}
        async with client.stream("POST", url, content=content, headers=headers) as response:
            body = b""
            async for piece in response.aiter_bytes():
                body += piece
                if len(body) > MAX_BYTES:
                    raise _AgainError(f"its answer is longer than {MAX_BYTES:,} bytes")
            return response.status_code, response.headers, body

    def _said(self, reason: object) -> str:
        """Return a reason without the key, which an endpoint may quote."""
        text = " ".join(str(reason).split())[:300]
        return text.replace(self.key, "***") if self.key else text


def _message(body: bytes) -> str:
    """Return what an error's body says, in short."""
    try:
        error = json.loads(body)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        said = body.decode("utf-8", "replace")
    return " ".join(str(said).split())[:200] or "without a word"


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Return the seconds that ``Retry-After`` asks to wait (RFC 9110, 10.2.3), None without it."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and len(value) < 10:
        return float(value)
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return max(0.0, (at - datetime.now(UTC)).total_seconds())
