r"""How AG-UI events travel over HTTP so that a reader that lost its line can go on.

===========  ====================================  ===================================================
              an event                              the client
===========  ====================================  ===================================================
SSE          ``id: 7.0\ndata: {...}\n\n``           `fetchServerSentEvents`, `xhrServerSentEvents`
NDJSON       ``{"id":"7.0","chunk":{...}}\n``       `fetchHttpStream`, `xhrHttpStream`
===========  ====================================  ===================================================

A run's events come from a stream of chunks, and each chunk makes any number of them. The id ``7.1`` is the second
event of the seventh chunk; the same chunks always make the same events, so an id is good for ever, wherever
it is read. Who asks with an id is told what comes strictly after it; where that is nothing, the last event comes
again under a new id, since a client believes in no end that it has not seen in the same response. ``0.0`` is
`accepted`, which is said before there is any chunk: clients that join a run give up when
nothing comes within two seconds.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from ..errors import OffsetError, PerdureError
from .agui import AguiEncoder
from .agui_events import agui_event
from .json_text import encode_json
from .ui_chunks import Chunk, Start, decode_chunk

Framing = Literal["sse", "ndjson"]

KEEP_ALIVES: dict[Framing, bytes] = {"sse": b": keep-alive\n\n", "ndjson": b"\n"}
"""What may be sent in silence; clients skip it."""

CONTENT_TYPES: dict[Framing, str] = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}

_FRAMES: dict[Framing, bytes] = {"sse": b"id: %d.%d\ndata: %b\n\n", "ndjson": b'{"id":"%d.%d","chunk":%b}\n'}

_EVENT_ID = re.compile(r"([0-9]{1,12})\.([0-9]{1,6})")


class EventId(NamedTuple):
    """The place of an event: the chunk that made it, counted from 1, and which of its events it is."""

    chunk: int
    event: int

    def __str__(self) -> str:
        return f"{self.chunk}.{self.event}"


ACCEPTED = EventId(0, 0)


def parse_event_id(text: str) -> EventId:
    """The place that a client says it has come to.

    Raises:
        OffsetError: no event had this id.
    """
    match = _EVENT_ID.fullmatch(text)
    if match is None:
        raise OffsetError(f"no event has the id {text[:80]!r}")
    return EventId(int(match[1]), int(match[2]))


def accepted(framing: Framing) -> bytes:
    """The first event of a run that has been accepted."""
    return frame(agui_event("CUSTOM", name="run.accepted", value={}), ACCEPTED, framing)


def empty_run(thread_id: str, run_id: str, framing: Framing, after: EventId | None) -> bytes:
    """The whole of a run in which nothing is said: a message was taken in, and no answer comes of it here.

    ``after``: for a reader that has come to there; it is told again, in events that come after it.
    """
    run = {"threadId": thread_id, "runId": run_id}
    events = [
        agui_event("RUN_STARTED", **run),
        agui_event("RUN_FINISHED", **run, metadata={"tanstack": {"finishReason": "stop"}}),
    ]
    number = 1 if after is None else after.chunk + 1
    told = b"".join(frame(event, EventId(number, index), framing) for index, event in enumerate(events))
    return told if after is not None else accepted(framing) + told


def frame(event: bytes, event_id: EventId, framing: Framing) -> bytes:
    """One event as it is sent. It is compact JSON, so there is no line break in it."""
    return _FRAMES[framing] % (*event_id, event)


class RunFrames:
    """The events of a run as they are sent, made once for all who read it.

    ``encode`` makes a chunk's events; ``run_id`` is the run's name in them, which each reader may have in its own
    words. The first ``earlier`` chunks are not in the stream that the run is read from.
    """

    def __init__(
        self, encode: Callable[[bytes], list[bytes]], run_id: str, framing: Framing, *, earlier: int = 0
    ) -> None:
        self.earlier = earlier
        self._encode = encode
        self._run_id = _json_run_id(run_id)
        self._framing: Framing = framing
        self._frame = _FRAMES[framing]
        self._frames: list[list[bytes]] = []
        self._named: dict[int, list[int]] = {}
        self._last = b""

    @property
    def count(self) -> int:
        """How many chunks were taken in."""
        return len(self._frames)

    def extend(self, chunks: Sequence[bytes]) -> list[PerdureError]:
        """Take in the next chunks. One that cannot be told is left out; returns why."""
        problems = []
        for chunk in chunks:
            try:
                events = self._encode(chunk)
            except PerdureError as error:
                problems.append(error)
                events = []
            number = len(self._frames) + 1
            self._last = events[-1] if events else self._last
            for index, event in enumerate(events):
                if event.startswith(b'{"type":"RUN_'):
                    self._named.setdefault(number - 1, []).append(index)
            self._frames.append([self._frame % (number, index, event) for index, event in enumerate(events)])
        return problems

    def block(self, first: int, end: int, after: EventId, run_id: str) -> bytes:
        """What is sent of the chunks ``first`` (counted from 0) to ``end`` to a reader who has come to ``after``."""
        blocks: list[bytes] = []
        for position in range(max(first, after.chunk - 1), end):
            frames = self._frames[position]
            if position in self._named:
                frames = self._renamed(position, run_id)
            blocks.extend(frames[after.event + 1 :] if position == after.chunk - 1 else frames)
        return b"".join(blocks)

    def is_over(self, after: EventId) -> bool:
        """Whether nothing comes after that place, in a run that has ended."""
        return after >= (len(self._frames), len(self._frames[-1]) - 1) if self._frames else False

    def end_again(self, after: EventId, run_id: str) -> bytes:
        """The run's last event, as one that comes after that place."""
        event = self._last.replace(self._run_id, _json_run_id(run_id))
        return frame(event, EventId(max(after.chunk, len(self._frames)) + 1, 0), self._framing)

    def _renamed(self, position: int, run_id: str) -> list[bytes]:
        frames, theirs = list(self._frames[position]), _json_run_id(run_id)
        for index in self._named[position]:
            frames[index] = frames[index].replace(self._run_id, theirs)
        return frames


Encode: TypeAlias = Callable[[bytes | str | Chunk], list[bytes]]
"""From a chunk to its events; raises RemoteProtocolError."""


def leg_encoder(encoder: AguiEncoder, parts: Sequence[dict[str, Any]]) -> Encode:
    """Encodes one leg for a client that knows what came before it, as ``encoder`` does (`encode_earlier`).

    ``parts`` are the message's: what clients gave to calls of earlier legs is told at the leg's start.
    """
    encoder.pause()
    has_started = False

    def encode(chunk: bytes | str | Chunk) -> list[bytes]:
        nonlocal has_started
        events = encoder.encode(chunk)
        if not has_started:
            has_started = True
            events += encoder.tell_given(parts)
        return events

    return encode


def whole_encoder(encoder: AguiEncoder, earlier_count: int, parts: Sequence[dict[str, Any]]) -> Encode:
    """Encodes an answer from its beginning as one run: the first ``earlier_count`` chunks are of earlier legs."""
    position = 0

    def encode(chunk: bytes | str | Chunk) -> list[bytes]:
        nonlocal position
        position += 1
        if position > earlier_count + 1:
            return encoder.encode(chunk)
        if isinstance(chunk, bytes | str):
            chunk = decode_chunk(chunk)
        events = encoder.encode_earlier(chunk) if position <= earlier_count else encoder.encode(chunk)
        return events + encoder.tell_given(parts) if isinstance(chunk, Start) else events

    return encode


def _json_run_id(run_id: str) -> bytes:
    return b'"runId":' + encode_json(run_id)
