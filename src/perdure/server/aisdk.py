"""AI SDK ``useChat``: post a message, read the answer; resume; stop.

::

    POST /api/chat               {id, messages, trigger, messageId}   -> SSE of the turn's chunks
    GET  /api/chat/{id}/stream   -> the running turn from its start chunk, or 204
    POST /api/chat/{id}/stop     -> {"success": true}
    GET  /api/chat/{id}/messages -> [UIMessage, ...]

A client that leaves stops nothing. A body ends cleanly only after a terminal chunk.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

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

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom]) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class

    async def post(self, request: Request) -> ASGIApp:
        """``POST /api/chat``."""
        user = await self._door.admit(request)  # before the body: strangers cannot make us read
        body = await read_body(request, "chat_body_bytes_max", CHAT_BODY_BYTES_MAX)
        parsed = parse_chat_request(body, message_bytes_max=self._runtime.limits.message_bytes_max)
        object_id = self._runtime.object_id(self._class, parsed.chat_id)
        self._door.enter(user, object_id.name)

        async def take(instance: Instance) -> Submitted | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return _take(room, parsed, user)

        submitted = await self._runtime.run_in(object_id, take)
        if submitted is None or submitted.answer_id is None:
            raise BadArguments("there is nothing to answer in this room")
        return self._events(object_id, submitted.answer_id)

    async def resume(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/stream``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        if not self._runtime.exists(object_id):
            return Response(status_code=204)

        async def find(instance: Instance) -> str | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return room.resumable_answer

        answer_id = await self._runtime.run_in(object_id, find)
        return Response(status_code=204) if answer_id is None else self._events(object_id, answer_id)

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

    async def _blocks(self, object_id: ObjectId, answer_id: str) -> AsyncIterator[bytes]:
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
