"""Durable Streams: what readers cost for whom nothing comes, and whether anything is left of those who went."""

from __future__ import annotations

import asyncio
import os
from contextlib import suppress
from pathlib import Path

from ..harness import Case, Server, at_most
from ..reference import KINDS
from ..stream_http import StreamClient
from ..stream_load import join_all, leave

PATH = "benchmark/idle"
CONTENT_TYPE = "text/plain"
READER_COUNT = 1_000
WARM_UP_COUNT = 20
SETTLE_S = 1.0
IDLE_S = 5.0
"""It is not shortened: a timer that comes every second must not be missed."""


async def measure(server: Server, seconds: float) -> dict[str, float]:
    with StreamClient(server.port) as client:
        client.create(PATH, CONTENT_TYPE)
        client.append(PATH, CONTENT_TYPE, b"hello")
    # What the first readers load and allocate for good is not what a reader costs.
    leave(join_all(server.port, PATH, WARM_UP_COUNT))
    await asyncio.sleep(SETTLE_S)
    before_kib, sockets_before = server.resident_kib(), socket_count(server)
    readers = join_all(server.port, PATH, READER_COUNT)
    await asyncio.sleep(SETTLE_S)
    open_kib = server.resident_kib()
    idle_s = await cpu_seconds_in(server, IDLE_S)
    leave(readers)
    await asyncio.sleep(SETTLE_S)
    left_s = await cpu_seconds_in(server, IDLE_S)
    left_kib, sockets_left = server.resident_kib(), socket_count(server)
    # Allocators keep pages: whether the readers' memory is free again, others in their place tell.
    readers = join_all(server.port, PATH, READER_COUNT)
    await asyncio.sleep(SETTLE_S)
    again_kib = server.resident_kib()
    leave(readers)
    return {
        "open, KiB/reader": (open_kib - before_kib) / READER_COUNT,
        f"CPU in {IDLE_S:g} s while idle, s": idle_s,
        f"CPU in {IDLE_S:g} s after they left, s": left_s,
        "sockets still open after they left": sockets_left - sockets_before,
        "resident before, MiB": before_kib / 1024,
        "resident with readers, MiB": open_kib / 1024,
        "resident after they left, MiB": left_kib / 1024,
        "kept of a reader that left, KiB": (again_kib - open_kib) / READER_COUNT,
    }


async def cpu_seconds_in(server: Server, seconds: float) -> float:
    """What CPU time the server uses in the next seconds."""
    started_s = server.cpu_seconds()
    await asyncio.sleep(seconds)
    return server.cpu_seconds() - started_s


def socket_count(server: Server) -> int:
    """The sockets that the server's process has open."""
    assert server.process is not None
    count = 0
    for descriptor in Path(f"/proc/{server.process.pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            count += os.readlink(descriptor).startswith("socket:")
    return count


CASE = Case(
    name="streams_idle",
    claim=f"{READER_COUNT:,} event-stream readers of one stream to which nothing is appended: the server's resident "
    "memory and CPU time, with them and after they left. Kept of a reader that left: by how much the memory grows "
    "when as many come again.",
    room="silent",
    measure=measure,
    aims={
        "open, KiB/reader": at_most(14),
        f"CPU in {IDLE_S:g} s while idle, s": at_most(0.05),
        f"CPU in {IDLE_S:g} s after they left, s": at_most(0.05),
        "sockets still open after they left": at_most(0),
        "kept of a reader that left, KiB": at_most(1),
    },
    beside=KINDS,
)
