"""What an answer said in the legs before one of them: for protocols that go on from what their clients know."""

from __future__ import annotations

from ..streams.streams import Streams
from ..wire.ui_chunks import encode_chunk
from ..wire.unfold import unfold
from .transcript import StoredMessage, stream_name


def chunks_before(streams: Streams, answer: StoredMessage, leg: int) -> list[bytes]:
    """The chunks of the legs before ``leg``, with their envelopes.

    Streams are kept for a day. Where one is gone, what the message has by now stands in for all of them; of an
    answer that is being made, that is what it had when its leg began.
    """
    chunks: list[bytes] = []
    for number in range(1, leg):
        stream = streams.find(stream_name(answer.id, number))
        if stream is None or not stream.closed:
            return [encode_chunk(chunk) for chunk in unfold(answer.message)]
        chunks += stream.entries()
    return chunks
