"""Answers that all HTTP surfaces share."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from ..errors import LimitExceeded, PerdureError

RETRY_AFTER_S = 1
"""What a client is told to wait after an error that may pass."""


def json_reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON body; Structs and all that msgspec knows are welcome."""
    return Response(msgspec.json.encode(value), status, headers, "application/json")


def error_reply(error: PerdureError) -> Response:
    """An error in the one shape that all surfaces share."""
    headers = {"retry-after": str(RETRY_AFTER_S)} if error.retryable else None
    return json_reply(error.as_json(), error.status, headers)


async def read_body(request: Request, limit: str, bytes_max: int) -> bytes:
    """The request's body.

    Raises:
        LimitExceeded: it is larger than ``bytes_max``; no more than that is read.
    """
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > bytes_max:
        raise LimitExceeded(limit, int(announced), bytes_max)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > bytes_max:
            raise LimitExceeded(limit, len(body), bytes_max)
    return bytes(body)
