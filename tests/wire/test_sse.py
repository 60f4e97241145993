"""Server-sent events: literal bytes out, and any cut of the bytes in."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import LimitExceeded
from perdure.wire.sse import DONE, SseEvent, SseParser, sse_comment, sse_event


def test_events_have_these_bytes() -> None:
    """Head lines come first; every line of the data gets its own field."""
    assert sse_event(b'{"a":1}') == b'data: {"a":1}\n\n'
    assert sse_event(b"[]", event="control", id="17") == b"event: control\nid: 17\ndata: []\n\n"
    assert sse_event(b"a\nb\r\nc\rd") == b"data: a\ndata: b\ndata: c\ndata: d\n\n"
    assert sse_event(b"") == b"data: \n\n"
    assert sse_comment("keep-alive") == b": keep-alive\n\n"
    assert DONE == b"data: [DONE]\n\n"


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\0b"])
def test_heads_and_comments_are_one_line(text: str) -> None:
    """What would break out of its line is a programmer's error."""
    with pytest.raises(ValueError, match="line breaks and NUL"):
        sse_event(b"", event=text)
    with pytest.raises(ValueError, match="line breaks and NUL"):
        sse_event(b"", id=text)
    with pytest.raises(ValueError, match="line breaks and NUL"):
        sse_comment(text)


STREAM = (
    b"\xef\xbb\xbf: stream-open\n\n"
    b"data: one\n\n"
    b"id: 7\r\nevent: control\r\ndata: two\r\ndata:  three\r\n\r\n"
    b"retry: 1500\rdata\rdata:x\r\r"
    b"event: nothing\n\n"
    b"id: bad\0id\nunknown: x\ndata: gr\xc3\xbc\xc3\x9fe \xff\n\n"
    b"id\ndata: last\n\n"
    b"data: cut off\n"
)
EVENTS = [
    SseEvent("one", "message", ""),
    SseEvent("two\n three", "control", "7"),
    SseEvent("\nx", "message", "7"),
    SseEvent("grüße \ufffd", "message", "7"),
    SseEvent("last", "message", ""),
]


def test_a_stream_with_everything_in_it() -> None:
    """A byte order mark, comments, the three line ends, fields without a value, an unfinished event."""
    parser = SseParser()
    assert parser.feed(STREAM) == EVENTS
    assert parser.retry_ms == 1500
    assert parser.last_event_id == ""


@given(st.lists(st.integers(0, len(STREAM)), max_size=8))
def test_cuts_do_not_matter(cuts: list[int]) -> None:
    """Wherever the network cuts the bytes, the events are the same, each once."""
    places = [0, *sorted(cuts), len(STREAM)]
    parser = SseParser()
    events = [event for start, end in pairwise(places) for event in parser.feed(STREAM[start:end])]
    assert events == EVENTS


def test_one_byte_at_a_time() -> None:
    """The worst network of all."""
    parser = SseParser()
    assert [event for byte in STREAM for event in parser.feed(bytes([byte]))] == EVENTS


@given(st.binary().map(lambda data: data.replace(b"\r", b"")))
def test_the_parser_reads_what_the_builder_writes(data: bytes) -> None:
    """Any data comes back, as far as it is UTF-8."""
    assert SseParser().feed(sse_event(data, event="e", id="1")) == [SseEvent(data.decode(errors="replace"), "e", "1")]


def test_an_event_of_the_limit_passes_and_one_byte_more_does_not() -> None:
    """The limit counts an event's data, however many lines or feeds it comes in."""
    assert SseParser(event_bytes_max=10).feed(b"data: 1234\n\n") == [SseEvent("1234", "message", "")]
    assert len(SseParser(event_bytes_max=10).feed(b"data: 0123456789\n\n")) == 1
    with pytest.raises(LimitExceeded, match="event_bytes_max allows 10 at most, this has 11"):
        SseParser(event_bytes_max=10).feed(b"data: 0123456789X\n\n")
    parser = SseParser(event_bytes_max=10)
    parser.feed(b"data: 01234\n")
    with pytest.raises(LimitExceeded, match="event_bytes_max"):
        parser.feed(b"data: 56789\n")


def test_a_line_without_end_is_refused() -> None:
    """A peer that never ends its line cannot fill the memory."""
    parser = SseParser(event_bytes_max=10)
    parser.feed(b"data: 1234")
    with pytest.raises(LimitExceeded, match="event_bytes_max allows 10 at most, this has 11"):
        parser.feed(b"5")
