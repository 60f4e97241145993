"""`WebSocketChatTransport` of the AI SDK (`ai` 7.0.135 and newer): many chats over one socket.

::

    WS /api/chat/ws    the frames of wire/chat_socket.py

Unlike a lost connection, ``abort`` (which `stop()` of `useChat` sends) is a stop: the answer ends for everyone.
React's strict mode and a second resume take a resume back only to ask again at once, so the abort of a resume
counts only when the client does not come back to that chat within a moment.

Who may come in is asked at the handshake. A page cannot give the handshake headers of its own: where it is not
enough, each request is asked again with the ``authorization`` among its own headers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog
from starlette.requests import HTTPConnection
from starlette.types import Receive, Scope, Send

from ..chat.room import ChatRoom
from ..errors import BadArguments, Overloaded, PerdureError, RemoteProtocolError, Unauthenticated
from ..objects.runtime import Runtime
from ..wire.chat_socket import AbortFrame, BadRequest, ChunkFrames, ResumeFrame, SendFrame, parse_socket_frame
from ..wire.target import Target
from .aisdk import AiSdk
from .answers import AnswerSource, read_chunks
from .auth import Door, User
from .websocket import CLOSE_POLICY, CLOSE_RESTART, close_reason

log = structlog.get_logger("perdure.server")

SOCKET_REQUESTS_MAX = 100
"""Requests of one socket that are answered at a time."""

RESUME_ABORT_WAIT_MS = 250
"""How long after the abort of a resume the client may still come back to the chat."""


class ChatSocket:
    """The route of `WebSocketChatTransport` for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom], chat: AiSdk) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
        self._chat = chat

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # websocket.connect
        # Browsers that offer subprotocols (some put a token there) break off where none is chosen.
        offered = scope.get("subprotocols") or [None]
        await send({"type": "websocket.accept", "subprotocol": offered[0]})
        connection = HTTPConnection(scope)
        user: User | None
        try:
            # Every client of this protocol is new enough for all chunks.
            target = self._chat.target(connection, "ai7")
            user = await self._door.admit(connection)
        except Unauthenticated:
            user = None
        except PerdureError as error:
            await send({"type": "websocket.close", "code": CLOSE_POLICY, "reason": close_reason(str(error))})
            return
        client = _Client(self._runtime, self._door, self._class, self._chat, scope, send, user, target)
        await client.run(receive)


@dataclass(eq=False, slots=True)
class _Request:
    """A request that is being answered. ``source`` is known when the room has taken it."""

    frame: SendFrame | ResumeFrame
    chat_id: str
    source: AnswerSource | None = None
    aborted: bool = False
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class _Client:
    """One socket, until it closes."""

    def __init__(
        self,
        runtime: Runtime,
        door: Door,
        room_class: type[ChatRoom],
        chat: AiSdk,
        scope: Scope,
        send: Send,
        user: User | None,
        target: Target,
    ) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
        self._chat = chat
        self._scope = scope
        self._send = send
        self._user = user
        self._target = target
        self._requests: dict[str, _Request] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._came_back: dict[str, asyncio.Event] = {}  # chats whose resume was taken back a moment ago
        self._writing = asyncio.Lock()
        self._closed = False

    async def run(self, receive: Receive) -> None:
        """Answer requests until the client leaves. Its leaving stops no answer."""
        try:
            while not self._closed:
                event = await receive()
                if event["type"] == "websocket.disconnect":
                    return
                data = event.get("text")
                try:
                    await self._take(event["bytes"] if data is None else data)
                except RemoteProtocolError as error:
                    await self._close(CLOSE_POLICY, str(error))
        except OSError:
            pass  # it has left while it was told something
        finally:
            self._closed = True
            for request in self._requests.values():
                assert request.task is not None
                if request.source is not None:
                    request.task.cancel()
            # What was asked for is done: a message is taken, a stop goes on.
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, data: bytes | str) -> None:
        """Begin what a frame asks for. A refusal is sent before the next frame is read, so that they cannot pile up.

        Raises:
            RemoteProtocolError: it is no frame; the socket is of no use any more.
        """
        frame = parse_socket_frame(data, message_bytes_max=self._runtime.limits.message_bytes_max)
        if isinstance(frame, AbortFrame):
            self._abort(frame.request_id)
            return
        if frame.request_id in self._requests:
            raise RemoteProtocolError("this `requestId` is being answered already")
        frames = ChunkFrames(frame.request_id)
        if isinstance(frame, BadRequest):
            await self._write(frames.error(str(frame.error)))
            return
        if len(self._requests) >= SOCKET_REQUESTS_MAX:
            error = Overloaded(f"this socket has {SOCKET_REQUESTS_MAX} requests already (socket_requests_max)")
            await self._write(frames.error(str(error)))
            return
        chat_id = frame.chat_id if isinstance(frame, ResumeFrame) else frame.request.chat_id
        if (waiting := self._came_back.pop(chat_id, None)) is not None:
            waiting.set()
        request = _Request(frame, chat_id)
        self._requests[frame.request_id] = request
        request.task = self._spawn(self._answer(request, frames))

    async def _answer(self, request: _Request, frames: ChunkFrames) -> None:
        try:
            request.source = await self._begin(request.frame)
            if request.aborted:
                await self._stop(request)
            elif self._closed:
                return
            elif request.source is None:
                await self._write(frames.no_active())
            else:
                await self._tell(request.source, frames)
        except PerdureError as error:
            if self._runtime.draining:
                await self._close(CLOSE_RESTART, "the server is shutting down")
            else:
                await self._write(frames.error(str(error)))
        except OSError:
            raise  # it has left
        except Exception:
            await self._write(frames.error("something went wrong on the server; it has been logged"))
            raise
        finally:
            if self._requests.get(request.frame.request_id) is request:
                del self._requests[request.frame.request_id]

    async def _begin(self, frame: SendFrame | ResumeFrame) -> AnswerSource | None:
        chat_id = frame.chat_id if isinstance(frame, ResumeFrame) else frame.request.chat_id
        object_id = self._runtime.object_id(self._class, chat_id)
        user = await self._user_of(frame, object_id.name)
        if isinstance(frame, ResumeFrame):
            return await self._chat.resumable(object_id)
        return await self._chat.begin(frame.request, user)

    async def _user_of(self, frame: SendFrame | ResumeFrame, room: str) -> User:
        """Raises Unauthenticated, Forbidden."""
        if self._user is not None:
            self._door.enter(self._user, room)
            return self._user
        authorization = frame.headers.get("authorization")
        if authorization is None:
            raise Unauthenticated("sign in to use this")
        try:
            value = authorization.encode("latin-1")
        except UnicodeError:
            raise BadArguments("`authorization` cannot be sent as a header") from None
        others = [(name, held) for name, held in self._scope["headers"] if name != b"authorization"]
        scope = {**self._scope, "headers": [*others, (b"authorization", value)]}
        return await self._door.admit(HTTPConnection(scope), room)

    async def _tell(self, source: AnswerSource, frames: ChunkFrames) -> None:
        await self._write(frames.start())
        async with aclosing(read_chunks(self._runtime, source, self._target)) as batches:
            async for chunks in batches:
                for chunk in chunks:
                    await self._write(frames.chunk(chunk))
        await self._write(frames.end())

    # --- aborts

    def _abort(self, request_id: str) -> None:
        request = self._requests.pop(request_id, None)
        if request is None:
            return  # it has ended
        request.aborted = True
        if isinstance(request.frame, ResumeFrame):  # here and now: the next frame may be the next resume
            self._came_back.setdefault(request.chat_id, asyncio.Event())
        if request.source is None:
            return  # the room has not taken it yet; `_answer` sees to it
        assert request.task is not None
        request.task.cancel()
        self._spawn(self._stop(request))

    async def _stop(self, request: _Request) -> None:
        """End the answer that the request is for, unless it was a resume and the client asks again at once."""
        if isinstance(request.frame, ResumeFrame):
            came_back = self._came_back.get(request.chat_id)
            if came_back is None:
                return
            try:
                async with asyncio.timeout(RESUME_ABORT_WAIT_MS / 1000):
                    await came_back.wait()
                return
            except TimeoutError:
                if self._came_back.get(request.chat_id) is came_back:
                    del self._came_back[request.chat_id]
        if request.source is not None:
            await self._chat.stop_answer(request.source.object_id, request.source.answer_id)

    # --- frames out

    async def _write(self, frame: bytes) -> None:
        """Send a frame; a client that takes its bytes slowly is waited for, its reading with it."""
        async with self._writing:
            if not self._closed:
                await self._send({"type": "websocket.send", "text": frame.decode()})

    async def _close(self, code: int, reason: str) -> None:
        async with self._writing:
            if not self._closed:
                self._closed = True
                await self._send({"type": "websocket.close", "code": code, "reason": close_reason(reason)})

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name="perdure:chat-socket")
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        """A client that has left is no error; anything else that is unexpected is logged."""
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, OSError):
            log.error("chat socket failed", exc_info=error)
