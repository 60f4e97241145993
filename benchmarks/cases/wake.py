"""A message to a room that sleeps."""

from __future__ import annotations

import asyncio

from ..harness import Case, Server, at_most
from ..load import MESSAGE, close, connect, percentile

ROOM_COUNT = 200
SLEEP_S = 3.0
"""Three times what the sleepy room waits before it hibernates."""


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    for client in clients:
        await client.ask("good night", MESSAGE)
    await asyncio.sleep(SLEEP_S)
    awake = server.metric("awake")
    times_ms = [await client.ask("good morning", MESSAGE) * 1000 for client in clients]
    await close(clients)
    figures = {"p50, ms": percentile(times_ms, 50), "p99, ms": percentile(times_ms, 99)}
    return figures if awake is None else figures | {"awake beforehand, rooms": awake}


CASE = Case(
    name="wake",
    claim=f"{ROOM_COUNT} rooms have hibernated with their connections open; from a client's message to its "
    "own durable broadcast. (The floor's rooms never sleep.)",
    room="sleepy",
    measure=measure,
    aims={"p50, ms": at_most(1), "awake beforehand, rooms": at_most(0)},
)
