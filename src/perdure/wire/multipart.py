"""Forms with files, ``multipart/form-data`` (RFC 7578), read as their bytes come.

Feed pieces of the body; get what is in them::

    PartStart   a field begins: its name, a filename, a media type
    bytes       the next of its content
    PartEnd     it is over

Nothing is kept but a field's head and, of its content, what may be the beginning of a boundary.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ..errors import LimitExceeded, RemoteProtocolError

PART_HEAD_BYTES_MAX = 8 * 1024
"""Bytes of the headers of one field of a form."""

PADDING_BYTES_MAX = 256
"""Bytes of white space after a boundary of a form."""

_PARAMETER = re.compile(r';\s*([a-zA-Z*]+)\s*=\s*(?:"((?:[^"\\\r\n]|\\.)*)"|([^\s;"]+))')


class PartStart(NamedTuple):
    """A field begins. ``filename`` is None where it is no file."""

    name: str
    filename: str | None
    media_type: str | None


class PartEnd(NamedTuple):
    """The field is over."""


Event = PartStart | PartEnd | bytes


def boundary_of(content_type: str) -> bytes:
    """The boundary that a ``multipart/form-data`` header names.

    Raises:
        RemoteProtocolError: it names none.
    """
    boundary = _parameters(content_type).get("boundary", "")
    if not 0 < len(boundary) <= 70 or not boundary.isascii():
        raise RemoteProtocolError("a multipart/form-data body needs a boundary of 1 to 70 characters")
    return boundary.encode()


class MultipartParser:
    """Reads one form. Give it the body's pieces with `feed`, and say with `end` that it is over."""

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"\r\n--" + boundary
        # A form's first boundary has no line before it.
        self._buffer = bytearray(b"\r\n")
        self._state: Callable[[], list[Event] | None] = self._read_preamble

    def feed(self, data: bytes) -> Iterator[Event]:
        """What is in the next piece of the body; use the iterator up.

        Raises:
            RemoteProtocolError: it is no form.
            LimitExceeded: ``part_head_bytes_max``.
        """
        self._buffer += data
        while (events := self._state()) is not None:
            yield from events

    def end(self) -> None:
        """The body is over.

        Raises:
            RemoteProtocolError: in the middle of the form.
        """
        if self._state != self._read_epilogue:
            raise RemoteProtocolError("the form was cut off")

    # Each of these takes what it can from the buffer; None: it needs more.

    def _read_preamble(self) -> list[Event] | None:
        at = self._buffer.find(self._delimiter)
        if at < 0:
            del self._buffer[: -len(self._delimiter)]
            return None
        del self._buffer[: at + len(self._delimiter)]
        self._state = self._read_boundary_end
        return []

    def _read_boundary_end(self) -> list[Event] | None:
        if len(self._buffer) < 2:
            return None
        if self._buffer.startswith(b"--"):
            self._state = self._read_epilogue
            return []
        line_end = self._buffer.find(b"\r\n")
        padding = self._buffer.rstrip(b"\r") if line_end < 0 else self._buffer[:line_end]
        if padding.strip(b" \t") or len(padding) > PADDING_BYTES_MAX:
            raise RemoteProtocolError("a boundary of the form is followed by something else than a line's end")
        if line_end < 0:
            return None
        # The line's end stays: it begins the empty line of a field without headers.
        del self._buffer[:line_end]
        self._state = self._read_head
        return []

    def _read_head(self) -> list[Event] | None:
        at = self._buffer.find(b"\r\n\r\n")
        size = len(self._buffer) if at < 0 else at
        if size > PART_HEAD_BYTES_MAX:
            raise LimitExceeded("part_head_bytes_max", size, PART_HEAD_BYTES_MAX)
        if at < 0:
            return None
        start = _part_start(bytes(self._buffer[:at]))
        del self._buffer[: at + 4]
        self._state = self._read_content
        return [start]

    def _read_content(self) -> list[Event] | None:
        at = self._buffer.find(self._delimiter)
        # Without one, all but what may be the beginning of one.
        until = at if at >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        events: list[Event] = [bytes(self._buffer[:until])] if until else []
        if at < 0:
            del self._buffer[:until]
            return events or None
        del self._buffer[: at + len(self._delimiter)]
        self._state = self._read_boundary_end
        return [*events, PartEnd()]

    def _read_epilogue(self) -> list[Event] | None:
        self._buffer.clear()
        return None


def _part_start(head: bytes) -> PartStart:
    try:
        lines = head.decode().split("\r\n")
    except UnicodeError as error:
        raise RemoteProtocolError("the headers of a form's field are not UTF-8 text") from error
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if line and not colon:
            raise RemoteProtocolError("a header of a form's field has no colon")
        headers[name.strip().lower()] = value.strip()
    disposition = headers.get("content-disposition", "")
    parameters = _parameters(disposition)
    if disposition.partition(";")[0].strip().lower() != "form-data" or "name" not in parameters:
        raise RemoteProtocolError("a field of the form has no name")
    return PartStart(parameters["name"], parameters.get("filename"), headers.get("content-type"))


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header. In quotes, browsers write a quote as ``%22`` (WHATWG), others as ``\\"``."""
    found: dict[str, str] = {}
    for match in _PARAMETER.finditer(header):
        name, quoted, plain = match.groups()
        value = plain if quoted is None else quoted.replace('\\"', '"')
        if quoted is not None:
            for escaped, character in (("%22", '"'), ("%0D", "\r"), ("%0A", "\n")):
                value = value.replace(escaped, character)
        found.setdefault(name.lower(), value)
    return found
