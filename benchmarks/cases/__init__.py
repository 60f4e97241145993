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
    recovery,
    wake,
)

CASES: dict[str, Case] = {
    module.CASE.name: module.CASE
    for module in (
        many_rooms,
        fan_out,
        message_latency,
        first_token,
        new_room,
        wake,
        init_1000,
        idle_rooms,
        recovery,
    )
}
