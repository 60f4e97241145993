"""A client of rooms: `RoomClient`, and the events that it gives out."""

from ..wire.room import Branches, Person, Wait
from ..wire.room_commands import SentFile
from .events import (
    Added,
    Grew,
    Here,
    Joined,
    Message,
    PartChanged,
    Refused,
    Removed,
    Replaced,
    RoomEvent,
    Settled,
    Waiting,
)
from .room import ClientEvent, Connected, Disconnected, RoomClient, RoomUnreachable

__all__ = [
    "Added",
    "Branches",
    "ClientEvent",
    "Connected",
    "Disconnected",
    "Grew",
    "Here",
    "Joined",
    "Message",
    "PartChanged",
    "Person",
    "Refused",
    "Removed",
    "Replaced",
    "RoomClient",
    "RoomEvent",
    "RoomUnreachable",
    "SentFile",
    "Settled",
    "Wait",
    "Waiting",
]
