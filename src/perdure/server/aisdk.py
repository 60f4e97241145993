"""AI SDK ``useChat``: post a message, read the answer; resume; stop.

::

    POST /api/chat               {id, messages, trigger, messageId}   -> SSE of the turn's chunks
    GET  /api/chat/{id}/stream   -> the running turn from its start chunk, or 204
    POST /api/chat/{id}/stop     -> {"success": true}
    GET  /api/chat/{id}/messages -> [UIMessage, ...]

A client that leaves stops nothing. A body ends cleanly only after a terminal chunk.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.room import ChatRoom, Submitted
from ..chat.transcript import stream_name
from ..errors import BadArguments, RemoteProtocolError
from ..objects.cursor import StreamCursor
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.messages import ChatMessage
from ..wire.sse import DONE, sse_event
from ..wire.ui_requests import ChatRequest, parse_chat_request
from .auth import Door, User
from .replies import json_reply, read_body
from .sse import EventStream
from .streams.turn_urls import TurnUrls

CHAT_BODY_BYTES_MAX = 32 * 1024 * 1024
"""Largest request body: clients send their whole list of messages with each."""

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "x-vercel-ai-ui-message-stream": "v1",
    "x-accel-buffering": "no",
}


class AiSdk:
    """The routes of AI SDK clients for one class of rooms."""

    def __init__(
        self, runtime: Runtime, door: Door, room_class: type[ChatRoom], turn_urls: TurnUrls | None = None
    ) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
        self._turn_urls = turn_urls

    async def post(self, request: Request) -> ASGIApp:
        """``POST /api/chat``."""
        return self._answer(request, *await self.submit(request))

    def _answer(self, request: Request, object_id: ObjectId, answer_id: str) -> EventStream:
        if self._turn_urls is None:
            return self._events(object_id, answer_id)
        # Both ways at once: `useChat` reads the body, the Durable Streams transport goes where Location
        # says, never reads the body, and would hold the connection until the turn's end.
        url, mark, came = self._turn_urls.await_reader(self._turn_urls.turn_url(request, object_id.name, answer_id))
        headers = {**HEADERS, "location": url, "access-control-expose-headers": "Location"}
        return EventStream(self._blocks_until(object_id, answer_id, mark, came), headers)

    async def submit(self, request: Request) -> tuple[ObjectId, str]:
        """Do what the request asks for; the room and the id of the answer that comes of it.

        Raises:
            PerdureError: in many ways; nothing was done then.
        """
        user = await self._door.admit(request)  # before the body: strangers cannot make us read
        body = await read_body(request, "chat_body_bytes_max", CHAT_BODY_BYTES_MAX)
        parsed = parse_chat_request(body, message_bytes_max=self._runtime.limits.message_bytes_max)
        object_id = self._runtime.object_id(self._class, parsed.chat_id)
        self._door.enter(user, object_id.name)
        submitted = await self.take(parsed, user)
        if submitted is None or submitted.answer_id is None:
            raise BadArguments("there is nothing to answer in this room")
        return object_id, submitted.answer_id

    async def take(self, request: ChatRequest, user: User) -> Submitted | None:
        """Do what an admitted user's request asks for."""
        object_id = self._runtime.object_id(self._class, request.chat_id)

        async def work(instance: Instance) -> Submitted | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return _take(room, request, user)

        return await self._runtime.run_in(object_id, work)

    async def resume(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/stream``."""
        object_id, answer_id = await self.running(request)
        return Response(status_code=204) if answer_id is None else self._answer(request, object_id, answer_id)

    async def running(self, request: Request) -> tuple[ObjectId, str | None]:
        """The room that a request's address names, and the id of the answer that can be resumed there."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        if not self._runtime.exists(object_id):
            return object_id, None

        async def find(instance: Instance) -> str | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return room.resumable_answer

        return object_id, await self._runtime.run_in(object_id, find)

    async def stop(self, request: Request) -> Response:
        """``POST /api/chat/{id}/stop``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        stopped = self._runtime.exists(object_id) and await self._runtime.get(self._class, object_id.name).stop()
        return json_reply({"success": True, "stopped": bool(stopped)})

    async def messages(self, request: Request) -> Response:
        """``GET /api/chat/{id}/messages?limit=&before=``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        limit = request.query_params.get("limit", "100")
        if not re.fullmatch("[0-9]{1,4}", limit) or not 0 < int(limit) <= 1_000:
            raise RemoteProtocolError("limit is a number from 1 to 1000")
        if not self._runtime.exists(object_id):
            return json_reply([])
        stub = self._runtime.get(self._class, object_id.name)
        messages: list[ChatMessage] = await stub.messages(int(limit), request.query_params.get("before"))
        return json_reply(messages)

    def _events(self, object_id: ObjectId, answer_id: str) -> EventStream:
        return EventStream(self._blocks(object_id, answer_id), HEADERS)

    async def _blocks_until(
        self, object_id: ObjectId, answer_id: str, mark: str, came: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """The answer's events; they end, too, when it is read elsewhere."""
        assert self._turn_urls is not None
        waiting = asyncio.ensure_future(came.wait())
        try:
            async with aclosing(self._blocks(object_id, answer_id)) as blocks:
                while True:
                    block = asyncio.ensure_future(anext(blocks, b""))
                    await asyncio.wait({block, waiting}, return_when=asyncio.FIRST_COMPLETED)
                    if not block.done():
                        block.cancel()
                        await asyncio.gather(block, return_exceptions=True)
                        return
                    if not block.result():
                        return
                    yield block.result()
        finally:
            waiting.cancel()
            self._turn_urls.forget_reader(mark)

    async def _blocks(self, object_id: ObjectId, answer_id: str) -> AsyncGenerator[bytes, None]:
        async with StreamCursor(self._runtime, object_id, stream_name(answer_id)) as cursor:
            while True:
                batch = await cursor.next()
                events = [sse_event(entry) for entry in batch.entries]
                if batch.closed:
                    events.append(DONE)
                yield b"".join(events)
                if batch.closed:
                    return


def _take(room: ChatRoom, request: ChatRequest, user: User) -> Submitted | None:
    """Do what a request asks for: submit, edit or regenerate."""
    if request.trigger == "regenerate-message":
        return room.regenerate(request.message_id)
    message = request.new_message
    if message is None:
        raise BadArguments("the request holds no new user message")
    if user.name is not None:
        message = ChatMessage(
            message.id, message.role, message.parts, {**(message.metadata or {}), "user": user.name}
        )
    if not message.id:
        message = ChatMessage(room.context.new_id(), message.role, message.parts, message.metadata)
    if request.message_id is not None and request.message_id == message.id:
        return room.edit(message)
    return room.submit_message(message)
