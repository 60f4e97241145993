"""What every case needs: a pinned server on a fresh folder, what it used, and the shape of a case."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from . import reference

SERVER_CORE = 0
LOAD_CORE = 1
START_SECONDS_MAX = 120
"""A server that is not healthy by then has failed."""


@dataclass(frozen=True)
class Aim:
    """What a figure should reach."""

    limit: float
    at_least: bool

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:,g}"


def at_least(limit: float) -> Aim:
    return Aim(limit, at_least=True)


def at_most(limit: float) -> Aim:
    return Aim(limit, at_least=False)


@dataclass(frozen=True)
class Case:
    """One measurement."""

    name: str
    claim: str
    room: str
    """Which of the rooms in server.py perdure runs."""
    measure: Callable[[Server, float], Coroutine[Any, Any, dict[str, float]]]
    """(server, seconds) -> figures by name; a name ends with its unit."""
    aims: dict[str, Aim]
    beside: tuple[str, ...] = ("floor",)
    """The kinds of server that perdure is measured beside."""


class Server:
    """One server process on its own core, with a data folder of its own.

    Raises:
        NotInstalled: it is the reference server, and that is not in ``npm_folder``.
    """

    def __init__(self, kind: str, room: str, data_root: str | None, npm_folder: Path = reference.NPM_FOLDER) -> None:
        if kind in reference.KINDS:
            reference.require(npm_folder)
        self.kind = kind
        self.process: subprocess.Popen[bytes] | None = None
        self.data = tempfile.mkdtemp(prefix="perdure-benchmark-", dir=data_root)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        if kind in reference.KINDS:
            self.command = reference.command(kind, self.port, self.data, npm_folder)
            return
        self.command = [sys.executable, "-m", f"benchmarks.{'floor' if kind == 'floor' else 'server'}"]
        self.command += ["--port", str(self.port)]
        if kind != "floor":
            self.command += ["--data", self.data, "--room", room]

    def start(self) -> float:
        """Start the process; returns the seconds until it is healthy."""
        started = monotonic()
        self.process = subprocess.Popen(
            self.command,
            stdout=sys.stderr,  # standard output is the report's
            preexec_fn=lambda: os.sched_setaffinity(0, {SERVER_CORE}),
        )
        while monotonic() - started < START_SECONDS_MAX:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.command}")
            with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                if self._is_healthy():
                    return monotonic() - started
            sleep(0.005)
        raise RuntimeError(f"the server is not healthy after {START_SECONDS_MAX} s")

    def _is_healthy(self) -> bool:
        """Whether ``/healthz`` says 200; the reference server has none, so that any answer will do."""
        try:
            return bool(self.get("/healthz"))
        except urllib.error.HTTPError:
            return self.kind in reference.KINDS

    def kill(self) -> None:
        """kill -9."""
        self.end(signal.SIGKILL)

    def end(self, signal_number: int = signal.SIGTERM) -> None:
        """End the process, by force if it does not want to."""
        if self.process is None:
            return
        self.process.send_signal(signal_number)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def remove(self) -> None:
        self.kill()
        shutil.rmtree(self.data, ignore_errors=True)

    def get(self, path: str) -> str:
        """The body of a 200 answer (else an URLError)."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
            return str(answer.read().decode())

    def metric(self, name_part: str) -> float | None:
        """The first Prometheus sample with this in its name, where the server has any."""
        try:
            samples = self.get("/metrics")
        except urllib.error.URLError:
            return None
        found = re.search(rf"^\w*{name_part}\w*(?:{{.*}})? (\S+)$", samples, re.MULTILINE)
        return float(found[1]) if found else None

    def cpu_seconds(self) -> float:
        """CPU time of all its threads so far, by the scheduler's nanoseconds."""
        total_ns = 0
        for thread in Path(f"/proc/{self._pid}/task").iterdir():
            with suppress(FileNotFoundError):
                total_ns += int((thread / "schedstat").read_text().split()[0])
        return total_ns / 1e9

    def resident_kib(self) -> float:
        """Resident memory in KiB."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        return float(status.split("VmRSS:")[1].split()[0])

    @property
    def _pid(self) -> int:
        assert self.process is not None, "the server is not running"
        return self.process.pid


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table that also lines up in a terminal."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
