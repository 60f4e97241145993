"""A visit to a room with a long history."""

from __future__ import annotations

from time import monotonic

from ..harness import Case, Server, at_most
from ..load import MESSAGE, Unexpected, close, connect, percentile, read_frame

MESSAGE_COUNT = 1_000
CONTENT = "x" * 100
VISIT_COUNT_MAX = 300


async def measure(server: Server, seconds: float) -> dict[str, float]:
    writer, _ = await connect(server.port, "r0")
    for _ in range(MESSAGE_COUNT):
        await writer.ask(CONTENT, MESSAGE)
    times_ms: list[float] = []
    init_bytes = 0
    started = monotonic()
    while len(times_ms) < VISIT_COUNT_MAX and monotonic() - started < seconds:
        client, elapsed_s = await connect(server.port, "r0", f"delta=1&limit={MESSAGE_COUNT}")
        times_ms.append(elapsed_s * 1000)
        init_bytes = len(client.payloads[0])
        if len(read_frame(client.payloads[0]).messages) != MESSAGE_COUNT:
            raise Unexpected("the init frame has not all messages")
        await close([client])
    await close([writer])
    return {
        "p50, ms": percentile(times_ms, 50),
        "p99, ms": percentile(times_ms, 99),
        "init frame, KiB": init_bytes / 1024,
    }


CASE = Case(
    name="init_1000",
    claim=f"A warm room with {MESSAGE_COUNT:,} messages of 100 bytes: from the start of the TCP connect to "
    "its whole init frame.",
    room="silent",
    measure=measure,
    aims={"p50, ms": at_most(1)},
)
