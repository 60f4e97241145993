"""Durable Streams over server-sent events (section 5.7 of the protocol).

::

    event: data                      the entries; base64 for types that are neither text nor JSON
    data:[{"k":"v"},{"k":"w"}]       (one array of messages in JSON mode)

    event: control                   after every data event, and first of all on an empty stream
    data:{"streamNextOffset":"0000000000000002","streamCursor":"2847","upToDate":true}

The two are always one block: a client takes data only with its control event, so a cut between
them would repeat the data. ``streamClosed`` takes the cursor's place at the end of a closed stream.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence

from .durable_streams import is_json, join_json, needs_base64

EVENT_STREAM_TYPE = b"text/event-stream"


class EventEncoder:
    """Encodes the events of one stream. ``content_type`` is the stream's."""

    __slots__ = ("base64", "json")

    def __init__(self, content_type: str) -> None:
        self.json = is_json(content_type)
        self.base64 = needs_base64(content_type)

    def block(
        self, entries: Sequence[bytes], next_offset: str, cursor: int, *, up_to_date: bool, closed: bool
    ) -> bytes:
        """The entries (there may be none) and their control event."""
        control = control_event(next_offset, cursor, up_to_date=up_to_date, closed=closed)
        return b"".join((self.data(entries), control)) if entries else control

    def data(self, entries: Sequence[bytes]) -> bytes:
        """The data event of these entries."""
        if self.json:
            payload = join_json(entries)
        elif self.base64:
            payload = base64.b64encode(b"".join(entries))
        else:
            payload = b"".join(entries)
        if b"\n" in payload or b"\r" in payload:
            # Each kind of line break begins a new line of the event: no payload can forge an event.
            payload = payload.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            payload = payload.replace(b"\n ", b"\n  ").replace(b"\n", b"\ndata:")
        # Clients drop one blank after the colon: a line that begins with a blank is given one more.
        head = b"event: data\ndata: " if payload[:1] == b" " else b"event: data\ndata:"
        return b"".join((head, payload, b"\n\n"))


def control_event(next_offset: str, cursor: int, *, up_to_date: bool, closed: bool) -> bytes:
    """Where the client stands."""
    if closed:
        fields = f'"streamNextOffset":"{next_offset}","streamClosed":true,"upToDate":true'
    elif up_to_date:
        fields = f'"streamNextOffset":"{next_offset}","streamCursor":"{cursor}","upToDate":true'
    else:
        fields = f'"streamNextOffset":"{next_offset}","streamCursor":"{cursor}"'
    return b"event: control\ndata:{" + fields.encode() + b"}\n\n"
