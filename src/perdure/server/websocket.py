"""WebSocket sessions: a client of an object over ASGI."""

from __future__ import annotations

import asyncio
import types
from collections import deque
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from ..errors import PerdureError
from ..objects.connections import Connection
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.room import CLIENT_ID_BYTES_MAX, RECONNECT, error_frame
from .accelerator import find_shortcut, runs_in_place
from .auth import Door

MESSAGES_PER_TURN = 64
"""Frames of one client that are taken before the loop's other work gets a turn."""

CLOSE_POLICY = 1008
CLOSE_TRY_LATER = 1013
CLOSE_RESTART = 1012
CLOSE_REASON_BYTES_MAX = 123


class AsgiTransport:
    """Writes frames to one client through ASGI's ``send``.

    ``send`` of a client that takes its bytes finishes without waiting, so it is run in place,
    with no task and no queue. When it does wait, the rest of the run becomes a task and later
    frames queue, up to ``buffer_bytes_max``; a client that is slower than that is closed and
    comes back with its offset. It never slows the others.
    """

    def __init__(self, send: Send, buffer_bytes_max: int) -> None:
        self._send = send
        self._buffer_bytes_max = buffer_bytes_max
        self._queue: deque[dict[str, Any]] = deque()
        self._queued_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._shortcut = find_shortcut(send)
        self._in_place = runs_in_place(send)
        self.overflowed = False

    def write(self, data: bytes, text: bool) -> None:
        if self._closed:
            return
        if self._task is None and self._shortcut is not None and self._shortcut.write(data, text):
            return
        event: dict[str, Any] = {"type": "websocket.send"}
        if text:
            event["text"] = data.decode()
        else:
            event["bytes"] = data
        if self._task is not None:
            self._queued_bytes += len(data)
            if self._queued_bytes > self._buffer_bytes_max:
                self.overflowed = True
                self._queue.clear()
                self.close(CLOSE_TRY_LATER, "too slow; reconnect and resume (connection_buffer_bytes_max)")
                return
            self._queue.append(event)
            return
        self._start(event)

    def close(self, code: int, reason: str) -> None:
        if self._closed:
            return
        event = {"type": "websocket.close", "code": code, "reason": close_reason(reason)}
        if code == CLOSE_RESTART and not self.overflowed:
            self.write(RECONNECT, True)
        self._closed = True
        if self._task is not None:
            self._queue.append(event)
        else:
            self._start(event)

    def gone(self) -> None:
        """The client is gone: drop what waits."""
        self._closed = True
        self._queue.clear()
        if self._task is not None:
            self._task.cancel()

    def _start(self, event: dict[str, Any]) -> None:
        running = self._send(event)
        if not self._in_place or not isinstance(running, Coroutine):
            self._task = asyncio.get_running_loop().create_task(self._drain_after(running))
            return
        try:
            waiting_for = running.send(None)
        except StopIteration:
            return
        except Exception:
            self._closed = True  # the client is gone; the session's `receive` says so, too
            return
        self._task = asyncio.get_running_loop().create_task(self._drain(running, waiting_for))

    async def _drain(self, running: Coroutine[Any, Any, None], waiting_for: Any) -> None:
        await self._drain_after(_resume(running, waiting_for))

    async def _drain_after(self, running: Awaitable[None]) -> None:
        """Finish a send that waits, then send what queued behind it."""
        try:
            await running
            while self._queue:
                event = self._queue.popleft()
                self._queued_bytes -= len(event.get("text") or event.get("bytes") or b"")
                await self._send(event)
        except Exception:
            self._closed = True
        finally:
            self._task = None


@types.coroutine
def _resume(running: Coroutine[Any, Any, None], waiting_for: Any) -> Generator[Any, Any, None]:
    """Go on with a coroutine that was started by hand and now waits."""
    while True:
        try:
            value = yield waiting_for
        except BaseException as error:
            try:
                waiting_for = running.throw(error)
            except StopIteration:
                return
        else:
            try:
                waiting_for = running.send(value)
            except StopIteration:
                return


async def serve_socket(
    runtime: Runtime,
    door: Door,
    object_id: ObjectId | PerdureError,
    scope: Scope,
    receive: Receive,
    send: Send,
    *,
    protocol: str = "",
) -> None:
    """Run one WebSocket client of an object until it leaves.

    ``object_id`` may be the error that its name caused: the client is told and closed. ``protocol`` is the
    connection's.
    """
    await receive()  # websocket.connect
    user = None
    try:
        if isinstance(object_id, PerdureError):
            raise object_id
        user = await door.admit(HTTPConnection(scope), object_id.name)
    except PerdureError as error:
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": _error_text(error)})
        await send({"type": "websocket.close", "code": CLOSE_POLICY, "reason": close_reason(str(error))})
        return
    await send({"type": "websocket.accept"})
    transport = AsgiTransport(send, runtime.limits.connection_buffer_bytes_max)
    query = dict(parse_qsl(scope["query_string"].decode("latin-1")))
    connection_id = query.pop("_pk", None)
    if not connection_id or runtime.slot(object_id).connections.get(connection_id) is not None:
        connection_id = runtime.new_id()  # a client's own id is its own only until another one brings it
    connection = Connection(
        connection_id,
        transport,
        user=user.name,
        query=query,
        protocol=protocol,
        attachment_bytes_max=runtime.limits.attachment_bytes_max,
    )
    code, reason = 1006, ""
    try:
        runtime.connect(object_id, connection)
    except PerdureError as error:
        transport.write(_error_text(error).encode(), True)
        transport.close(CLOSE_TRY_LATER, str(error))
        return
    try:
        taken = 0
        while True:
            event = await receive()
            if event["type"] == "websocket.disconnect":
                code, reason = event.get("code", 1006), event.get("reason") or ""
                return
            data = event.get("text")
            if data is None:
                data = event["bytes"]
            try:
                runtime.receive(object_id, connection, data)
            except PerdureError as error:
                transport.write(_error_text(error, _message_id(data)).encode(), True)
            taken += 1
            if taken % MESSAGES_PER_TURN == 0:
                await asyncio.sleep(0)
    finally:
        transport.gone()
        runtime.disconnect(object_id, connection, code, reason)


def close_reason(text: str) -> str:
    """As much of the text as a close frame holds (RFC 6455, 5.5: 125 bytes, two of them the code)."""
    return text.encode()[:CLOSE_REASON_BYTES_MAX].decode(errors="ignore")


def _error_text(error: PerdureError, message_id: str | None = None) -> str:
    return error_frame(error.code, str(error), error.retryable, id=message_id).decode()


class _Identified(msgspec.Struct):
    id: str | None = None


_identified = msgspec.json.Decoder(_Identified)


def _message_id(data: str | bytes) -> str | None:
    """The id in a frame that was refused unread: its sender keeps the message, and must not send it for ever."""
    try:
        found = _identified.decode(data).id
    except (ValueError, RecursionError):
        return None
    return found if found and len(found) <= CLIENT_ID_BYTES_MAX else None
