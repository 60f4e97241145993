"""One room speaks to many clients, as fast as it can."""

from __future__ import annotations

import asyncio
from time import monotonic

from ..harness import Case, Server, at_least, at_most
from ..load import COMPLETE, CpuMeter, Deliveries, close, connect, percentile

CLIENT_COUNT = 100
CHUNK_COUNT = 2_000
ANSWERS_MAX = 5
"""One answer is 200,000 deliveries: more than some are no better."""


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, "r0"))[0] for _ in range(CLIENT_COUNT)]
    latencies_ms: list[float] = []
    chunk_count = frame_count = fault_count = 0
    elapsed_s = 0.0
    cpu = CpuMeter(server)
    started = monotonic()
    for _ in range(ANSWERS_MAX):
        ends = [client.expect(COMPLETE) for client in clients]
        cpu.start()
        clients[0].say(f"flat {CHUNK_COUNT}")
        await asyncio.wait_for(asyncio.gather(*ends), 120)
        cpu.stop()
        deliveries = Deliveries()
        for client in clients:
            deliveries.read(client, CHUNK_COUNT)
            client.forget()
        latencies_ms += deliveries.latencies_ms
        chunk_count += deliveries.chunk_count
        frame_count += deliveries.frame_count
        fault_count += deliveries.fault_count
        elapsed_s += deliveries.elapsed_s
        if monotonic() - started > seconds:
            break
    await close(clients)
    return {
        "deliveries/s": chunk_count / elapsed_s,
        "frames/s": frame_count / elapsed_s,
        "delivery p50, ms": percentile(latencies_ms, 50),
        "delivery p99, ms": percentile(latencies_ms, 99),
        "lost, doubled or reordered, chunks": fault_count,
        "chunks/frame": chunk_count / max(1, frame_count),
        "server CPU, us/delivery": cpu.server_s * 1e6 / chunk_count,
        "server CPU, % of its core": cpu.server_percent,
        "load CPU, % of its core": cpu.load_percent,
    }


CASE = Case(
    name="fan_out",
    claim=f"One room, {CLIENT_COUNT} clients, answers of {CHUNK_COUNT:,} chunks of 24 bytes, flat out, in "
    "delta frames. A delivery is one chunk to one client; chunks that were joined in a frame count each, "
    "frames/s says how many frames there were.",
    room="scripted",
    measure=measure,
    aims={
        "deliveries/s": at_least(150_000),
        "lost, doubled or reordered, chunks": at_most(0),
    },
)
