"""Many rooms stream at once, at the pace of models."""

from __future__ import annotations

import asyncio
from time import monotonic

from ..harness import Case, Server, at_least, at_most
from ..load import COMPLETE, CpuMeter, Deliveries, close, connect, percentile

ROOM_COUNT = 500
CHUNKS_PER_SECOND = 50
START_S = 2
"""The rooms start one after the other over this time, as people do."""

SETTLE_S = 1
"""Time between the last start and the first measured chunk."""


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    ends = [client.expect(COMPLETE) for client in clients]
    whole_seconds = max(1, round(seconds))
    streaming_s = START_S + SETTLE_S + whole_seconds
    begun = monotonic()
    for number, client in enumerate(clients):
        await asyncio.sleep(max(0.0, begun + START_S * number / ROOM_COUNT - monotonic()))
        client.say(f"pace {CHUNKS_PER_SECOND} for {streaming_s + 1}")
    await asyncio.sleep(SETTLE_S)
    cpu = CpuMeter(server)
    cpu.start()
    # All rooms stream from here on until the first one ends.
    measured_from = monotonic()
    await asyncio.sleep(whole_seconds)
    measured_to = monotonic()
    cpu.stop()
    await asyncio.wait_for(asyncio.gather(*ends), streaming_s * 10 + 60)
    await close(clients)
    deliveries = Deliveries(measured_from, measured_to)
    for client in clients:
        deliveries.read(client, CHUNKS_PER_SECOND * (streaming_s + 1))
    return {
        "chunks/s": deliveries.chunk_count / (measured_to - measured_from),
        "delivery p50, ms": percentile(deliveries.latencies_ms, 50),
        "delivery p99, ms": percentile(deliveries.latencies_ms, 99),
        "lost, doubled or reordered, chunks": deliveries.fault_count,
        "chunks/frame": deliveries.chunk_count / max(1, deliveries.frame_count),
        "server CPU, us/chunk": cpu.server_s * 1e6 / deliveries.chunk_count,
        "server CPU, % of its core": cpu.server_percent,
        "load CPU, % of its core": cpu.load_percent,
    }


CASE = Case(
    name="many_rooms",
    claim=f"{ROOM_COUNT} rooms each stream {CHUNKS_PER_SECOND} chunks/s of 24 bytes to one client in delta "
    "frames; every chunk is durable before it is sent, and none is lost, doubled or reordered. The rooms "
    f"start within {START_S} s; measured is the time in which all of them stream.",
    room="scripted",
    measure=measure,
    aims={
        # A delivery counts where it arrives: a few at the ends of the time belong to neighbours.
        "chunks/s": at_least(24_900),
        "delivery p99, ms": at_most(25),
        "lost, doubled or reordered, chunks": at_most(0),
    },
)
