"""TanStack AI's `fetchServerSentEvents` and `fetchHttpStream`: post a message, read the answer; go on; join; hydrate.

::

    POST /api/chat                          RunAgentInput -> the run's AG-UI events
         with Last-Event-ID                 the same run again, strictly after that event
    GET  /api/chat?offset=-1&runId=         the answer of a run, from its beginning
    GET  /api/chat?threadId=&limit=&before= {"messages", "activeRun", "interrupts", "page"}

Server-sent events, or lines of JSON where the address has ``format=ndjson`` (or the request accepts
``application/x-ndjson``). The thread is the room. A client that leaves stops nothing; a run that is posted again
is read again and never asked twice. A body ends cleanly only after the run has ended.

A run is one leg of an answer. Who *joins* gets the whole answer as one run: its client has thrown away what it
had of it. The run ids that `hydrate` gives out say the room as well (``answer@room``), since a client that
joins names nothing else. For a run id of the client's own the address must have ``threadId=``, or this server have
taken the run itself.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from weakref import WeakValueDictionary

import structlog
from starlette.requests import Request
from starlette.types import ASGIApp

from ..chat.asking import Asked, prepare_asked, take_asked
from ..chat.earlier import chunks_before, known_before
from ..chat.room import ChatRoom
from ..chat.runs import WHOLE, Run, Runs
from ..chat.transcript import StoredMessage, stream_name
from ..errors import RemoteProtocolError
from ..models.base import ToolSpec
from ..objects.cursor import StreamCursor
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.agui import AguiEncoder
from ..wire.agui_delivery import (
    ACCEPTED,
    CONTENT_TYPES,
    KEEP_ALIVES,
    EventId,
    Framing,
    RunFrames,
    accepted,
    empty_run,
    leg_encoder,
    parse_event_id,
    whole_encoder,
)
from ..wire.agui_messages import client_message
from ..wire.agui_run_input import RunInput, is_run_input, parse_run_input
from ..wire.messages import ChatMessage
from .aisdk import AiSdk, read_chat_body
from .auth import Door, User
from .replies import json_reply
from .sse import EventStream

log = structlog.get_logger("perdure.server")

HYDRATE_MESSAGES_MAX = 1_000
"""Messages in one page of a hydration."""

RUN_ROOMS_KEPT_MAX = 10_000
"""Runs whose rooms this server remembers, for clients that join by a run id alone."""

FIRST_READ_BYTES = 32 * 1024
"""Bytes of a stream's chunks that are encoded at a time: a long answer must not hold up other rooms."""

ENCODED_AT_ONCE = 500
"""Chunks of earlier legs that are encoded at a time."""

HEADERS = {"cache-control": "no-cache", "connection": "keep-alive", "x-accel-buffering": "no"}

_ROOM_MARK = "@"


class ChatPosts:
    """``POST /api/chat``, where clients of two kinds post: those of AG-UI name their run."""

    def __init__(self, door: Door, chat: AiSdk, tanstack: TanStack) -> None:
        self._door = door
        self._chat = chat
        self._tanstack = tanstack

    async def post(self, request: Request) -> ASGIApp:
        """Hand the request to whom it is for."""
        user = await self._door.admit(request)  # before the body: strangers cannot make us read
        body = await read_chat_body(request)
        if "x-run-id" in request.headers or is_run_input(body):
            return await self._tanstack.answer(request, user, body)
        return await self._chat.answer(request, user, body)


@dataclass(frozen=True, slots=True)
class RunSource:
    """What a reader of a run is told: the events of the leg's stream, for who knows what came ``earlier``.

    ``parts`` are those of the answer's message. ``whole``: also those of the earlier chunks, from the answer's
    beginning. Not ``live``: they are all of it, and ``asks`` says whether its questions are still open.
    """

    object_id: ObjectId
    answer_id: str
    leg: int
    earlier: tuple[bytes, ...] = ()
    parts: Sequence[dict[str, Any]] = ()
    whole: bool = False
    live: bool = True
    asks: bool = False


class TanStack:
    """The routes of TanStack AI's clients for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom]) -> None:
        self._runtime = runtime
        self._door = door
        self.room_class = room_class
        self._frames: WeakValueDictionary[tuple[Any, ...], RunFrames] = WeakValueDictionary()
        self._rooms: OrderedDict[str, str] = OrderedDict()

    # --- requests

    async def answer(self, request: Request, user: User, body: bytes) -> ASGIApp:
        """The run that an admitted user's request asks for.

        Raises:
            PerdureError: in many ways; nothing was done then.
        """
        framing = _framing(request)
        after = _after(request)
        parsed = parse_run_input(body, message_bytes_max=self._runtime.limits.message_bytes_max)
        object_id = self._runtime.object_id(self.room_class, parsed.thread_id)
        self._door.enter(user, object_id.name)
        source = await self.take(object_id, parsed, user, only_known=after is not None)
        return self._events(source, parsed.thread_id, parsed.run_id, after, framing)

    async def get(self, request: Request) -> ASGIApp:
        """``GET /api/chat``: join a run, or hydrate a thread."""
        run_id, thread_id = request.query_params.get("runId"), request.query_params.get("threadId")
        if run_id is not None:
            return await self._join(request, run_id, thread_id)
        if not thread_id:
            raise RemoteProtocolError("the address names neither a run (`runId`) nor a thread (`threadId`)")
        return await self._hydrate(request, thread_id)

    # --- a run

    async def take(
        self, object_id: ObjectId, parsed: RunInput, user: User, *, only_known: bool = False
    ) -> RunSource | None:
        """Do what an admitted user asks for, once; where to read what comes of it, if anything does.

        Raises:
            RemoteProtocolError: ``only_known``, and the room does not know the run; or it ended long ago.
            PerdureError: in many other ways; nothing was done then.
        """
        self._remember(parsed.run_id, object_id.name)
        tools = [ToolSpec(tool.name, tool.description, tool.parameters) for tool in parsed.tools]
        asked = Asked(parsed.run_id, parsed.messages, parsed.new_message, user.name, tools or None)

        async def work(instance: Instance) -> RunSource | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            if only_known and Runs(room.storage).find(parsed.run_id) is None:
                raise RemoteProtocolError(f"there is no run {parsed.run_id!r} to go on with")
            run = take_asked(room, await prepare_asked(room, asked))
            return None if run.answer_id is None else _source_of(room, object_id, run)

        return await self._runtime.run_in(object_id, work)

    async def _join(self, request: Request, run_id: str, thread_id: str | None) -> ASGIApp:
        framing = _framing(request)
        after = _after(request)
        user = await self._door.admit(request)
        source = await self.find(user, run_id, thread_id)
        return self._events(source, source.object_id.name, run_id, after, framing)

    async def find(self, user: User, run_id: str, thread_id: str | None, *, whole: bool = True) -> RunSource:
        """Where a run is read that an admitted user names: its answer from the beginning, or (not ``whole``) what the
        run itself tells.

        Raises:
            RemoteProtocolError: there is no such run, or it is not known in which thread.
            Forbidden: the user may not enter the room.
        """
        answer_id, _, room_name = run_id.partition(_ROOM_MARK)
        room_name = thread_id or room_name or self._rooms.get(run_id, "")
        if not room_name:
            raise RemoteProtocolError(f"there is no run {run_id[:80]!r}, or its address does not name the thread")
        object_id = self._runtime.object_id(self.room_class, room_name)
        self._door.enter(user, room_name)

        async def work(instance: Instance) -> RunSource:
            room = instance.object
            assert isinstance(room, ChatRoom)
            run = Runs(room.storage).find(run_id) or Run(answer_id, WHOLE)
            return _whole(room, object_id, run) if whole else _source_of(room, object_id, run)

        if not self._runtime.exists(object_id):
            raise RemoteProtocolError(f"there is no run {run_id[:80]!r}")
        return await self._runtime.run_in(object_id, work)

    def _remember(self, run_id: str, room: str) -> None:
        self._rooms[run_id] = room
        self._rooms.move_to_end(run_id)
        if len(self._rooms) > RUN_ROOMS_KEPT_MAX:
            self._rooms.popitem(last=False)

    # --- its events

    def _events(
        self, source: RunSource | None, thread_id: str, run_id: str, after: EventId | None, framing: Framing
    ) -> EventStream:
        if source is None:
            blocks = _once(empty_run(thread_id, run_id, framing, after))
        else:
            blocks = self.blocks(source, run_id, after, framing)
        headers = {"content-type": CONTENT_TYPES[framing], **HEADERS}
        return EventStream(blocks, headers, keep_alive=KEEP_ALIVES[framing])

    async def blocks(
        self, source: RunSource, run_id: str, after: EventId | None, framing: Framing
    ) -> AsyncGenerator[bytes, None]:
        """The run's events after that one (None: from `accepted` on), as they become durable, to its end.

        Raises:
            StreamNotFound, ObjectReset: the room cannot be read any more.
        """
        frames = await self._frames_of(source, framing)
        position = frames.earlier
        if after is None:
            after = ACCEPTED
            yield accepted(framing)
        if block := frames.block(0, position, after, run_id):
            yield block
        if not source.live:
            if frames.is_over(after):
                yield frames.end_again(after, run_id)
            return
        name = stream_name(source.answer_id, source.leg)
        async with StreamCursor(self._runtime, source.object_id, name) as cursor:
            while True:
                batch = await cursor.next(FIRST_READ_BYTES)
                end = position + len(batch.entries)
                _encode(frames, batch.entries[max(0, frames.count - position) :], source)
                if block := frames.block(position, end, after, run_id):
                    yield block
                position = end
                if batch.closed:
                    if frames.is_over(after):
                        yield frames.end_again(after, run_id)
                    return

    async def _frames_of(self, source: RunSource, framing: Framing) -> RunFrames:
        """The run's events, which all who read it at the same time share."""
        key = (source.object_id, source.answer_id, source.leg, source.whole, source.live, framing)
        frames = self._frames.get(key)
        if frames is None:
            run_id = source.answer_id if source.leg == 1 else f"{source.answer_id}.{source.leg}"
            encoder = AguiEncoder(source.object_id.name, run_id)
            if source.whole:
                told_before = len(source.earlier) if source.live else 0 if source.asks else len(source.earlier) - 1
                encode = whole_encoder(encoder, told_before, source.parts)
                frames = RunFrames(encode, run_id, framing, earlier=len(source.earlier))
            else:
                for number, chunk in enumerate(source.earlier, 1):
                    encoder.encode_earlier(chunk)
                    if number % ENCODED_AT_ONCE == 0:
                        await asyncio.sleep(0)
                frames = RunFrames(leg_encoder(encoder, source.parts), run_id, framing)
            # Another reader may have been first.
            frames = self._frames.setdefault(key, frames)
        while frames.count < frames.earlier:
            _encode(frames, source.earlier[frames.count : frames.count + ENCODED_AT_ONCE], source)
            await asyncio.sleep(0)
        return frames

    # --- a thread

    async def _hydrate(self, request: Request, thread_id: str) -> ASGIApp:
        object_id = self._runtime.object_id(self.room_class, thread_id)
        await self._door.admit(request, object_id.name)
        limit, before = _page_of(request)
        empty: dict[str, Any] = {"messages": [], "activeRun": None, "interrupts": None}
        if not self._runtime.exists(object_id):
            return json_reply({**empty, "page": {"truncated": False}})

        async def work(instance: Instance) -> dict[str, Any]:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return {**empty, **_hydration(room, limit, before)}

        return json_reply(await self._runtime.run_in(object_id, work))


def _source_of(room: ChatRoom, object_id: ObjectId, run: Run) -> RunSource:
    """What a run tells: a leg of an answer, or all of it."""
    if run.leg == WHOLE or run.answer_id is None:
        return _whole(room, object_id, run)
    if room.streams.find(stream_name(run.answer_id, run.leg)) is None:
        raise RemoteProtocolError("this run ended long ago: its answer is in the messages")
    answer = room.transcript.find(run.answer_id)
    earlier = [] if answer is None else known_before(room.streams, answer, run.leg)
    parts = [] if answer is None else answer.message.parts
    return RunSource(object_id, run.answer_id, run.leg, tuple(earlier), parts)


def _whole(room: ChatRoom, object_id: ObjectId, run: Run) -> RunSource:
    """The answer of a run, from its beginning to the end of its newest leg."""
    answer = room.transcript.find(run.answer_id) if run.answer_id is not None else None
    answer_id, leg = (run.answer_id or "", 1) if answer is None else (answer.id, answer.leg)
    is_there = room.streams.find(stream_name(answer_id, leg)) is not None
    if answer is None:  # its turn has not begun, or it was removed
        if not is_there:
            raise RemoteProtocolError("there is no answer of this run")
        return RunSource(object_id, answer_id, leg, whole=True)
    earlier = chunks_before(room.streams, answer, leg) if is_there else None
    if earlier is not None:
        return RunSource(object_id, answer_id, leg, tuple(earlier), answer.message.parts, whole=True)
    replay = room.replay(answer_id)
    if replay is None:
        raise RemoteProtocolError("there is no answer of this run")
    asks = answer.status == "waiting"
    live = replay.stream is not None
    return RunSource(object_id, answer_id, leg, replay.prefix, whole=True, live=live, asks=asks)


def _hydration(room: ChatRoom, limit: int, before: str | None) -> dict[str, Any]:
    """The newest messages of a room, and the run that is under way.

    The answer that is being given comes last: a client that joins its run drops the last message.
    """
    before_seq = None
    if before is not None:
        oldest = room.transcript.find(before)
        if oldest is None:
            raise RemoteProtocolError(f"there is no message {before[:80]!r}")
        before_seq = oldest.seq
    stored = room.transcript.newest(limit + 1, before_seq)
    truncated, stored = len(stored) > limit, stored[-limit:]
    page: dict[str, Any] = {"truncated": truncated}
    if truncated:
        page["cursor"] = stored[0].id
    running = room.running
    shown = [_shown(item) for item in stored if running is None or item.id != running.answer.id]
    active = None
    if before is None and running is not None:
        shown.append(_shown(running.answer, running.fold.message()))
        active = running.answer.id
    elif before is None and (waiting := room.transcript.waiting()):
        active = waiting[0].answer_id
    run = None if active is None else {"runId": f"{active}{_ROOM_MARK}{room.name}"}
    return {"messages": shown, "activeRun": run, "page": page}


def _shown(stored: StoredMessage, message: ChatMessage | None = None) -> dict[str, Any]:
    created = datetime.fromtimestamp(stored.created_ms / 1000, UTC).isoformat(timespec="milliseconds")
    return {**client_message(message or stored.message), "createdAt": created.replace("+00:00", "Z")}


def _encode(frames: RunFrames, chunks: tuple[bytes, ...] | list[bytes], source: RunSource) -> None:
    for problem in frames.extend(chunks):
        log.error("chunk left out of a run", room=source.object_id.name, error=str(problem))


async def _once(block: bytes) -> AsyncIterator[bytes]:
    yield block


def _framing(request: Request) -> Framing:
    named = request.query_params.get("format")
    if named is None:
        return "ndjson" if CONTENT_TYPES["ndjson"] in request.headers.get("accept", "") else "sse"
    if named not in ("sse", "ndjson"):
        raise RemoteProtocolError("format is sse or ndjson")
    return "sse" if named == "sse" else "ndjson"


def _after(request: Request) -> EventId | None:
    """The event after which a reader goes on; None for one that begins."""
    given = request.headers.get("last-event-id") or request.query_params.get("offset")
    return None if given in (None, "-1") else parse_event_id(str(given))


def _page_of(request: Request) -> tuple[int, str | None]:
    limit = request.query_params.get("limit", str(HYDRATE_MESSAGES_MAX))
    if not re.fullmatch("[0-9]{1,4}", limit) or not 0 < int(limit) <= HYDRATE_MESSAGES_MAX:
        raise RemoteProtocolError(f"limit is a number from 1 to {HYDRATE_MESSAGES_MAX}")
    return int(limit), request.query_params.get("before") or None
