"""The journal's record: everything that one commit of one object wrote.

Layout (all integers little-endian)::

    record   := u8 version = 1, section*
    section  := u8 kind, u32 length of payload, payload

    kind 1   create   the object's file begins as this template (see template.py)
             payload  16 bytes, the template's digest
    kind 2   pages    the commit's frames of the object's write-ahead log, as SQLite wrote them
             payload  u32 page size, (24-byte frame header, page)*
                      frame header, big-endian: u32 page number, u32 pages in the database
                      after the commit (0 in all frames but a commit's last), salts, checksums
    kind 3   append   entries added to a stream; not yet in the object's file
             payload  u64 stream number, u64 position of the first entry,
                      u32 count, count x u32 length, the entries' bytes
    kind 4   note     a small value that a stream keeps by key; not yet in the object's file
             payload  u64 stream number, u16 length of the key, the key in UTF-8, the value

Rules: sections apply in order; a record is applied whole or not at all (SQLite's own
checksums and commit mark guard the row that holds it). An unknown version or kind, or a
length that does not fit, is corruption: recovery refuses to start and names the record.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..errors import CorruptionError

VERSION = 1
KIND_CREATE = 1
KIND_PAGES = 2
KIND_APPEND = 3
KIND_NOTE = 4

FRAME_HEADER_BYTES = 24
DIGEST_BYTES = 16

_SECTION = struct.Struct("<BI")
_APPEND = struct.Struct("<QQI")
_APPEND_ONE = struct.Struct(f"{_SECTION.format}{_APPEND.format[1:]}I")
_NOTE = struct.Struct("<QH")
_U32 = struct.Struct("<I")
_FRAME = struct.Struct(">II")

HEAD = bytes([VERSION])


class Append(NamedTuple):
    """Entries added to one stream, the first of them at ``position``."""

    stream: int
    position: int
    entries: Sequence[bytes]


class Note(NamedTuple):
    """A value that a stream keeps by key. The newest one counts."""

    stream: int
    key: str
    value: bytes


class PageImage(NamedTuple):
    """One page of the object's file as a commit left it. ``database_pages`` is 0 but on a commit's last page."""

    page_number: int
    database_pages: int
    data: memoryview


class Record(NamedTuple):
    """A decoded record. ``tails``: what it holds of streams, in order."""

    template: bytes | None
    page_size: int
    pages: list[PageImage]
    tails: list[Append | Note]


def create_section(digest: bytes) -> bytes:
    """The section that says with which template the object's file began."""
    return _SECTION.pack(KIND_CREATE, len(digest)) + digest


def pages_section(page_size: int, frames: bytes) -> bytes:
    """The section that holds a commit's log frames as they are."""
    return _SECTION.pack(KIND_PAGES, 4 + len(frames)) + _U32.pack(page_size) + frames


def append_section(append: Append) -> bytes:
    """The section for entries added to a stream."""
    entries = append.entries
    count = len(entries)
    if count == 1:  # every streamed token
        size = len(entries[0])
        head = _APPEND_ONE.pack(KIND_APPEND, _APPEND.size + 4 + size, append.stream, append.position, 1, size)
        return head + entries[0]
    lengths = [len(entry) for entry in entries]
    return b"".join(
        (
            _SECTION.pack(KIND_APPEND, _APPEND.size + 4 * count + sum(lengths)),
            _APPEND.pack(append.stream, append.position, count),
            struct.pack(f"<{count}I", *lengths),
            *entries,
        )
    )


def note_section(note: Note) -> bytes:
    """The section for a stream's note."""
    key = note.key.encode()
    size = _NOTE.size + len(key) + len(note.value)
    return b"".join((_SECTION.pack(KIND_NOTE, size), _NOTE.pack(note.stream, len(key)), key, note.value))


def tail_section(item: Append | Note) -> bytes:
    """The section for something that streams have and rows lack."""
    return append_section(item) if type(item) is Append else note_section(item)  # type: ignore[arg-type]


def decode_record(data: bytes, where: str) -> Record:
    """Decode one record; ``where`` names it in the error.

    Raises:
        CorruptionError: the bytes are no record of a version that this code knows.
    """
    try:
        return _decode(memoryview(data))
    except (ValueError, struct.error, IndexError) as error:
        raise CorruptionError(f"the record does not decode ({error})", where) from error


def _decode(view: memoryview) -> Record:
    if not view or view[0] != VERSION:
        raise ValueError(f"unknown version {view[0] if view else 'of an empty record'}")
    template: bytes | None = None
    page_size = 0
    pages: list[PageImage] = []
    tails: list[Append | Note] = []
    for kind, payload in _sections(view):
        if kind == KIND_CREATE:
            if len(payload) != DIGEST_BYTES:
                raise ValueError(f"a template's digest of {len(payload)} bytes")
            template = bytes(payload)
        elif kind == KIND_PAGES:
            page_size = _U32.unpack_from(payload)[0]
            pages.extend(split_frames(payload[4:], page_size))
        elif kind == KIND_APPEND:
            tails.append(_decode_append(payload))
        elif kind == KIND_NOTE:
            tails.append(_decode_note(payload))
        else:
            raise ValueError(f"unknown section kind {kind}")
    return Record(template, page_size, pages, tails)


def _sections(view: memoryview) -> Iterator[tuple[int, memoryview]]:
    at = 1
    while at < len(view):
        kind, length = _SECTION.unpack_from(view, at)
        at += _SECTION.size
        if at + length > len(view):
            raise ValueError(f"a section of {length} bytes has {len(view) - at}")
        yield kind, view[at : at + length]
        at += length


def split_frames(frames: memoryview, page_size: int) -> Iterator[PageImage]:
    """The page images in a run of write-ahead log frames."""
    step = FRAME_HEADER_BYTES + page_size
    if page_size < 512 or len(frames) % step:
        raise ValueError(f"{len(frames)} bytes are no whole frames of {page_size}-byte pages")
    for at in range(0, len(frames), step):
        page_number, database_pages = _FRAME.unpack_from(frames, at)
        yield PageImage(page_number, database_pages, frames[at + FRAME_HEADER_BYTES : at + step])


def _decode_append(payload: memoryview) -> Append:
    stream, position, count = _APPEND.unpack_from(payload)
    lengths = struct.unpack_from(f"<{count}I", payload, _APPEND.size)
    at = _APPEND.size + 4 * count
    if at + sum(lengths) != len(payload):
        raise ValueError("an append's lengths do not add up")
    entries = []
    for length in lengths:
        entries.append(bytes(payload[at : at + length]))
        at += length
    return Append(stream, position, entries)


def _decode_note(payload: memoryview) -> Note:
    stream, length = _NOTE.unpack_from(payload)
    at = _NOTE.size + length
    if at > len(payload):
        raise ValueError("a note's key is longer than the note")
    return Note(stream, str(payload[_NOTE.size : at], "utf-8"), bytes(payload[at:]))
