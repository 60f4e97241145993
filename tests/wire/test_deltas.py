"""Deltas that follow each other are joined, and nothing else is touched."""

from __future__ import annotations

from itertools import chain

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from perdure.wire.deltas import join_deltas
from perdure.wire.fold import MessageFold
from perdure.wire.ui_chunks import (
    Chunk,
    ReasoningDelta,
    ReasoningEnd,
    ReasoningStart,
    Start,
    StartStep,
    TextDelta,
    TextEnd,
    TextStart,
    decode_chunk,
    encode_chunk,
)


def joined(*chunks: Chunk) -> list[tuple[int, Chunk]]:
    """What becomes of the chunks, with their numbers."""
    return [(number, decode_chunk(data)) for number, data in join_deltas(map(encode_chunk, chunks))]


def test_neighbours_are_joined() -> None:
    """Under the number of the last; what stands between two keeps them apart."""
    assert joined(TextStart("t"), TextDelta("t", "a"), TextDelta("t", "b"), TextEnd("t"), TextDelta("t", "c")) == [
        (0, TextStart("t")),
        (2, TextDelta("t", "ab")),
        (3, TextEnd("t")),
        (4, TextDelta("t", "c")),
    ]
    assert joined() == []


def test_other_parts_and_providers_metadata_keep_apart() -> None:
    """Another id, another kind, or metadata that belongs to one delta."""
    with_metadata = TextDelta("t", "c", {"provider": {"key": 1}})
    assert joined(TextDelta("t", "a"), TextDelta("u", "b"), ReasoningDelta("u", "r"), with_metadata) == [
        (0, TextDelta("t", "a")),
        (1, TextDelta("u", "b")),
        (2, ReasoningDelta("u", "r")),
        (3, with_metadata),
    ]


words = st.lists(st.text(max_size=3), max_size=5)


@given(st.lists(st.tuples(st.booleans(), words), max_size=6))
def test_the_message_is_the_same(parts: list[tuple[bool, list[str]]]) -> None:
    """Folded, what is joined gives what was there before."""
    chunks: list[Chunk] = [Start("a1"), StartStep()]
    for number, (thought, pieces) in enumerate(parts):
        name = f"p{number}"
        if thought:
            deltas: list[Chunk] = [ReasoningDelta(name, piece) for piece in pieces]
            chunks += [ReasoningStart(name), *deltas, ReasoningEnd(name)]
        else:
            deltas = [TextDelta(name, piece) for piece in pieces]
            chunks += [TextStart(name), *deltas, TextEnd(name)]
    folds = MessageFold("a1"), MessageFold("a1")
    for fold, told in zip(folds, (chunks, [chunk for _number, chunk in joined(*chunks)]), strict=True):
        for chunk in told:
            fold.push(chunk)
    assert msgspec.to_builtins(folds[0].message()) == msgspec.to_builtins(folds[1].message())
    numbers = [number for number, _chunk in joined(*chunks)]
    assert numbers == sorted(set(numbers))
    assert set(chain([len(chunks) - 1], numbers)) <= set(range(len(chunks)))
