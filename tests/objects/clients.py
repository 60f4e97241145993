"""Clients of an object without a network: they record what they are sent."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec

from perdure import Connection, DurableObject
from perdure.objects.runtime import Runtime
from perdure.values import ObjectId

_serial = itertools.count(1)


class Client:
    """A connection's far end."""

    def __init__(self) -> None:
        self.frames: list[str | bytes] = []
        self.closed_with: tuple[int, str] | None = None
        self.connection: Connection
        self.object_id: ObjectId
        self._runtime: Runtime

    def write(self, data: bytes, text: bool) -> None:
        """A frame has come (Transport)."""
        if self.closed_with is None:
            self.frames.append(data.decode() if text else data)

    def close(self, code: int, reason: str) -> None:
        """The object has closed the connection (Transport)."""
        if self.closed_with is None:
            self.closed_with = (code, reason)

    @property
    def json(self) -> list[Any]:
        """The frames, decoded."""
        return [msgspec.json.decode(frame) for frame in self.frames]

    def say(self, data: str | bytes) -> None:
        """Send a frame."""
        self._runtime.receive(self.object_id, self.connection, data)

    def leave(self, code: int = 1000, reason: str = "") -> None:
        """Hang up."""
        self._runtime.disconnect(self.object_id, self.connection, code, reason)

    @classmethod
    def of(
        cls,
        runtime: Runtime,
        object_class: type[DurableObject],
        name: str,
        *,
        user: str | None = None,
        protocol: str = "",
        **query: str,
    ) -> Client:
        """Connect to an object."""
        client = cls()
        client._runtime = runtime
        client.object_id = runtime.object_id(object_class, name)
        client.connection = Connection(
            f"c{next(_serial)}",
            client,
            user=user,
            query=query,
            protocol=protocol,
            attachment_bytes_max=runtime.limits.attachment_bytes_max,
        )
        runtime.connect(client.object_id, client.connection)
        return client
