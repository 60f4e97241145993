"""Sessions in the style of Helix, for the AI SDK's `DefaultChatTransport` with the session in its address.

::

    POST /api/chat/{id}            {"message": "..."} or {"messages": [...]}  -> SSE of the answer's chunks
    GET  /api/chat/{id}            X-Resume-From-Sequence, X-Existing-Message-Id -> what comes after, or 204
    GET  /api/chat/{id}/snapshot   {"state", "messages", "streamSequence", "startSequence", "status", ...}

The last message wins: an answer that is being made is interrupted by the next message. Chunks are numbered through
all answers of a room, from 1; each event carries its number as ``id``. A snapshot's messages hold all chunks up to
``streamSequence``, the partial text of a running answer too; that answer begins after ``startSequence``.

Numbers are kept in the room under ``_helix``: which leg of which answer begins after which number. An answer that
nobody asks for in this style is given none.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.room import ChatRoom
from ..chat.transcript import StoredMessage, stream_name
from ..chat.turn import ANSWER_BYTES_MAX
from ..errors import RemoteProtocolError
from ..objects.cursor import StreamCursor
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.fold import MessageFold
from ..wire.helix import SessionStatus, parse_resume, reopened
from ..wire.sse import DONE, sse_event
from ..wire.target import Target, for_target
from ..wire.ui_chunks import Start, decode_chunk, encode_chunk
from ..wire.ui_requests import parse_chat_request
from .aisdk import CHAT_BODY_BYTES_MAX, HEADERS, AiSdk
from .answers import AnswerSource, read_chunks, whole_answer
from .auth import Door
from .replies import json_reply, read_body
from .sse import EventStream

SNAPSHOT_MESSAGES_MAX = 1_000
"""Messages of a snapshot: the newest."""

_KEY = "_helix"


class LegNumbers(msgspec.Struct, frozen=True):
    """The number before an answer's first chunk, and the one before its leg's first."""

    answer_id: str
    leg: int
    start: int
    leg_start: int


class Helix:
    """The routes of Helix-style sessions for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom], chat: AiSdk) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
        self._chat = chat

    async def post(self, request: Request) -> ASGIApp:
        """``POST /api/chat/{id}``."""
        target = self._chat.target(request)
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        user = await self._door.admit(request, object_id.name)
        body = await read_body(request, "chat_body_bytes_max", CHAT_BODY_BYTES_MAX)
        limit = self._runtime.limits.message_bytes_max
        parsed = parse_chat_request(body, chat_id=object_id.name, message_bytes_max=limit)
        return self._events(await self._chat.begin(parsed, user, policy="latest"), target)

    async def resume(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}``."""
        target = self._chat.target(request)
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        sequence, message_id = parse_resume(request.headers)
        if not self._runtime.exists(object_id):
            return Response(status_code=204)

        async def find(instance: Instance) -> AnswerSource | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return _source_after(room, object_id, sequence, message_id)

        source = await self._runtime.run_in(object_id, find)
        return Response(status_code=204) if source is None else self._events(source, target)

    async def snapshot(self, request: Request) -> Response:
        """``GET /api/chat/{id}/snapshot?limit=``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        limit = request.query_params.get("limit", "100")
        if not (limit.isascii() and limit.isdigit() and len(limit) <= 4 and 0 < int(limit) <= SNAPSHOT_MESSAGES_MAX):
            raise RemoteProtocolError(f"limit is a number from 1 to {SNAPSHOT_MESSAGES_MAX}")
        if not self._runtime.exists(object_id):
            empty = {"messages": [], "streamSequence": 0, "startSequence": 0, "status": "ended"}
            return json_reply({"state": {}, **empty, "timestamp": self._runtime.now_ms()})

        async def look(instance: Instance) -> bytes:
            room = instance.object
            assert isinstance(room, ChatRoom)
            messages = await room.messages(int(limit))
            # The sequence last: what comes while the messages are read is told again rather than never.
            start, sequence = _position(room)
            shown = {
                "state": room.state if room.state is not None else {},
                "messages": messages,
                "streamSequence": sequence,
                "startSequence": start,
                "status": _status(room),
                "timestamp": room.now_ms(),
            }
            return msgspec.json.encode(shown)

        body: bytes = await self._runtime.run_in(object_id, look)
        return Response(body, media_type="application/json", headers={"cache-control": "no-store"})

    def _events(self, source: AnswerSource, target: Target) -> EventStream:
        headers = {**HEADERS, "x-session-id": quote(source.object_id.name, safe="")}
        return EventStream(self._blocks(source, target), headers)

    async def _blocks(self, source: AnswerSource, target: Target) -> AsyncGenerator[bytes, None]:
        if source.stream is None or source.skip_steps:
            async for chunks in read_chunks(self._runtime, source, target):
                yield b"".join(map(sse_event, chunks))
            yield DONE
            return
        if prefix := for_target(source.prefix, target):
            yield b"".join(map(sse_event, prefix))
        position = 0
        before: int | None = None
        async with StreamCursor(self._runtime, source.object_id, source.stream) as cursor:
            while True:
                batch = await cursor.next()
                if position == 0:
                    before = await self._number_before(source)
                events = []
                for entry in batch.entries:
                    position += 1
                    if position > source.skip:
                        number = None if before is None else str(before + position)
                        events += [sse_event(shown, id=number) for shown in for_target([entry], target)]
                if events:
                    yield b"".join(events)
                if batch.closed:
                    yield DONE
                    return

    async def _number_before(self, source: AnswerSource) -> int | None:
        """The number before the first chunk of the stream; None: it has none."""

        async def look(instance: Instance) -> int | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            answer = room.transcript.find(source.answer_id)
            numbers = None if answer is None else _numbers_of(room, answer)
            if numbers is None or stream_name(numbers.answer_id, numbers.leg) != source.stream:
                return None
            return numbers.leg_start

        return await self._runtime.run_in(source.object_id, look)


# --- inside the room


def _numbers_of(room: ChatRoom, answer: StoredMessage) -> LegNumbers | None:
    """The numbers of the newest leg of an answer, decided now if they were not; None: later ones were decided."""
    known: LegNumbers | None = room.storage.get(_KEY, type=LegNumbers)
    if known is not None and known.answer_id == answer.id:
        if known.leg == answer.leg:
            return known
        start, leg_start = known.start, known.leg_start + _length(room, answer.id, known.leg, answer.leg)
    else:
        start = 0
        if known is not None:
            previous = room.transcript.find(known.answer_id)
            if previous is not None and previous.seq > answer.seq:
                return None
            newest = known.leg if previous is None else previous.leg
            start = known.leg_start + _length(room, known.answer_id, known.leg, newest + 1)
        leg_start = start + _length(room, answer.id, 1, answer.leg)
    numbers = LegNumbers(answer.id, answer.leg, start, leg_start)
    room.storage.put(_KEY, numbers)
    return numbers


def _length(room: ChatRoom, answer_id: str, first_leg: int, end_leg: int) -> int:
    """How many chunks these legs have; more than that where their streams are not kept any more."""
    streams = (room.streams.find(stream_name(answer_id, leg)) for leg in range(first_leg, end_leg))
    return sum(ANSWER_BYTES_MAX if stream is None else stream.position for stream in streams)


def _position(room: ChatRoom) -> tuple[int, int]:
    """The number before the current answer's first chunk, and the number of its last one so far."""
    running = room.running
    answer = running.answer if running is not None else room.transcript.last("assistant")
    numbers = None if answer is None else _numbers_of(room, answer)
    if answer is None or numbers is None:
        return 0, 0
    stream = room.streams.find(answer.stream_name)
    return numbers.start, numbers.leg_start + (0 if stream is None else stream.position)


def _status(room: ChatRoom) -> SessionStatus:
    if room.running is not None or room.transcript.count_waiting():
        return "active"
    last = room.transcript.last("assistant")
    if last is not None and last.status in ("waiting", "failed"):
        return "paused" if last.status == "waiting" else "failed"
    return "ended"


def _source_after(
    room: ChatRoom, object_id: ObjectId, sequence: int | None, message_id: str | None
) -> AnswerSource | None:
    """What comes after a chunk of the answer that can be resumed; all of it for who comes from another one."""
    answer_id = room.resumable_answer
    answer = None if answer_id is None else room.transcript.find(answer_id)
    if answer is None:
        return None
    other = message_id is not None and message_id != answer.id and room.transcript.find(message_id) is not None
    shown_id = answer.id if message_id is None or other else message_id
    numbers = None if other or sequence is None else _numbers_of(room, answer)
    whole = whole_answer(room, object_id, answer.id)
    if numbers is None or sequence is None or sequence <= numbers.start:
        return _renamed(whole, shown_id)
    stream = room.streams.find(answer.stream_name)
    if stream is None or sequence > numbers.leg_start + stream.position:
        return _renamed(whole, shown_id)  # a number of an answer that is gone
    if sequence == numbers.leg_start + stream.position and stream.closed:
        return None
    return _tail(room, object_id, answer, sequence - numbers.start, numbers, shown_id) or _renamed(whole, shown_id)


def _tail(
    room: ChatRoom, object_id: ObjectId, answer: StoredMessage, seen: int, numbers: LegNumbers, shown_id: str
) -> AnswerSource | None:
    """What comes after the first ``seen`` chunks of an answer; None where a leg's stream is not kept any more."""
    newest = numbers.leg_start - numbers.start  # chunks in the earlier legs
    held = MessageFold(answer.id)
    prefix: list[bytes] = []
    number = 0
    for leg in range(1, answer.leg + 1):
        stream = room.streams.find(stream_name(answer.id, leg))
        if stream is None:
            return None
        if leg > 1 and number < seen:
            held = MessageFold(answer.id, message=held.message())
        for position, entry in enumerate(stream.entries(), start=1):
            number += 1
            if number <= seen:
                held.push(decode_chunk(entry))
            elif leg == answer.leg:
                break
            elif 1 < position < stream.position:  # its `start` and its end are not the answer's
                prefix.append(entry)
    opening = [encode_chunk(chunk) for chunk in reopened(held, shown_id)]
    skip = max(1, seen - newest)
    return AnswerSource(object_id, answer.id, answer.stream_name, (*opening, *prefix), skip)


def _renamed(source: AnswerSource, message_id: str) -> AnswerSource:
    """The answer under another id."""
    if message_id == source.answer_id:
        return source
    start = encode_chunk(Start(message_id=message_id))
    if source.prefix:
        return replace(source, prefix=(start, *source.prefix[1:]))
    return replace(source, prefix=(start,), skip=1)
