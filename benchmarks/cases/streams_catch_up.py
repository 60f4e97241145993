"""Durable Streams: a long stream from its beginning to its end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from time import monotonic

from ..harness import Case, Server, at_least, at_most
from ..load import CpuMeter, Unexpected
from ..reference import KINDS
from ..stream_http import StreamClient

PATH = "benchmark/long"
CONTENT_TYPE = "application/octet-stream"
MESSAGE_BYTES = 65_536
MESSAGE_COUNT = 800
STREAM_BYTES = MESSAGE_BYTES * MESSAGE_COUNT
SECONDS_MAX = 3.0
SETTLE_S = 1.0
WATCH_S = 0.005


async def measure(server: Server, seconds: float) -> dict[str, float]:
    with StreamClient(server.port) as client:
        client.create(PATH, CONTENT_TYPE)
        for number in range(MESSAGE_COUNT):
            client.append(PATH, CONTENT_TYPE, message(number))
    await asyncio.sleep(SETTLE_S)
    before_kib = private_kib(server)
    cpu = CpuMeter(server)
    memory = MemoryWatch(server)
    memory.start()
    read_count, elapsed_s = 0, 0.0
    with StreamClient(server.port) as client:
        while elapsed_s < min(seconds, SECONDS_MAX):
            cpu.start()
            started = monotonic()
            count = client.read(PATH)
            elapsed_s += monotonic() - started
            cpu.stop()
            if count != STREAM_BYTES:
                raise Unexpected(f"{count} bytes of {STREAM_BYTES} came back")
            read_count += 1
    peak_kib = memory.stop()
    with StreamClient(server.port) as client:
        damaged = client.read_all(PATH) != b"".join(message(number) for number in range(MESSAGE_COUNT))
    return {
        "MB/s": read_count * STREAM_BYTES / 1e6 / elapsed_s,
        "private memory before, MiB": before_kib / 1024,
        "private memory at its highest, MiB": peak_kib / 1024,
        "highest - before, MiB": (peak_kib - before_kib) / 1024,
        "damaged, streams": damaged,
        "server CPU, % of its core": cpu.server_percent,
        "load CPU, % of its core": cpu.load_percent,
    }


def message(number: int) -> bytes:
    """The message of this number, unlike the others."""
    return b"%08d" % number * (MESSAGE_BYTES // 8)


def private_kib(server: Server) -> float:
    """The process's own memory. Mapped pages of files are the system's cache, which others read by calls."""
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return float(status.split("RssAnon:")[1].split()[0])


class MemoryWatch(threading.Thread):
    """Looks at the server's private memory every few milliseconds."""

    def __init__(self, server: Server) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._ended = threading.Event()
        self._highest_kib = 0.0

    def run(self) -> None:
        while not self._ended.wait(WATCH_S):
            self._highest_kib = max(self._highest_kib, private_kib(self._server))

    def stop(self) -> float:
        """End; the highest, in KiB."""
        self._ended.set()
        self.join()
        return max(self._highest_kib, private_kib(self._server))


CASE = Case(
    name="streams_catch_up",
    claim=f"A stream of {STREAM_BYTES / 2**20:.0f} MiB, written in {MESSAGE_COUNT} messages of 64 KiB, read from its "
    "beginning following Stream-Next-Offset until it is up to date, again and again on one connection; the server's "
    "private memory before the first read and at its highest (looked at every 5 ms).",
    room="silent",
    measure=measure,
    aims={"MB/s": at_least(700), "highest - before, MiB": at_most(16), "damaged, streams": at_most(0)},
    beside=KINDS,
)
