"""What an answer said in the legs before one of them: for protocols that go on from what their clients know."""

from __future__ import annotations

from ..streams.streams import Streams
from ..wire.ui_chunks import encode_chunk
from ..wire.unfold import unfold
from .transcript import StoredMessage, stream_name


def chunks_before(streams: Streams, answer: StoredMessage, leg: int) -> list[bytes] | None:
    """The chunks of the legs before ``leg``, with their envelopes; None where they are not kept any more.

    Streams are kept for a day after their end.
    """
    chunks: list[bytes] = []
    for number in range(1, leg):
        stream = streams.find(stream_name(answer.id, number))
        if stream is None or not stream.closed:
            return None
        chunks += stream.entries()
    return chunks


def known_before(streams: Streams, answer: StoredMessage, leg: int) -> list[bytes]:
    """The same, for an encoder that is to know what came before. Where the chunks are gone, what the message has
    stands in for them: of an answer that is being made, that is what it had when its leg began."""
    chunks = chunks_before(streams, answer, leg)
    return [encode_chunk(chunk) for chunk in unfold(answer.message)] if chunks is None else chunks
