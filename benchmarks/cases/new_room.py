"""The first visit to a room."""

from __future__ import annotations

from time import monotonic

from ..harness import Case, Server, at_most
from ..load import close, connect, percentile

WARM_UP_COUNT = 20
ROOM_COUNT_MAX = 500


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"warm{i}"))[0] for i in range(WARM_UP_COUNT)]
    times_ms: list[float] = []
    started = monotonic()
    while len(times_ms) < ROOM_COUNT_MAX and monotonic() - started < seconds:
        client, elapsed_s = await connect(server.port, f"r{len(times_ms)}")
        clients.append(client)
        times_ms.append(elapsed_s * 1000)
    await close(clients)
    return {"p50, ms": percentile(times_ms, 50), "p99, ms": percentile(times_ms, 99)}


CASE = Case(
    name="new_room",
    claim="A room that never was: from the start of the TCP connect to its whole init frame.",
    room="silent",
    measure=measure,
    aims={"p50, ms": at_most(1.5)},
)
