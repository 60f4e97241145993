"""An answer from its start, for a client that has none of it or cannot say how much."""

from __future__ import annotations

from dataclasses import dataclass

from ..streams.streams import Streams
from ..wire.ui_chunks import Abort, Chunk, Error, Finish, encode_chunk
from ..wire.unfold import unfold
from .transcript import StoredMessage


@dataclass(frozen=True, slots=True)
class Replay:
    """The chunks of ``prefix`` as JSON, then those of the room's ``stream`` from entry ``skip`` on.

    ``stream`` None: the prefix is all, and ends the answer.
    """

    prefix: tuple[bytes, ...]
    stream: str | None
    skip: int = 0


def replay_of(answer: StoredMessage, streams: Streams) -> Replay:
    """The whole answer. Its first leg is in its stream as it was said; later ones begin with what was said before,
    as the message tells it."""
    stream = streams.find(answer.stream_name)
    if answer.leg == 1 and stream is not None:
        return Replay((), answer.stream_name)
    chunks = unfold(answer.message)
    if answer.status == "streaming" and stream is not None:
        return Replay(_encoded(chunks), answer.stream_name, skip=1)
    return Replay(_encoded([*chunks, _end_of(answer)]), None)


def _end_of(answer: StoredMessage) -> Chunk:
    if answer.status == "failed":
        return Error(error_text=answer.error or "the answer failed")
    if answer.status == "aborted":
        return Abort()
    return Finish(finish_reason="tool-calls" if answer.status == "waiting" else "stop")


def _encoded(chunks: list[Chunk]) -> tuple[bytes, ...]:
    return tuple(map(encode_chunk, chunks))
