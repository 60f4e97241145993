"""Durable Streams: many readers at the tail of one stream, with and without a long history before it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ..harness import Case, Server, at_least, at_most
from ..load import CpuMeter
from ..machine import sync_latency_ms
from ..reference import KINDS
from ..stream_check import deliveries_of, latencies_ms
from ..stream_http import StreamClient
from ..stream_load import MESSAGE_BYTES, drive, join_all, leave, make_writers

CONTENT_TYPE = "text/plain"
READER_COUNT = 500
KEEPING_COUNT = 5
"""Readers whose every byte is compared with the stream; of the others, the messages are counted."""

HISTORY_COUNT = 50_000
HISTORY_SECONDS_MAX = 20
"""A server that appends too slowly gets a shorter history than that; the figures say how long."""

HISTORY_WRITERS = 50
WARM_UP_S = 0.5
SECONDS_MAX = 5.0

Measure = Callable[[Server, float], Coroutine[Any, Any, dict[str, float]]]


def measure_with(writer_count: int) -> Measure:
    """What measures so many connections that append, first without a history and then after one."""

    async def measure(server: Server, seconds: float) -> dict[str, float]:
        seconds = min(seconds, SECONDS_MAX)
        with StreamClient(server.port) as client:
            client.create("benchmark/empty", CONTENT_TYPE)
            client.create("benchmark/history", CONTENT_TYPE)
        empty = tail(server, "benchmark/empty", writer_count, seconds)
        history_count = fill(server, "benchmark/history")
        long = tail(server, "benchmark/history", writer_count, seconds)
        figures = {**empty, "history, messages": history_count}
        figures |= {f"after history: {name}": value for name, value in long.items()}
        if empty["deliveries/s"]:
            figures["after history / empty, deliveries/s"] = long["deliveries/s"] / empty["deliveries/s"]
        return figures

    return measure


def fill(server: Server, path: str) -> int:
    """Give a stream a history; returns its messages."""
    limit = HISTORY_COUNT // HISTORY_WRITERS
    writers = make_writers(server.port, HISTORY_WRITERS, [path], CONTENT_TYPE, limit=limit)
    drive(writers, (), warm_up_s=0, seconds=HISTORY_SECONDS_MAX, cpu=CpuMeter(server))
    leave(writers)
    return sum(len(writer.answered_at) for writer in writers)


def tail(server: Server, path: str, writer_count: int, seconds: float) -> dict[str, float]:
    """The figures of readers and writers on one stream."""
    sync_p50_ms, _ = sync_latency_ms(server.data)
    with StreamClient(server.port) as client:
        history_bytes = client.read(path)
    readers = join_all(server.port, path, READER_COUNT, keeping=KEEPING_COUNT)
    writers = make_writers(server.port, writer_count, [path], CONTENT_TYPE)
    cpu = CpuMeter(server)
    window = drive(writers, readers, warm_up_s=WARM_UP_S, seconds=seconds, cpu=cpu)
    leave([*writers, *readers])
    with StreamClient(server.port) as client:
        stored = client.read_all(path)[history_bytes:]
    deliveries = deliveries_of(readers, writers, stored, window)
    figures = {"deliveries/s": deliveries.count / window.seconds}
    if deliveries.count:
        figures["delivery p50, ms"] = deliveries.percentile_ms(50)
        figures["delivery p99, ms"] = deliveries.percentile_ms(99)
    return figures | {
        "appends/s": len(latencies_ms(writers, window)) / window.seconds,
        "lost, doubled or damaged, deliveries": deliveries.fault_count,
        "readers cut off": deliveries.cut_off_count,
        "appends repeated": sum(writer.repeated.total() for writer in writers),
        "one sync of the disk, p50, ms": sync_p50_ms,
        "server CPU, % of its core": cpu.server_percent,
        "load CPU, % of its core": cpu.load_percent,
    }


def case(name: str, writer_count: int) -> Case:
    appends = f"{writer_count} connections append" if writer_count > 1 else "one connection appends"
    return Case(
        name=name,
        claim=f"{READER_COUNT} event-stream readers at the tail of one stream, to which {appends} messages of "
        f"{MESSAGE_BYTES} bytes, each when the one before was acknowledged. A delivery is one message to one "
        f"reader; its time is from the append's leaving to its arrival. Then the same on a stream with "
        f"{HISTORY_COUNT:,} messages before them, or as many as the server takes in {HISTORY_SECONDS_MAX} s. "
        f"Each has {WARM_UP_S:g} s of warm-up. An append whose connection the server ends is repeated on another.",
        room="silent",
        measure=measure_with(writer_count),
        aims={
            "deliveries/s": at_least(150_000),
            "lost, doubled or damaged, deliveries": at_most(0),
            "readers cut off": at_most(0),
            "after history: lost, doubled or damaged, deliveries": at_most(0),
            "after history: readers cut off": at_most(0),
            "after history / empty, deliveries/s": at_least(0.9),
        },
        beside=KINDS,
    )


CASES = (case("streams_tail_1", 1), case("streams_tail_8", 8))
