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

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.room import ChatRoom, Policy
from ..chat.submitted import Submitted
from ..errors import BadArguments, RemoteProtocolError
from ..models.base import ToolSpec
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.messages import ChatMessage
from ..wire.sse import DONE, sse_event
from ..wire.target import Target, parse_target
from ..wire.ui_requests import ChatRequest, client_tools, parse_chat_request
from .answers import AnswerSource, read_chunks, rest_of_answer, turn_of, whole_answer
from .auth import Door, User
from .replies import json_reply, read_body
from .sse import EventStream
from .streams.turn_urls import TurnUrls
from .told_streams import stream_for

CHAT_BODY_BYTES_MAX = 32 * 1024 * 1024
"""Largest request body: clients send their whole list of messages with each."""

HEADERS = {
    "content-type": "text/event-stream",
    "cache-control": "no-cache",
    "connection": "keep-alive",
    "x-vercel-ai-ui-message-stream": "v1",
    "x-accel-buffering": "no",
}


async def read_chat_body(request: Request) -> bytes:
    """The body of a chat request. Raises LimitExceeded (``chat_body_bytes_max``)."""
    return await read_body(request, "chat_body_bytes_max", CHAT_BODY_BYTES_MAX)


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
        user = await self._door.admit(request)  # before the body: strangers cannot make us read
        return await self.answer(request, user, await read_chat_body(request))

    async def answer(self, request: Request, user: User, body: bytes) -> ASGIApp:
        """What the body of an admitted user's request asks for. Raises PerdureError: nothing was done then."""
        target = self.target(request)
        return await self._answer(request, await self._begin(user, body), target)

    def target(self, request: HTTPConnection, default: Target | None = None) -> Target:
        """Whose chunks a request wants: ``?target=``, else the default, else the room's.

        Raises:
            BadArguments: there is no such target.
        """
        return parse_target(request.query_params.get("target"), default or self._class.target)

    async def _answer(self, request: Request, source: AnswerSource, target: Target) -> EventStream:
        if self._turn_urls is None:
            return EventStream(self._blocks(source, target), HEADERS)
        # Both ways at once: `useChat` reads the body, the Durable Streams transport goes where Location
        # says, never reads the body, and would hold the connection until the turn's end.
        stream = await self.told_stream(source)
        address = self._turn_urls.turn_url(request, source.object_id.name, turn_of(stream))
        url, mark, came = self._turn_urls.await_reader(address)
        headers = {**HEADERS, "location": url, "access-control-expose-headers": "Location"}
        return EventStream(self._blocks_until(source, target, mark, came), headers)

    async def told_stream(self, source: AnswerSource) -> str:
        """The name of a stream with what the source tells, for clients that read one stream from its start."""
        if source.is_stream:
            assert source.stream is not None
            return source.stream

        async def work(instance: Instance) -> str:
            assert isinstance(instance.object, ChatRoom)
            return stream_for(instance.object, source)

        return await self._runtime.run_in(source.object_id, work)

    async def submit(self, request: Request) -> AnswerSource:
        """Do what the request asks for; where the answer that comes of it is read.

        Raises:
            PerdureError: in many ways; nothing was done then.
        """
        user = await self._door.admit(request)
        return await self._begin(user, await read_chat_body(request))

    async def _begin(self, user: User, body: bytes) -> AnswerSource:
        parsed = parse_chat_request(body, message_bytes_max=self._runtime.limits.message_bytes_max)
        return await self.begin(parsed, user)

    async def begin(self, parsed: ChatRequest, user: User, policy: Policy | None = None) -> AnswerSource:
        """Do what a user's request asks for, if that user may enter the room; where the answer is read.

        ``policy`` is what a new message does that arrives during a turn; None: what the room says.

        Raises:
            PerdureError: in many ways; nothing was done then.
        """
        object_id = self._runtime.object_id(self._class, parsed.chat_id)
        self._door.enter(user, object_id.name)

        async def work(instance: Instance) -> AnswerSource | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            submitted = _take(room, await _prepared(room, parsed), user, policy)
            if submitted is None or submitted.answer_id is None:
                # Said to people only, where some messages are answered: an answer without a word, and no error.
                taken = submitted is not None and room.answers()
                return AnswerSource(object_id, "", None) if taken else None
            if parsed.returned is not None:
                return rest_of_answer(room, object_id, parsed.returned)
            return whole_answer(room, object_id, submitted.answer_id)

        source = await self._runtime.run_in(object_id, work)
        if source is None:
            what = "answer" if parsed.returned is None else "go on with"
            raise BadArguments(f"there is nothing to {what} in this room")
        return source

    async def resume(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/stream``."""
        target = self.target(request)
        source = await self.running(request)
        return Response(status_code=204) if source is None else await self._answer(request, source, target)

    async def running(self, request: Request) -> AnswerSource | None:
        """The answer that can be resumed in the room that a request's address names."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        return await self.resumable(object_id)

    async def resumable(self, object_id: ObjectId) -> AnswerSource | None:
        """The answer that can be resumed in a room, from its start chunk."""
        if not self._runtime.exists(object_id):
            return None

        async def find(instance: Instance) -> AnswerSource | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            answer_id = room.resumable_answer
            return None if answer_id is None else whole_answer(room, object_id, answer_id)

        return await self._runtime.run_in(object_id, find)

    async def stop_answer(self, object_id: ObjectId, answer_id: str) -> bool:
        """End this answer, if it is the one that is being made."""

        async def work(instance: Instance) -> bool:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return room.streaming_answer == answer_id and await room.stop()

        return await self._runtime.run_in(object_id, work)

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

    async def _blocks_until(
        self, source: AnswerSource, target: Target, mark: str, came: asyncio.Event
    ) -> AsyncIterator[bytes]:
        """The answer's events; they end, too, when it is read elsewhere."""
        assert self._turn_urls is not None
        waiting = asyncio.ensure_future(came.wait())
        try:
            async with aclosing(self._blocks(source, target)) as blocks:
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

    async def _blocks(self, source: AnswerSource, target: Target) -> AsyncGenerator[bytes, None]:
        async with aclosing(read_chunks(self._runtime, source, target)) as batches:
            async for chunks in batches:
                yield b"".join([sse_event(chunk) for chunk in chunks])
        yield DONE


async def _prepared(room: ChatRoom, request: ChatRequest) -> ChatRequest:
    """The request with the large files of its message in the room."""
    message = request.new_message
    if message is None or room.transcript.find(message.id) is not None:
        return request
    return msgspec.structs.replace(request, new_message=await room.files.prepare_message(message))


def _take(room: ChatRoom, request: ChatRequest, user: User, policy: Policy | None) -> Submitted | None:
    """Do what a request asks for: submit, edit, regenerate, or go on with results."""
    offered = client_tools(request.extra)
    tools = None if offered is None else [ToolSpec(tool.name, tool.description, tool.parameters) for tool in offered]
    message = request.new_message
    if message is None:
        if tools is not None:
            room.set_client_tools(tools)
        if request.returned is not None:
            return room.take_results(request.returned, user=user.name)
        return _regenerate(room, request)
    if user.name is not None:
        metadata = {**(message.metadata or {}), "user": user.name}
        message = ChatMessage(message.id, message.role, message.parts, metadata)
    if not message.id:
        message = ChatMessage(room.context.new_id(), message.role, message.parts, message.metadata)
    if request.message_id is not None and request.message_id == message.id:
        if tools is not None:
            room.set_client_tools(tools)
        return room.edit(message)
    return room.submit_message(message, policy=policy, client_tools=tools)


def _regenerate(room: ChatRoom, request: ChatRequest) -> Submitted | None:
    """Make an answer again. A client may name the question instead; one that was replaced already is joined."""
    named = None if request.message_id is None else room.transcript.find(request.message_id)
    if named is not None and named.role == "user":
        return room.regenerate(named.answer_id)
    running = room.running
    if named is None and request.message_id is not None and running is not None and request.messages:
        question = running.answer.answers
        if question == request.messages[-1].id:  # a retried request
            return Submitted(question, running.answer.id, known=True, leg=running.leg)
    return room.regenerate(request.message_id)
