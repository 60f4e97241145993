"""Durable Streams as server-sent events: literal bytes, and nothing that a payload can forge."""

from __future__ import annotations

import base64
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from perdure.wire.sse import SseEvent, SseParser
from perdure.wire.stream_events import EventEncoder, control_event


def test_messages_are_one_array() -> None:
    """With the control event in the same block."""
    block = EventEncoder("application/json").block(
        [b'{"k":"v"}', b"2"], "0000000000000002", 2847, up_to_date=True, closed=False
    )
    assert block == (
        b'event: data\ndata:[{"k":"v"},2]\n\n'
        b'event: control\ndata:{"streamNextOffset":"0000000000000002","streamCursor":"2847","upToDate":true}\n\n'
    )


def test_text_is_text() -> None:
    """Each line of it is a line of the event; the three line breaks are one."""
    encoder = EventEncoder("text/plain; charset=utf-8")
    assert (
        encoder.data([b"a\nb", b"\r\nc\r", "ß".encode()])
        == "event: data\ndata:a\ndata:b\ndata:c\ndata:ß\n\n".encode()
    )


def test_a_leading_blank_stays() -> None:
    """A client drops the first blank of a line, so there is one more."""
    assert EventEncoder("text/plain").data([b" a\n  b"]) == b"event: data\ndata:  a\ndata:   b\n\n"


def test_other_types_are_base64() -> None:
    """The bytes of the batch as one."""
    encoder = EventEncoder("application/octet-stream")
    assert encoder.base64
    assert encoder.data([b"\x00", b"\xff\n"]) == b"event: data\ndata:AP8K\n\n"


def test_a_block_without_entries_is_a_control_event() -> None:
    """How a reader at the tail learns where it is."""
    block = EventEncoder("text/plain").block([], "0000000000000000", 7, up_to_date=True, closed=False)
    assert block == (
        b'event: control\ndata:{"streamNextOffset":"0000000000000000","streamCursor":"7","upToDate":true}\n\n'
    )


def test_control_events_say_how_far_the_client_is() -> None:
    """Behind: no more than that. At the end of a closed stream: no cursor, as nothing follows."""
    assert control_event("0000000000000001", 7, up_to_date=False, closed=False) == (
        b'event: control\ndata:{"streamNextOffset":"0000000000000001","streamCursor":"7"}\n\n'
    )
    assert control_event("0000000000000001", 7, up_to_date=True, closed=True) == (
        b'event: control\ndata:{"streamNextOffset":"0000000000000001","streamClosed":true,"upToDate":true}\n\n'
    )


NASTY = st.text(alphabet="\r\n \tad:0é\u2028\ufeff\x00", min_size=1, max_size=12) | st.sampled_from(
    ["event: control", "\n\nevent: control\ndata:{}\n\n", "data:", ":", "\r\r", "\n "]
)


def _parsed(block: bytes) -> list[SseEvent]:
    return SseParser().feed(block)


@given(st.lists(NASTY, min_size=1, max_size=5))
def test_no_text_can_forge_an_event(texts: list[str]) -> None:
    """A client has one data event with the text, its line breaks made equal, and one control event."""
    block = EventEncoder("text/plain").block(
        [text.encode() for text in texts], "0000000000000005", 1, up_to_date=False, closed=False
    )
    data, control = _parsed(block)
    assert (data.event, data.data) == ("data", re.sub("\r\n|\r", "\n", "".join(texts)))
    assert (control.event, json.loads(control.data)["streamNextOffset"]) == ("control", "0000000000000005")


@given(st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5))
def test_bytes_come_back(entries: list[bytes]) -> None:
    """By base64."""
    (event,) = _parsed(EventEncoder("image/png").data(entries))
    assert base64.b64decode(event.data, validate=True) == b"".join(entries)


@given(st.lists(st.lists(st.text() | st.integers(), max_size=2), min_size=1, max_size=5), st.booleans())
def test_messages_come_back(messages: list[list[object]], pretty: bool) -> None:
    """Whatever blanks and line breaks they hold."""
    entries = [json.dumps(message, indent=1 if pretty else None).encode() for message in messages]
    (event,) = _parsed(EventEncoder("application/json").data(entries))
    assert json.loads(event.data) == messages
