"""`App.durable_response`: an application's own generator as a durable stream.

The request may end, the client may leave and come back, on another device too: the stream is
written to its end. The counterpart of `toDurableStreamResponse` of `@durable-streams/aisdk-transport`
and `@durable-streams/tanstack-ai-transport`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Callable
from typing import Any, Literal
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from ..objects.runtime import Runtime
from ..stream_hosts.writers import StreamWriter
from ..wire.durable_streams import CreateRequest, is_json, split_json
from .replies import json_reply
from .streams.service import STREAM_ROOT, StreamService
from .streams.surface import CONTROL, STOP, check_stream_path

STREAM_KEPT_S = 24 * 3600
"""How long a generation's stream is kept after it was last used."""

Mode = Literal["immediate", "await"]

Protocol = Literal["ui", "agui"]
"""Whose chunks the source gives: AI SDK UI message chunks, or AG-UI events."""

_STOPPED: dict[Protocol, dict[str, Any]] = {
    "ui": {"type": "abort"},
    "agui": {"type": "RUN_ERROR", "message": "stopped", "code": "aborted"},
}

_tasks: set[asyncio.Task[str]] = set()


async def durable_response(
    runtime: Runtime,
    service: StreamService,
    source: AsyncIterable[Any],
    address_of: Callable[[str], str],
    *,
    stream: str | None,
    mode: Mode,
    content_type: str,
    protocol: Protocol | None,
    ttl_s: int | None,
) -> Response:
    """See `App.durable_response`."""
    path = check_stream_path(stream or f"generations/{runtime.new_id()}")
    json = is_json(content_type)
    chunks = protocol if json else None
    writer = StreamWriter(
        runtime,
        path,
        source,
        encode=_encode_json if json else _encode_bytes,
        failure=lambda text: None if chunks is None else msgspec.json.encode(_failure(chunks, text)),
        stopped=None if chunks is None else msgspec.json.encode(_STOPPED[chunks]),
        tell=service.tell,
    )
    await writer.begin(CreateRequest(content_type, ttl_s, None, False, None))
    task = asyncio.create_task(writer.run(), name=f"stream {path}")
    _tasks.add(task)
    task.add_done_callback(_ended)
    url = address_of(path)
    body = {"streamUrl": url, "stopUrl": _stop_address(url, path)}
    headers = {"location": url, "cache-control": "no-store", "access-control-expose-headers": "Location"}
    if mode == "immediate":
        return json_reply(body, 201, headers)
    final_offset = await asyncio.shield(task)
    return json_reply({**body, "finalOffset": final_offset}, 200, headers)


def _stop_address(url: str, path: str) -> str:
    """Where the stream that is read at ``url`` is stopped: below the same prefix, without a token."""
    prefix, found, _ = url.partition(f"{STREAM_ROOT}{quote(path)}")
    return f"{prefix if found else ''}{STREAM_ROOT}{CONTROL}/{STOP}/{quote(path)}"


def _failure(protocol: Protocol, text: str) -> dict[str, Any]:
    if protocol == "ui":
        return {"type": "error", "errorText": text}
    return {"type": "RUN_ERROR", "message": text}


def _encode_json(item: Any) -> bytes:
    if isinstance(item, bytes):
        (entry,) = split_json(b"[" + item + b"]")
        return entry
    return msgspec.json.encode(item)


def _encode_bytes(item: Any) -> bytes:
    return item.encode() if isinstance(item, str) else bytes(item)


def _ended(task: asyncio.Task[str]) -> None:
    _tasks.discard(task)
    if not task.cancelled():
        task.exception()  # it has been logged
