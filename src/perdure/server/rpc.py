"""RPC over HTTP: ``POST /rpc/{class}/{name}/{method}``.

The body is a JSON array (positional arguments) or object (named ones), or empty. Arguments are
checked against the method's annotations. The answer is ``{"result": ...}``; an async
generator's values stream as server-sent events, one JSON value each, then ``event: done``.
An error that comes after the stream began is ``event: error`` with the common error shape.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import msgspec
import structlog
from starlette.requests import Request
from starlette.types import ASGIApp

from ..errors import PerdureError, RemoteProtocolError
from ..objects.arguments import check_arguments
from ..objects.calls import StreamingCall
from ..objects.namespace import callable_of
from ..objects.runtime import Runtime
from ..wire.json_text import decode_json
from ..wire.sse import sse_event
from .auth import Door
from .replies import error_reply, json_reply, read_body
from .sse import EventStream

log = structlog.get_logger("perdure.server")

RPC_BODY_BYTES_MAX = 4 * 1024 * 1024
"""Largest body of a call."""

EVENT_HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}


class InternalError(PerdureError):
    """The object's method failed; the error has been logged."""

    code = "internal_error"


class Rpc:
    """The RPC route for all classes of the app."""

    def __init__(self, runtime: Runtime, door: Door) -> None:
        self._runtime = runtime
        self._door = door

    async def call(self, request: Request) -> ASGIApp:
        """Run one call."""
        object_id = self._runtime.object_id(request.path_params["class"], request.path_params["name"])
        user = await self._door.admit(request, object_id.name)
        function = callable_of(self._runtime.classes[object_id.class_name], request.path_params["method"])
        body = await read_body(request, "rpc_body_bytes_max", RPC_BODY_BYTES_MAX)
        arguments, named = check_arguments(function, _given(body), caller=user.name)
        result = self._runtime.call(object_id, function, arguments, named)
        if inspect.isasyncgenfunction(function):
            return EventStream(_events(result), EVENT_HEADERS)
        try:
            return json_reply({"result": await result})
        except PerdureError:
            raise
        except Exception as error:
            log.warning("call failed", object=object_id.key, method=function.__name__, exc_info=error)
            return error_reply(InternalError(f"{type(error).__name__}: {error}"))


async def _events(values: StreamingCall) -> AsyncIterator[bytes]:
    try:
        async with aclosing(values):  # a client that leaves ends the object's generator
            async for value in values:
                yield sse_event(msgspec.json.encode(value))
        yield sse_event(b"{}", event="done")
    except Exception as error:
        shown = error if isinstance(error, PerdureError) else InternalError(f"{type(error).__name__}: {error}")
        yield sse_event(msgspec.json.encode(shown.as_json()), event="error")


def _given(body: bytes) -> list[Any] | dict[str, Any]:
    """The arguments in a body.

    Raises:
        RemoteProtocolError: it is no JSON array or object.
    """
    given = decode_json(body, "the body") if body.strip() else []
    if not isinstance(given, (list, dict)):
        raise RemoteProtocolError("the body is a JSON array of arguments or an object of named ones")
    return given
