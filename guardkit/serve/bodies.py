"""Bodies of requests: strict JSON, and the rows that it is read as."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute
from msgspec.structs import replace

from guardkit.data.fields import row_of
from guardkit.data.files import BOM
from guardkit.serve.api_errors import ApiError
from guardkit.text.json_text import RepeatedKey, TooManyValues, is_name, parsed_once
from guardkit.types import Row

#: Texts or conversations of one request, and the texts in all of them.
MAX_INPUTS = 1024
MAX_TEXTS = 4096
#: A body this large is read in another thread, so that no other request waits for that.
_LARGE = 32 * 1024

P = ParamSpec("P")
T = TypeVar("T")


class _StrictRequest(Request):
    async def json(self) -> Any:
        body = await self.body()
        return await aside(self, parse_json, body)


class StrictRoute(APIRoute):
    """A route whose body is JSON as every parser reads it, or a 400."""

    def get_route_handler(self) -> Callable[[Request], Any]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            response: Response = await handler(_StrictRequest(request.scope, request.receive))
            return response

        return handle


async def aside(request: Request, do: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what ``do`` makes of a request's body: in another thread where that is large."""
    if request.state.size < _LARGE:
        return do(*args, **kwargs)
    return await asyncio.to_thread(do, *args, **kwargs)


def parse_json(body: bytes) -> Any:
    """Return the value of a body. ApiError where parsers disagree about what it says: NaN, a key
    given twice, half a surrogate pair, another encoding than UTF-8."""
    body = body.removeprefix(BOM)
    try:
        body.decode()
        msgspec.json.decode(body)
        return parsed_once(body)
    except UnicodeDecodeError as error:
        raise _not_json(f"not UTF-8 at byte {error.start}") from error
    except msgspec.DecodeError as error:
        raise _not_json(str(error)) from error
    except RepeatedKey as error:
        key = repr(error.key) if is_name(error.key) else "a key"
        raise _not_json(f"{key} is given more than once") from None
    except TooManyValues as error:
        raise _not_json(f"it {error}") from error
    except RecursionError as error:
        raise _not_json("nested too deeply") from error


def _not_json(why: str) -> ApiError:
    return ApiError(400, "invalid_json", f"the body is not JSON that can be read: {why}")


def rows_of(inputs: Sequence[str | Mapping[str, Any]], place: str = "inputs") -> list[Row]:
    """Return a row for each text or record. Raises ApiError where one cannot be read whole: an
    image, a part that is not known, no text at all."""
    if len(inputs) > MAX_INPUTS:
        message = f"{place}: {len(inputs)} of them; a request may have {MAX_INPUTS:,}"
        raise ApiError(400, "too_many_inputs", message, param=place)
    rows, texts = [], 0
    for i, item in enumerate(inputs):
        record = {"text": item} if isinstance(item, str) else item
        row = row_of(i, "input", record, lambda fields: fields, ())
        if row.error is not None:
            at = f"{place}[{i}]" if place else f"input {i}"
            why = row.error.partition(": ")[2]
            raise ApiError(400, "unreadable", f"{at}: {why}", param=at)
        rows.append(row)
        texts += len(row.texts)
    check_texts(texts)
    return rows


def check_texts(count: int) -> None:
    """Raise ApiError where a request has so many texts that others would wait long for it."""
    if count > MAX_TEXTS:
        message = f"{count:,} texts, each string of a conversation counted; {MAX_TEXTS:,} at most"
        raise ApiError(400, "too_many_texts", message)


def numbered(rows: Sequence[Row], request: str) -> list[Row]:
    """Return the rows with ids that no client chose: these reach the audit log."""
    return [replace(row, id=f"{request}/{i}") for i, row in enumerate(rows)]
