"""What rooms cost in which nothing happens."""

from __future__ import annotations

import asyncio

from ..harness import Case, Server, at_most
from ..load import MESSAGE, close, connect

ROOM_COUNT = 1_000
SLEEP_S = 3.0
"""Three times what the sleepy room waits before it hibernates."""


async def measure(server: Server, seconds: float) -> dict[str, float]:
    # What the first rooms load and allocate for good is not what a room costs.
    clients = [(await connect(server.port, f"warm{i}"))[0] for i in range(20)]
    await asyncio.gather(*(client.ask("hello", MESSAGE) for client in clients))
    before_kib = server.resident_kib()
    rooms = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    open_kib = server.resident_kib()
    await asyncio.sleep(SLEEP_S)
    cpu_started_s = server.cpu_seconds()
    await asyncio.sleep(seconds)
    cpu_s = server.cpu_seconds() - cpu_started_s
    idle_kib = server.resident_kib()
    awake = server.metric("awake")
    await close(clients + rooms)
    figures = {
        "open, KiB/room": (open_kib - before_kib) / ROOM_COUNT,
        "hibernated, KiB/room": (idle_kib - before_kib) / ROOM_COUNT,
        "CPU while idle, % of a core": cpu_s / seconds * 100,
    }
    return figures if awake is None else figures | {"awake, rooms": awake}


CASE = Case(
    name="idle_rooms",
    claim=f"{ROOM_COUNT:,} rooms with one connection each and nothing to do: resident memory of the server, "
    "room and connection together, and its CPU time.",
    room="sleepy",
    measure=measure,
    aims={
        "hibernated, KiB/room": at_most(50),
        # WebSocket pings (one a connection in 20 s) are all that may run.
        "CPU while idle, % of a core": at_most(1),
        "awake, rooms": at_most(0),
    },
)
