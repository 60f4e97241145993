"""Clients of a room that speak other protocols than the room's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..objects.connections import Connection
from .cloudflare_requests import CloudflareSurface
from .parties import PartySurface

if TYPE_CHECKING:
    from .room import ChatRoom


class Surface(Protocol):
    """Speaks one protocol with the clients of one room. It is made when the first of them is there."""

    def connect(self, connection: Connection) -> None:
        """A client has come."""

    async def handle(self, connection: Connection, data: str | bytes) -> bool:
        """Do what a client's frame asks for. False: it is none of the protocol's."""

    def gone(self, connection: Connection) -> None:
        """A client has left."""


class Surfaces:
    """The surfaces of one room, by `Connection.protocol`. A room without such clients has none and pays nothing."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._made: dict[str, Surface] = {}

    def wake(self) -> None:
        """An instance was made: clients may have stayed from the one before it."""
        for connection in self._room.connections():
            self.of(connection)

    def of(self, connection: Connection) -> Surface | None:
        """The surface that speaks with this client; None for the room's own protocol, and the application's."""
        protocol = connection.protocol
        surface = self._made.get(protocol)
        if surface is None and protocol == "agents":
            surface = self._made[protocol] = CloudflareSurface(self._room)
        elif surface is None and protocol == "party":
            surface = self._made[protocol] = PartySurface(self._room)
        return surface
