"""A client of plain rooms: `RoomClient`, and the events that it gives out."""

from .core import Added, Grew, Joined, Message, Refused, Removed, Replaced, RoomEvent, Settled
from .room import ClientEvent, Connected, Disconnected, RoomClient, RoomUnreachable

__all__ = [
    "Added",
    "ClientEvent",
    "Connected",
    "Disconnected",
    "Grew",
    "Joined",
    "Message",
    "Refused",
    "Removed",
    "Replaced",
    "RoomClient",
    "RoomEvent",
    "RoomUnreachable",
    "Settled",
]
