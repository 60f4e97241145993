"""The server as a process of its own, to be started and killed."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import perdure

REPOSITORY = Path(__file__).parents[2]
READY_S_MAX = 30.0
END_S_MAX = 15.0


def free_port() -> int:
    """A port that nobody has at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class ServerTrouble(Exception):
    """The server did not start, or did not end."""


class ServerProcess:
    """Starts ``module`` with ``--port`` and ``--data``; its output goes to a file beside the data."""

    def __init__(self, data: Path, *, module: str = "tests.soak.app") -> None:
        self.port = free_port()
        self.data = data
        self.log = data.parent / "server.log"
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process; returns at once."""
        source = Path(perdure.__file__).parents[1]
        environment = {**os.environ, "PYTHONPATH": f"{source}{os.pathsep}{REPOSITORY}"}
        command = [sys.executable, "-m", self._module, "--port", str(self.port), "--data", str(self.data)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=REPOSITORY)

    async def ready(self) -> None:
        """Wait until ``/healthz`` says 200.

        Raises:
            ServerTrouble: the process ended, or took too long.
        """
        deadline = asyncio.get_running_loop().time() + READY_S_MAX
        while asyncio.get_running_loop().time() < deadline:
            if self._process is None or self._process.poll() is not None:
                raise ServerTrouble(f"the server ended by itself; see {self.log}")
            if await self._healthy():
                return
            await asyncio.sleep(0.05)
        raise ServerTrouble(f"the server was not ready in {READY_S_MAX:g} s; see {self.log}")

    async def _healthy(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            return b" 200 " in await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()

    async def end(self, number: signal.Signals) -> int:
        """Send the signal and wait for the end; return the exit code.

        Raises:
            ServerTrouble: it does not end.
        """
        process = self._process
        assert process is not None
        process.send_signal(number)
        try:
            code = await asyncio.to_thread(process.wait, END_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise ServerTrouble(f"the server did not end {END_S_MAX:g} s after {number.name}") from None
        self._process = None
        return code

    def kill(self) -> None:
        """Make sure that nothing is left running."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
