"""Where the figures were measured: processor, kernel, disk, versions."""

from __future__ import annotations

import os
import platform
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

from .load import percentile

PACKAGES = ("perdure", "uvicorn", "uvloop", "httptools", "websockets", "msgspec", "apsw", "picows")
SYNC_COUNT = 200


def describe(data_root: str | None) -> dict[str, str]:
    """Facts by name, as text."""
    model = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    processor = model[1] if model else platform.machine()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    p50_ms, p99_ms = sync_latency_ms(data_root)
    return {
        "processor": f"{os.cpu_count()} x {processor}, {memory_gib:.0f} GiB",
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": ", ".join(f"{package} {installed(package)}" for package in PACKAGES),
        "disk": f"4 KiB append + fdatasync: p50 {p50_ms:.2f} ms, p99 {p99_ms:.2f} ms",
    }


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "from source"


def sync_latency_ms(data_root: str | None) -> tuple[float, float]:
    """What the disk under the data folders takes for one durable append: p50, p99."""
    times_ms = []
    with tempfile.TemporaryFile(dir=data_root) as file:
        for _ in range(SYNC_COUNT):
            started = monotonic()
            os.write(file.fileno(), bytes(4096))
            os.fdatasync(file.fileno())
            times_ms.append((monotonic() - started) * 1000)
    return percentile(times_ms, 50), percentile(times_ms, 99)
