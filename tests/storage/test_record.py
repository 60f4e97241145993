"""The journal's record, byte for byte."""

from __future__ import annotations

import pytest

from perdure.errors import CorruptionError
from perdure.storage.record import (
    HEAD,
    Append,
    append_section,
    create_section,
    decode_record,
    pages_section,
)

APPEND = bytes.fromhex(
    "03 1f000000"  # kind 3, 31 bytes
    "0700000000000000"  # stream 7
    "0500000000000000"  # position 5
    "02000000"  # two entries
    "02000000 01000000"  # of 2 and 1 bytes
    "6869 21"  # "hi", "!"
)
CREATE = bytes.fromhex("01 10000000 000102030405060708090a0b0c0d0e0f")
FRAME = bytes.fromhex("00000002 00000003 1111111122222222 3333333344444444") + b"p" * 512
PAGES = bytes.fromhex("02 1c020000 00020000") + FRAME


def test_an_append_is_these_bytes() -> None:
    """Stream, position, count, lengths, entries; little-endian."""
    assert append_section(Append(7, 5, [b"hi", b"!"])) == APPEND


def test_a_creation_is_these_bytes() -> None:
    """The template's digest."""
    assert create_section(bytes(range(16))) == CREATE


def test_pages_are_these_bytes() -> None:
    """The page size, then SQLite's frames as they are."""
    assert pages_section(512, FRAME) == PAGES


def test_a_record_decodes_to_what_it_was_made_from() -> None:
    """All sections, in order."""
    record = decode_record(HEAD + CREATE + APPEND + PAGES, "here")
    assert HEAD == b"\x01"
    assert record.template == bytes(range(16))
    assert record.tails == [Append(7, 5, [b"hi", b"!"])]
    assert record.page_size == 512
    ((number, pages, data),) = record.pages
    assert (number, pages, bytes(data)) == (2, 3, b"p" * 512)


def test_an_entry_may_be_empty() -> None:
    """Zero bytes are an entry; zero entries are an append of nothing."""
    assert decode_record(HEAD + append_section(Append(1, 0, [b"", b"a"])), "here").tails == [
        Append(1, 0, [b"", b"a"])
    ]
    assert decode_record(HEAD + append_section(Append(1, 9, [])), "here").tails == [Append(1, 9, [])]


def test_every_truncation_within_a_section_is_corruption() -> None:
    """A record cut anywhere but between sections does not decode; the error names the record."""
    whole = HEAD + CREATE + APPEND + PAGES
    between = {1, 1 + len(CREATE), 1 + len(CREATE) + len(APPEND), len(whole)}
    for size in range(len(whole)):
        if size in between:
            decode_record(whole[:size], "here")
        else:
            with pytest.raises(CorruptionError, match=r"Room/a, record 5: the record does not decode"):
                decode_record(whole[:size], "Room/a, record 5")


@pytest.mark.parametrize("version", [0, 2, 3, 129, 255])
def test_every_other_version_is_corruption(version: int) -> None:
    """Only version 1 is known."""
    with pytest.raises(CorruptionError, match=f"unknown version {version}"):
        decode_record(bytes([version]) + APPEND, "here")


@pytest.mark.parametrize("bit", range(8))
def test_every_flip_of_a_kind_is_corruption(bit: int) -> None:
    """A flipped bit in a section's kind never decodes as another section."""
    with pytest.raises(CorruptionError):
        decode_record(HEAD + bytes([3 ^ 1 << bit]) + APPEND[1:], "here")


@pytest.mark.parametrize("at", range(1, 5))
@pytest.mark.parametrize("bit", range(8))
def test_every_flip_of_a_sections_length_is_corruption(at: int, bit: int) -> None:
    """A length that does not fit is found."""
    broken = bytearray(HEAD + APPEND)
    broken[1 + at] ^= 1 << bit
    with pytest.raises(CorruptionError):
        decode_record(bytes(broken), "here")


def test_lengths_that_do_not_add_up_are_corruption() -> None:
    """An append's entries fill its section exactly."""
    broken = bytearray(HEAD + APPEND)
    broken[1 + 5 + 20] += 1
    with pytest.raises(CorruptionError, match="do not add up"):
        decode_record(bytes(broken), "here")
