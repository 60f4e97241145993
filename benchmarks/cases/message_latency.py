"""A client's message until it comes back to it, durable."""

from __future__ import annotations

from time import monotonic

from ..harness import Case, Server, at_most
from ..load import MESSAGE, close, connect, percentile

WARM_UP_COUNT = 100
MESSAGE_COUNT_MAX = 5_000
CONTENT = "x" * 100


async def measure(server: Server, seconds: float) -> dict[str, float]:
    client, _ = await connect(server.port, "r0")
    for _ in range(WARM_UP_COUNT):
        await client.ask(CONTENT, MESSAGE)
    times_ms: list[float] = []
    started = monotonic()
    while len(times_ms) < MESSAGE_COUNT_MAX and monotonic() - started < seconds:
        times_ms.append(await client.ask(CONTENT, MESSAGE) * 1000)
    elapsed_s = monotonic() - started
    await close([client])
    return {
        "p50, ms": percentile(times_ms, 50),
        "p99, ms": percentile(times_ms, 99),
        "messages/s": len(times_ms) / elapsed_s,
    }


CASE = Case(
    name="message_latency",
    claim="One client sends messages of 100 bytes one at a time; from the send to its own broadcast, which "
    "leaves when the message is durable.",
    room="silent",
    measure=measure,
    aims={"p50, ms": at_most(0.45)},
)
