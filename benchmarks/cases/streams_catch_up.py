"""Durable Streams: a long stream from its beginning to its end."""

from __future__ import annotations

import asyncio
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


async def measure(server: Server, seconds: float) -> dict[str, float]:
    with StreamClient(server.port) as client:
        client.create(PATH, CONTENT_TYPE)
        for number in range(MESSAGE_COUNT):
            client.append(PATH, CONTENT_TYPE, message(number))
    await asyncio.sleep(SETTLE_S)
    before_kib = server.resident_kib()
    forget_peak(server)
    cpu = CpuMeter(server)
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
    peak_kib = peak_resident_kib(server)
    with StreamClient(server.port) as client:
        damaged = client.read_all(PATH) != b"".join(message(number) for number in range(MESSAGE_COUNT))
    return {
        "MB/s": read_count * STREAM_BYTES / 1e6 / elapsed_s,
        "resident before, MiB": before_kib / 1024,
        "resident peak, MiB": peak_kib / 1024,
        "peak - before, MiB": (peak_kib - before_kib) / 1024,
        "damaged, streams": damaged,
        "server CPU, % of its core": cpu.server_percent,
        "load CPU, % of its core": cpu.load_percent,
    }


def message(number: int) -> bytes:
    """The message of this number, unlike the others."""
    return b"%08d" % number * (MESSAGE_BYTES // 8)


def forget_peak(server: Server) -> None:
    """Begin to look for the highest resident memory anew (see proc_pid_clear_refs(5))."""
    assert server.process is not None
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")


def peak_resident_kib(server: Server) -> float:
    assert server.process is not None
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0])


CASE = Case(
    name="streams_catch_up",
    claim=f"A stream of {STREAM_BYTES / 2**20:.0f} MiB, written in {MESSAGE_COUNT} messages of 64 KiB, read from its "
    "beginning following Stream-Next-Offset until it is up to date, again and again on one connection; the server's "
    "resident memory before the first read and at its highest.",
    room="silent",
    measure=measure,
    aims={"MB/s": at_least(700), "peak - before, MiB": at_most(16), "damaged, streams": at_most(0)},
    beside=KINDS,
)
