"""Streams made for one reader's needs: several legs of an answer in one, for clients that read a single stream.

An answer has a stream for each of its legs. A Durable Streams client that comes back in a later leg, or with results
that another tab has given already, needs something else: earlier legs first, or a beginning left out. For it a
stream is made in the room, with that beginning, and what the leg's stream gets from then on follows in the same
commits. Its name says what it is made of, so that a room that was restarted can go on with it::

    turns/{answer}.told{leg}-{length}-{skip}-{mark}    ``length`` entries of its own, then those of the leg's stream
                                                       from entry ``skip`` on; ``mark`` tells it from others

It is closed with the leg, and deleted as the leg's own stream is.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from typing import NamedTuple
from weakref import WeakKeyDictionary

from ..chat.listener import RoomListener
from ..chat.room import ChatRoom
from ..chat.transcript import StoredMessage, stream_name
from ..chat.turn import Outcome, Turn
from ..streams.stream import Stream
from ..values import format_offset
from ..wire.ui_chunks import Chunk
from .answers import AnswerSource

_NAME = re.compile(r"turns/(?P<answer>.+)\.told(?P<leg>\d+)-(?P<length>\d+)-(?P<skip>\d+)-[0-9a-f]{16}")


class _Origin(NamedTuple):
    """What a stream is made of."""

    answer_id: str
    leg: int
    length: int
    skip: int


_feeders: WeakKeyDictionary[ChatRoom, _Feeder] = WeakKeyDictionary()


def stream_for(room: ChatRoom, source: AnswerSource) -> str:
    """The name of a stream with what the source tells; the leg's own where that is it. Inside the room."""
    if source.is_stream:
        assert source.stream is not None
        return source.stream
    leg = room.leg_of(source.answer_id)
    mark = blake2b(b"\n".join(source.prefix), digest_size=8).hexdigest()
    name = f"{stream_name(source.answer_id or 'nobody')}.told{leg}-{len(source.prefix)}-{source.skip}-{mark}"
    stream = room.streams.create(name)
    if source.prefix and not stream.position:
        stream.append(*source.prefix)
    if source.stream is None:
        if not stream.closed:
            stream.close()
    else:
        feed(room, name)
    return name


def feed(room: ChatRoom, name: str) -> None:
    """Bring a stream of this kind up to date with its leg's, and keep it so; nothing for other names."""
    match = _NAME.fullmatch(name)
    stream = room.streams.find(name) if match is not None else None
    if match is None or stream is None or stream.closed:
        return
    origin = _Origin(match["answer"], int(match["leg"]), int(match["length"]), int(match["skip"]))
    feeder = _feeders.get(room)
    if feeder is None:
        feeder = _feeders[room] = _Feeder(room)
        room.add_listener(feeder)
    feeder.catch_up(stream, origin)


class _Feeder(RoomListener):
    """Appends to the streams of one room what their legs' streams get."""

    def __init__(self, room: ChatRoom) -> None:
        self._streams = room.streams
        self._fed: dict[str, tuple[_Origin, Stream]] = {}

    def catch_up(self, stream: Stream, origin: _Origin) -> None:
        """Append what the stream lacks; go on with it until its leg ends."""
        leg = self._streams.find(stream_name(origin.answer_id, origin.leg))
        if leg is not None:
            batch = leg.read(format_offset(origin.skip + stream.position - origin.length))
            while batch.entries:
                stream.append(*batch.entries)
                batch = leg.read(batch.next_offset)
        if leg is None or leg.closed:  # None: it is not kept any more
            stream.close()
            self._fed.pop(stream.name, None)
        else:
            self._fed[stream.name] = (origin, stream)

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        for _, stream in self._of(turn):
            stream.append(data)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        for origin, stream in self._of(turn):
            self.catch_up(stream, origin)

    def on_removed(self, removed: list[StoredMessage]) -> None:
        for origin, stream in list(self._fed.values()):  # a leg that had not begun has ended then
            self.catch_up(stream, origin)

    def _of(self, turn: Turn) -> list[tuple[_Origin, Stream]]:
        turn_leg = (turn.answer.id, turn.leg)
        return [held for held in self._fed.values() if (held[0].answer_id, held[0].leg) == turn_leg]
