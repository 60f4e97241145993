"""Many rooms stream at once, at the pace of models."""

from __future__ import annotations

import asyncio

from ..harness import Case, Server, at_least, at_most
from ..load import COMPLETE, CpuMeter, Deliveries, close, connect, percentile

ROOM_COUNT = 500
CHUNKS_PER_SECOND = 50


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    ends = [client.expect(COMPLETE) for client in clients]
    whole_seconds = max(1, round(seconds))
    cpu = CpuMeter(server)
    cpu.start()
    for client in clients:
        # Spread over one period: models do not speak in step.
        client.say(f"pace {CHUNKS_PER_SECOND} for {whole_seconds}")
        await asyncio.sleep(1 / CHUNKS_PER_SECOND / ROOM_COUNT)
    await asyncio.wait_for(asyncio.gather(*ends), whole_seconds * 10 + 60)
    cpu.stop()
    await close(clients)
    deliveries = Deliveries()
    for client in clients:
        deliveries.read(client, CHUNKS_PER_SECOND * whole_seconds)
    return {
        "chunks/s": deliveries.chunk_count / deliveries.elapsed_s,
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
    "frames; every chunk is durable before it is sent, and none is lost, doubled or reordered.",
    room="scripted",
    measure=measure,
    aims={
        # 25,000 asked; the start and the end of the run are not in full pace, so within 1 %.
        "chunks/s": at_least(24_750),
        "delivery p99, ms": at_most(25),
        "lost, doubled or reordered, chunks": at_most(0),
    },
)
