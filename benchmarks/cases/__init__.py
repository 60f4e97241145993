"""The cases, by name, in the order in which they run."""

from __future__ import annotations

from ..harness import Case
from . import (
    fan_out,
    first_token,
    idle_rooms,
    init_1000,
    many_rooms,
    message_latency,
    new_room,
    protocols,
    recovery,
    streams_append,
    streams_catch_up,
    streams_idle,
    streams_tail,
    wake,
)

CASES: dict[str, Case] = {
    case.name: case
    for case in (
        many_rooms.CASE,
        fan_out.CASE,
        message_latency.CASE,
        first_token.CASE,
        new_room.CASE,
        wake.CASE,
        init_1000.CASE,
        idle_rooms.CASE,
        recovery.CASE,
        protocols.CASE,
        *streams_append.CASES,
        *streams_tail.CASES,
        streams_catch_up.CASE,
        streams_idle.CASE,
    )
}
