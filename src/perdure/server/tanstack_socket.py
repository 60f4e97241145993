"""TanStack AI's `webSocket`: runs over one socket, and their events as frames.

::

    WS /api/chat/runs                         client: RunAgentInput | {"type": "abort", "runId"}
                                              server: {"id", "chunk"} for each event of its runs
    WS /api/chat/runs?runId=&offset=          server: the rest of a run, or (offset -1) its answer from the beginning;
                                              closed with 1000 at its end

The thread is the room. Unlike over HTTP, `stop()` of the client reaches the server here: ``abort`` ends the answer
for everyone. A socket that is lost stops nothing. A run that is refused ends with RUN_ERROR, in words.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import Any

import structlog
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from ..errors import LimitExceeded, Overloaded, PerdureError, RemoteProtocolError
from ..objects.runtime import Runtime
from ..wire.agui_delivery import EventId, empty_run, parse_event_id
from ..wire.agui_events import agui_event
from ..wire.agui_run_input import RunInput, parse_run_input
from ..wire.json_text import decode_json
from .aisdk import CHAT_BODY_BYTES_MAX, AiSdk
from .auth import Door, User
from .tanstack import RunSource, TanStack
from .websocket import CLOSE_POLICY, CLOSE_RESTART, close_reason

log = structlog.get_logger("perdure.server")

SOCKET_RUNS_MAX = 100
"""Runs of one socket that are told at a time."""

CLOSE_NORMAL = 1000


class TanStackSocket:
    """The route of `webSocket` for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, chat: AiSdk, tanstack: TanStack) -> None:
        self._runtime = runtime
        self._door = door
        self._chat = chat
        self._tanstack = tanstack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        # Browsers that offer subprotocols (some put a token there) break off where none is chosen.
        offered = scope.get("subprotocols") or [None]
        await send({"type": "websocket.accept", "subprotocol": offered[0]})
        connection = HTTPConnection(scope)
        client = _Client(self._runtime, self._door, self._chat, self._tanstack, send)
        try:
            user = await self._door.admit(connection)
            offset = connection.query_params.get("offset")
            if offset is None:
                await client.run(receive, user)
            else:
                run_id = connection.query_params.get("runId", "")
                await client.read(receive, user, run_id, connection.query_params.get("threadId"), offset)
        except PerdureError as error:
            await client.close(CLOSE_RESTART if self._runtime.draining else CLOSE_POLICY, str(error))


class _Client:
    """One socket, until it closes."""

    def __init__(self, runtime: Runtime, door: Door, chat: AiSdk, tanstack: TanStack, send: Send) -> None:
        self._runtime = runtime
        self._door = door
        self._chat = chat
        self._tanstack = tanstack
        self._send = send
        self._sources: dict[str, RunSource] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        self._closed = False

    async def read(self, receive: Receive, user: User, run_id: str, thread_id: str | None, offset: str) -> None:
        """Tell a run to its end, then close. The client has nothing to say here."""
        whole = offset == "-1"
        after = None if whole else parse_event_id(offset)
        source = await self._tanstack.find(user, run_id, thread_id, whole=whole)
        telling = asyncio.ensure_future(self._tell(source, run_id, after))
        leaving = asyncio.ensure_future(_until_gone(receive))
        await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        leaving.cancel()
        if telling.done():
            telling.result()
            await self.close(CLOSE_NORMAL, "")
        telling.cancel()
        await asyncio.gather(telling, leaving, return_exceptions=True)

    async def run(self, receive: Receive, user: User) -> None:
        """Take runs until the client leaves. Its leaving stops no answer."""
        try:
            while not self._closed:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    return
                data = event.get("text")
                try:
                    await self._take(event["bytes"] if data is None else data.encode(), user)
                except PerdureError as error:
                    await self.close(CLOSE_POLICY, str(error))
        except OSError:
            pass  # it has left while it was told something
        finally:
            self._closed = True
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, data: bytes, user: User) -> None:
        """Begin what a frame asks for. Raises PerdureError: it is no frame, the socket is of no use any more."""
        if len(data) > CHAT_BODY_BYTES_MAX:
            raise LimitExceeded("chat_body_bytes_max", len(data), CHAT_BODY_BYTES_MAX)
        frame = decode_json(data, "the frame")
        if not isinstance(frame, dict):
            raise RemoteProtocolError("the frame is not a JSON object")
        kind = frame.get("type")
        if kind == "abort":
            await self._abort(frame.get("runId"))
        elif kind != "ping":
            run_id = frame.get("runId")
            try:
                if len(self._tasks) >= SOCKET_RUNS_MAX:
                    raise Overloaded(f"this socket has {SOCKET_RUNS_MAX} runs already (socket_runs_max)")
                parsed = parse_run_input(data, message_bytes_max=self._runtime.limits.message_bytes_max)
                source = await self._begin(parsed, user)
            except PerdureError as error:
                await self._refuse(error, run_id, frame.get("threadId"))
                return
            self._spawn(parsed, source)

    async def _begin(self, parsed: RunInput, user: User) -> RunSource | None:
        object_id = self._runtime.object_id(self._tanstack.room_class, parsed.thread_id)
        self._door.enter(user, object_id.name)
        return await self._tanstack.take(object_id, parsed, user)

    def _spawn(self, parsed: RunInput, source: RunSource | None) -> None:
        if source is not None:
            self._sources[parsed.run_id] = source
        task = asyncio.get_running_loop().create_task(self._run(parsed, source), name="perdure:run-socket")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    async def _run(self, parsed: RunInput, source: RunSource | None) -> None:
        try:
            if source is None:
                await self._write(empty_run(parsed.thread_id, parsed.run_id, "ndjson", None))
            else:
                await self._tell(source, parsed.run_id, None)
        except PerdureError as error:
            # The client comes back for the rest.
            log.info("run cut", run=parsed.run_id, error=str(error))
            await self.close(CLOSE_RESTART, "this run cannot be told any further now")
        finally:
            if self._sources.get(parsed.run_id) is source:
                self._sources.pop(parsed.run_id, None)

    async def _tell(self, source: RunSource, run_id: str, after: EventId | None) -> None:
        async with aclosing(self._tanstack.blocks(source, run_id, after, "ndjson")) as blocks:
            async for block in blocks:
                await self._write(block)

    async def _abort(self, run_id: Any) -> None:
        source = self._sources.get(run_id) if isinstance(run_id, str) else None
        if source is not None:
            await self._chat.stop_answer(source.object_id, source.answer_id)

    async def _refuse(self, error: PerdureError, run_id: Any, thread_id: Any) -> None:
        run = {name: value for name, value in (("threadId", thread_id), ("runId", run_id)) if isinstance(value, str)}
        event = agui_event("RUN_ERROR", message=str(error), code=error.code, metadata={"tanstack": run})
        await self._write(event + b"\n")

    async def _write(self, block: bytes) -> None:
        """Send the lines of a block, a frame each; a client that takes them slowly is waited for."""
        for line in block.splitlines():
            async with self._writing:
                if self._closed:
                    return
                await self._send({"type": "websocket.send", "text": line.decode()})

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, once."""
        async with self._writing:
            if not self._closed:
                self._closed = True
                await self._send({"type": "websocket.close", "code": code, "reason": close_reason(reason)})

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A client that has left is no error; anything else that is unexpected is logged."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            log.error("run socket failed", exc_info=error)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass
