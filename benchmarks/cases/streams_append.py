"""Durable Streams: appends, each answered when it is stored."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ..harness import Aim, Case, Server, at_least, at_most
from ..load import CpuMeter, percentile
from ..machine import sync_latency_ms
from ..reference import KINDS
from ..stream_check import count_append_faults, latencies_ms
from ..stream_http import StreamClient
from ..stream_load import MESSAGE_BYTES, drive, leave, make_writers

CONTENT_TYPE = "application/octet-stream"
WARM_UP_S = 0.5
SECONDS_MAX = 3.0

Measure = Callable[[Server, float], Coroutine[Any, Any, dict[str, float]]]


def measure_with(writer_count: int, stream_count: int, producer: bool) -> Measure:
    """What measures so many connections that append to so many streams."""

    async def measure(server: Server, seconds: float) -> dict[str, float]:
        sync_p50_ms, _ = sync_latency_ms(server.data)
        paths = [f"benchmark/{number}" for number in range(stream_count)]
        with StreamClient(server.port) as client:
            for path in paths:
                client.create(path, CONTENT_TYPE)
        writers = make_writers(server.port, writer_count, paths, CONTENT_TYPE, producer=producer)
        cpu = CpuMeter(server)
        window = drive(writers, (), warm_up_s=WARM_UP_S, seconds=min(seconds, SECONDS_MAX), cpu=cpu)
        leave(writers)
        times_ms = latencies_ms(writers, window)
        return {
            "appends/s": len(times_ms) / window.seconds,
            "p50, ms": percentile(times_ms, 50),
            "p99, ms": percentile(times_ms, 99),
            "lost, doubled or reordered, messages": count_append_faults(server.port, writers),
            "one sync of the disk, p50, ms": sync_p50_ms,
            "server CPU, % of its core": cpu.server_percent,
            "load CPU, % of its core": cpu.load_percent,
        }

    return measure


def case(name: str, writer_count: int, stream_count: int, aims: dict[str, Aim], *, producer: bool = False) -> Case:
    connections = f"{writer_count} connections" if writer_count > 1 else "One connection"
    streams = f"{stream_count} streams" if stream_count > 1 else "one stream"
    headers = " with producer headers (exactly once)" if producer else ""
    return Case(
        name=name,
        claim=f"{connections}, {streams}, appends of {MESSAGE_BYTES} bytes{headers}: each connection sends the next "
        "when the one before was acknowledged (which node_memory does without storing it). All is read back and "
        f"compared. {WARM_UP_S:g} s of warm-up.",
        room="silent",
        measure=measure_with(writer_count, stream_count, producer),
        aims=aims | {"lost, doubled or reordered, messages": at_most(0)},
        beside=KINDS,
    )


CASES = (
    case("streams_append", 64, 1, {"appends/s": at_least(35_000)}),
    case("streams_append_100", 64, 100, {"appends/s": at_least(35_000)}),
    case("streams_append_one", 1, 1, {"p50, ms": at_most(0.45)}),
    case("streams_producer", 64, 1, {}, producer=True),
    case("streams_producer_100", 64, 100, {}, producer=True),
    case("streams_producer_one", 1, 1, {}, producer=True),
)
