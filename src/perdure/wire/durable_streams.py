"""The Durable Streams protocol: requests in, replies out.

Source: PROTOCOL.md of ``durable-streams/durable-streams``; section numbers below are its own.
A stream is a URL::

    PUT     create            Content-Type, Stream-TTL | Stream-Expires-At, Stream-Closed,
                              Stream-Forked-From, Stream-Fork-Offset, Stream-Fork-Sub-Offset
    POST    append, close     Content-Type, Stream-Closed, Stream-Seq,
                              Producer-Id, Producer-Epoch, Producer-Seq
    GET     read              ?offset=, &live=long-poll|sse, &cursor=; If-None-Match
    HEAD    metadata
    DELETE

Headers come as a mapping of lower-case names. Nothing here knows a stream: see `streams`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple
from urllib.parse import parse_qsl, quote

import msgspec

from ..errors import RemoteProtocolError

Headers = Mapping[bytes, bytes]

OCTETS = "application/octet-stream"
JSON_TYPE = "application/json"

NUMBER_MAX = 2**53 - 1
"""Largest epoch, sequence number, TTL and sub-offset: what JavaScript counts to."""

PRODUCER_ID_BYTES_MAX = 256
"""Longest ``Producer-Id``."""

STREAM_SEQ_BYTES_MAX = 256
"""Longest ``Stream-Seq``."""

CONTENT_TYPE_BYTES_MAX = 256
"""Longest content type of a stream."""

QUERY_FIELDS_MAX = 50
"""Most fields in the query of a read."""

CURSOR_EPOCH_MS = 1_728_432_000_000
"""2024-10-09T00:00:00Z, from where cursors count intervals (section 8.1)."""

CURSOR_INTERVAL_MS = 20_000
CURSOR_JITTER_MS_MAX = 3_600_000

_PRODUCER_HEADERS = frozenset((b"producer-id", b"producer-epoch", b"producer-seq"))

_OTHER_START = re.compile(rb"0+_0+")
"""How the reference server writes the start of a stream; its suite forks there."""

_NUMBER = re.compile("0|[1-9][0-9]{0,15}", re.ASCII)
_DIGITS = re.compile("[0-9]{1,20}", re.ASCII)
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/[\w!#$&^.+-]+", re.ASCII)
_PLAIN_TAG = re.compile(r"[\w./-]+", re.ASCII)
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Reply(NamedTuple):
    """An answer: status, headers (lower-case names), body. A large body may come in pieces: joining costs a copy."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | list[bytes] = b""


class Producer(NamedTuple):
    """Who appends, so that a retry is known for one (section 5.2.1)."""

    id: str
    epoch: int
    seq: int


class ForkRequest(NamedTuple):
    """What a new stream shares: the source's path as it was given, and where to part from it.

    ``offset`` None is the source's tail; ``sub_offset`` counts messages (JSON) or bytes past it.
    """

    source: str
    offset: str | None
    sub_offset: int


class CreateRequest(NamedTuple):
    """A PUT. ``content_type`` is None where a fork inherits it."""

    content_type: str | None
    ttl_s: int | None
    expires_at_ms: int | None
    closed: bool
    fork: ForkRequest | None


class AppendRequest(NamedTuple):
    """A POST. ``closed``: the stream ends with it."""

    content_type: str | None
    closed: bool
    producer: Producer | None
    stream_seq: bytes | None


class ReadRequest(NamedTuple):
    """A GET. ``offset`` None is the start; ``live`` is ``""``, ``"long-poll"`` or ``"sse"``."""

    offset: str | None
    live: str
    cursor: str | None


def parse_create(headers: Headers) -> CreateRequest:
    """Read the headers of a PUT (section 5.1 and the extension for forks).

    Raises:
        RemoteProtocolError: a value that the protocol forbids, or two that exclude each other.
    """
    ttl = headers.get(b"stream-ttl")
    expires = headers.get(b"stream-expires-at")
    if ttl is not None and expires is not None:
        raise RemoteProtocolError("give Stream-TTL or Stream-Expires-At, not both")
    fork = _parse_fork(headers)
    content_type: str | None = _text(headers.get(b"content-type", b"")).strip()
    if not _MEDIA_TYPE.match(content_type or "") or not (content_type or "").isprintable():
        content_type = None if fork is not None else OCTETS
    elif len(content_type or "") > CONTENT_TYPE_BYTES_MAX:
        raise RemoteProtocolError(f"a Content-Type has {CONTENT_TYPE_BYTES_MAX} bytes at most")
    return CreateRequest(
        content_type,
        None if ttl is None else _number(ttl, "Stream-TTL"),
        None if expires is None else _time_ms(_text(expires)),
        _is_true(headers.get(b"stream-closed")),
        fork,
    )


def _parse_fork(headers: Headers) -> ForkRequest | None:
    source = headers.get(b"stream-forked-from")
    offset = headers.get(b"stream-fork-offset")
    sub_offset = headers.get(b"stream-fork-sub-offset")
    if source is None:
        if sub_offset is not None or offset is not None:
            raise RemoteProtocolError("Stream-Fork-Offset and -Sub-Offset need Stream-Forked-From")
        return None
    if not source.strip():
        raise RemoteProtocolError("Stream-Forked-From is the path of a stream")
    if offset is not None and _OTHER_START.fullmatch(offset):
        offset = b"-1"
    return ForkRequest(
        _text(source).strip(),
        None if offset is None else _text(offset),
        0 if sub_offset is None else _number(sub_offset, "Stream-Fork-Sub-Offset"),
    )


def parse_append(headers: Headers) -> AppendRequest:
    """Read the headers of a POST (section 5.2).

    Raises:
        RemoteProtocolError: a value that the protocol forbids.
    """
    producer = None
    if not _PRODUCER_HEADERS.isdisjoint(headers):
        producer = _parse_producer(headers)
    stream_seq = headers.get(b"stream-seq")
    if stream_seq is not None and not 0 < len(stream_seq) <= STREAM_SEQ_BYTES_MAX:
        raise RemoteProtocolError(f"Stream-Seq has 1 to {STREAM_SEQ_BYTES_MAX} bytes")
    content_type = headers.get(b"content-type")
    closed = headers.get(b"stream-closed")
    return AppendRequest(
        None if content_type is None else content_type.decode("latin-1"),
        closed is not None and _is_true(closed),
        producer,
        stream_seq,
    )


def _parse_producer(headers: Headers) -> Producer:
    try:
        name, epoch, seq = headers[b"producer-id"], headers[b"producer-epoch"], headers[b"producer-seq"]
    except KeyError:
        raise RemoteProtocolError("give Producer-Id, Producer-Epoch and Producer-Seq together") from None
    if not 0 < len(name) <= PRODUCER_ID_BYTES_MAX:
        raise RemoteProtocolError(f"Producer-Id has 1 to {PRODUCER_ID_BYTES_MAX} bytes")
    return Producer(_text(name), _count(epoch, "Producer-Epoch"), _count(seq, "Producer-Seq"))


def parse_read(query: bytes) -> ReadRequest:
    """Read the query of a GET (sections 5.5 to 5.7). Whether the offset is one is for the stream to say.

    Raises:
        RemoteProtocolError: an empty or a second offset, an unknown mode, a live read without an offset,
            too many fields.
    """
    offset = live = cursor = None
    if query:
        for name, value in _fields(query):
            if name == "offset":
                if offset is not None:
                    raise RemoteProtocolError("there is more than one offset")
                offset = value
            elif name == "live":
                live = value
            elif name == "cursor":
                cursor = value
    if offset == "":
        raise RemoteProtocolError("the offset is empty; leave it away, or say -1 for the start")
    if live not in (None, "", "long-poll", "sse"):
        raise RemoteProtocolError("live is long-poll or sse")
    if live and offset is None:
        raise RemoteProtocolError("a live read needs an offset; -1 is the start, now is the end")
    return ReadRequest(offset, live or "", cursor)


def _fields(query: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX)
    except ValueError:
        raise RemoteProtocolError(f"a query has {QUERY_FIELDS_MAX} fields at most") from None


def _is_true(value: bytes | None) -> bool:
    return value is not None and value.strip().lower() == b"true"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _number(value: bytes, what: str) -> int:
    """A number without sign, leading zero or decimals."""
    text = value.decode("latin-1")
    if not _NUMBER.fullmatch(text) or int(text) > NUMBER_MAX:
        raise RemoteProtocolError(f"{what} is a whole number from 0 to {NUMBER_MAX}, without sign or leading zeros")
    return int(text)


def _count(value: bytes, what: str) -> int:
    """Digits; leading zeros are let through."""
    text = value.decode("latin-1")
    if not _DIGITS.fullmatch(text) or int(text) > NUMBER_MAX:
        raise RemoteProtocolError(f"{what} is a whole number from 0 to {NUMBER_MAX}")
    return int(text)


def _time_ms(text: str) -> int:
    if _RFC3339.fullmatch(text.strip()):
        try:
            moment = datetime.fromisoformat(text.strip().upper().replace(" ", "T"))
            return (moment - _UNIX_EPOCH) // timedelta(milliseconds=1)
        except ValueError:
            pass
    raise RemoteProtocolError("Stream-Expires-At is a time like 2027-01-31T12:00:00Z")


_UNIX_EPOCH = datetime.fromisoformat("1970-01-01T00:00:00Z")


def format_time(at_ms: int) -> str:
    """RFC 3339, in UTC, with milliseconds."""
    moment = _UNIX_EPOCH + timedelta(milliseconds=at_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


# --- content types


def media_type(content_type: str) -> str:
    """What is compared: the type without parameters, in small letters."""
    return content_type.split(";", 1)[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether the stream keeps messages (section 7.1)."""
    return media_type(content_type) == JSON_TYPE


def needs_base64(content_type: str) -> bool:
    """Whether server-sent events carry the stream's bytes as base64."""
    kind = media_type(content_type)
    return not (kind.startswith("text/") or kind == JSON_TYPE)


# --- JSON mode

_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_VALUE = msgspec.json.Decoder(msgspec.Raw)


def split_json(body: bytes) -> list[bytes]:
    """The messages of a body: the elements of an array (one level), or the one value.

    Raises:
        RemoteProtocolError: it is not JSON.
    """
    try:
        text = body.strip(b" \t\r\n")
        if not body.isascii():
            body.decode()
        if text[:1] == b"[":
            return [bytes(item) for item in _ARRAY.decode(text)]
        _VALUE.decode(text)
        return [text]
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("the body is not valid UTF-8 text") from error
    except RecursionError as error:
        raise RemoteProtocolError("the body is nested too deeply") from error
    except ValueError:
        return _split_json_slowly(body.decode())


def _split_json_slowly(text: str) -> list[bytes]:
    """The same by the standard library: it takes escapes of half surrogate pairs, which JavaScript may send."""
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    try:
        if text.lstrip(_BLANKS)[:1] != "[":
            decoder.decode(text)
            return [text.strip(_BLANKS).encode()]
        decoder.decode(text)
        entries: list[bytes] = []
        at = _skip_blanks(text, text.index("[") + 1)
        while text[at] != "]":
            _, end = decoder.raw_decode(text, at)
            entries.append(text[at:end].encode())
            at = _skip_blanks(text, end)
            if text[at] == ",":
                at = _skip_blanks(text, at + 1)
        return entries
    except RecursionError as error:
        raise RemoteProtocolError("the body is nested too deeply") from error
    except ValueError as error:
        raise RemoteProtocolError(f"the body is not valid JSON: {error}") from error


_BLANKS = " \t\r\n"


def _skip_blanks(text: str, at: int) -> int:
    while text[at] in _BLANKS:
        at += 1
    return at


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def join_json(entries: Sequence[bytes]) -> bytes:
    """The array of these messages."""
    return b"".join((b"[", b",".join(entries), b"]"))


# --- caching


def etag(stream_tag: str, start: str, end: str, closed: bool) -> str:
    """Names exactly the bytes of a catch-up read (section 8.1). ``stream_tag`` may be any text."""
    if not _PLAIN_TAG.fullmatch(stream_tag):
        stream_tag = quote(stream_tag)
    return f'"{stream_tag}:{start}:{end}{":c" if closed else ""}"'


def matches_etag(if_none_match: bytes | None, tag: str) -> bool:
    """Whether the client has what the tag names (RFC 9110, 13.1.2)."""
    if if_none_match is None:
        return False
    offered = [item.strip().removeprefix("W/") for item in if_none_match.decode("latin-1").split(",")]
    return "*" in offered or tag in offered


def next_cursor(now_ms: int, client_cursor: str | None, jitter: float) -> int:
    """The cursor of a live answer: the interval's number, or one past the client's (section 8.1).

    ``jitter`` is a random number from 0 to 1.
    """
    current = (now_ms - CURSOR_EPOCH_MS) // CURSOR_INTERVAL_MS
    if client_cursor is None or not _NUMBER.fullmatch(client_cursor):
        return current
    given = int(client_cursor)
    if given < current or given > NUMBER_MAX:
        return current
    return given + 1 + int(jitter * (CURSOR_JITTER_MS_MAX // CURSOR_INTERVAL_MS - 1))
