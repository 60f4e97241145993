"""Deltas of one part that follow each other, joined: what was said long ago need not come in the pieces of then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from .ui_chunks import ReasoningDelta, TextDelta, encode_chunk

_TEXT, _REASONING = b'{"type":"text-delta"', b'{"type":"reasoning-delta"'

_decode_delta: msgspec.json.Decoder[TextDelta | ReasoningDelta] = msgspec.json.Decoder(TextDelta | ReasoningDelta)


def join_deltas(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """The chunks, encoded as `encode_chunk` does it, with the number of each (from 0).

    Deltas that follow each other, of the same part and without provider's metadata, become one; its number is
    that of the last of them.
    """
    gathered: list[str] = []
    kind: type[TextDelta] | type[ReasoningDelta] = TextDelta
    part_id = ""
    number = -1
    for number, data in enumerate(chunks):
        delta = _decode_delta.decode(data) if data.startswith((_TEXT, _REASONING)) else None
        plain = delta is not None and delta.provider_metadata is None
        if gathered and not (plain and type(delta) is kind and delta is not None and delta.id == part_id):
            yield number - 1, encode_chunk(kind(id=part_id, delta="".join(gathered)))
            gathered.clear()
        if delta is not None and plain:
            kind, part_id = type(delta), delta.id
            gathered.append(delta.delta)
        else:
            yield number, data
    if gathered:
        yield number, encode_chunk(kind(id=part_id, delta="".join(gathered)))
