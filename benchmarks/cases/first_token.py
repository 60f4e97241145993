"""What the path around the model adds to its first token."""

from __future__ import annotations

import asyncio
from time import monotonic

from ..harness import Case, Server, at_most
from ..load import COMPLETE, DELTA, Unexpected, close, connect, percentile, read_frame
from ..script import parse_chunk

THINK_MS = 20
TURN_COUNT_MAX = 200


async def measure(server: Server, seconds: float) -> dict[str, float]:
    client, _ = await connect(server.port, "r0")
    added_ms: list[float] = []
    started = monotonic()
    while len(added_ms) < TURN_COUNT_MAX and monotonic() - started < seconds:
        client.forget()
        end = client.expect(COMPLETE)
        sent = client.say(f"first {THINK_MS}")
        await asyncio.wait_for(end, 30)
        for arrival, payload in zip(client.arrivals, client.payloads, strict=True):
            if payload.startswith(DELTA):
                thought_us, _ = parse_chunk(read_frame(payload).delta)
                added_ms.append((arrival - sent) * 1000 - thought_us / 1000)
                break
        else:
            raise Unexpected("an answer without a delta")
    await close([client])
    return {"added p50, ms": percentile(added_ms, 50), "added p99, ms": percentile(added_ms, 99)}


CASE = Case(
    name="first_token",
    claim="From a client's message to the first delta, less the time that the model really took to say it "
    f"(some {THINK_MS} ms).",
    room="scripted",
    measure=measure,
    aims={"added p50, ms": at_most(2)},
)
