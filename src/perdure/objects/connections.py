"""Connections: the live clients of an object.

A connection belongs to the object, not to an instance: it stays open while the object
hibernates and is handed to the next instance with its tags and its attachment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from ..errors import LimitExceeded

TAGS_MAX = 10
TAG_CHARACTERS_MAX = 256


class Transport(Protocol):
    """What carries a connection's frames. Methods never block and never raise."""

    def write(self, data: bytes, text: bool) -> None:
        """Send one frame, or buffer it when the client is slow."""

    def close(self, code: int, reason: str) -> None:
        """Close with a WebSocket close code."""


class Connection:
    """One live client of an object.

    ``protocol`` names the frames that it speaks, where the server knows them by its address: ``room``
    (``/ws/``), ``agents`` (``/agents/``), ``party`` (``/parties/``); "" for the application's own.
    ``tags`` select connections (`DurableObject.connections`), ``attachment`` is a small JSON
    value that is kept with the connection while the object hibernates.
    """

    __slots__ = (
        "_attachment",
        "_attachment_bytes_max",
        "_send",
        "closed",
        "id",
        "joined",
        "protocol",
        "query",
        "tags",
        "transport",
        "user",
    )

    def __init__(
        self,
        connection_id: str,
        transport: Transport,
        *,
        user: str | None = None,
        query: dict[str, str] | None = None,
        protocol: str = "",
        attachment_bytes_max: int = 16 * 1024,
    ) -> None:
        self.id = connection_id
        self.transport = transport
        self.user = user
        self.query = query or {}
        self.protocol = protocol
        self.tags: tuple[str, ...] = ()
        self.closed = False
        self.joined = False
        self._attachment = b""
        self._attachment_bytes_max = attachment_bytes_max
        self._send: Callable[..., None] | None = None

    def send(self, data: str | bytes, *, allow_unconfirmed: bool = False) -> None:
        """Send a frame (text or binary) once everything written so far is durable.

        ``allow_unconfirmed=True`` sends it at once: it may show what a crash takes back.
        """
        text = isinstance(data, str)
        frame = data.encode() if isinstance(data, str) else data
        self.send_frame(frame, text, allow_unconfirmed=allow_unconfirmed)

    def send_frame(self, frame: bytes, text: bool = True, *, allow_unconfirmed: bool = False) -> None:
        """`send` for a frame that is encoded already."""
        if self.closed:
            return
        if self._send is None or allow_unconfirmed:
            self.transport.write(frame, text)
        else:
            self._send(self._write, frame, text)

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close the connection after what was sent before."""
        if self._send is None:
            self._close(code, reason)
        else:
            self._send(self._close, code, reason)

    @property
    def attachment(self) -> Any:
        """The value that stays with the connection over hibernation; None at first."""
        return msgspec.json.decode(self._attachment) if self._attachment else None

    @attachment.setter
    def attachment(self, value: Any) -> None:
        data = msgspec.json.encode(value)
        if len(data) > self._attachment_bytes_max:
            raise LimitExceeded("attachment_bytes_max", len(data), self._attachment_bytes_max)
        self._attachment = data

    def tag(self, *tags: str) -> None:
        """Give the connection its tags (10 at most, 256 characters each). Only in ``on_connect``."""
        if len(tags) > TAGS_MAX:
            raise LimitExceeded("tags_max", len(tags), TAGS_MAX)
        for item in tags:
            if len(item) > TAG_CHARACTERS_MAX:
                raise LimitExceeded("tag_characters_max", len(item), TAG_CHARACTERS_MAX)
        self.tags = tags

    def bind(self, send: Callable[..., None] | None) -> None:
        """Route frames through an instance's output gate, or (None) straight to the transport."""
        self._send = send

    def _write(self, frame: bytes, text: bool) -> None:
        if not self.closed:
            self.transport.write(frame, text)

    def _close(self, code: int, reason: str) -> None:
        if not self.closed:
            self.transport.close(code, reason)


class ConnectionSet:
    """The connections of one object, by id; groups by tag are made on demand and kept until they change."""

    __slots__ = ("_groups", "_members")

    def __init__(self) -> None:
        self._members: dict[str, Connection] = {}
        self._groups: dict[str | None, tuple[Connection, ...]] = {}

    def __len__(self) -> int:
        return len(self._members)

    def add(self, connection: Connection) -> None:
        self._members[connection.id] = connection
        self._groups.clear()

    def remove(self, connection: Connection) -> None:
        if self._members.get(connection.id) is connection:
            del self._members[connection.id]
        self._groups.clear()

    def changed(self) -> None:
        """Some connection's tags changed."""
        self._groups.clear()

    def get(self, connection_id: str) -> Connection | None:
        return self._members.get(connection_id)

    def tagged(self, tag: str | None = None) -> tuple[Connection, ...]:
        """The connections with the tag (None: all) that `on_connect` has met, in order of arrival."""
        group = self._groups.get(tag)
        if group is None:
            group = tuple(
                item for item in self._members.values() if item.joined and (tag is None or tag in item.tags)
            )
            self._groups[tag] = group
        return group

    def everyone(self) -> list[Connection]:
        """All connections, also those whose `on_connect` has not begun."""
        return list(self._members.values())
