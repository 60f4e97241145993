"""A real server in a process of its own: started, killed, stopped, started again on the same folder."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from http.client import HTTPResponse
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SOURCES = HERE.parent.parent / "src"
START_WITHIN_S = 60
STOP_WITHIN_S = 10


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


PERDURE_RUN = (sys.executable, "-c", "from perdure.cli import main; main()", "run", "--port")
UVICORN = (
    *(sys.executable, "-m", "uvicorn", "--ws", "websockets-sansio", "--loop", "uvloop", "--http", "httptools"),
    *("--no-access-log", "--timeout-graceful-shutdown", "1", "--port"),
)


class Served:
    """``perdure run`` (or uvicorn) with one of this folder's applications; one address and data folder for life."""

    def __init__(
        self, folder: Path, app: str = "rooms:app", *, command: tuple[str, ...] = PERDURE_RUN, **environment: str
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = folder / "server.log"
        self._command = [*command, str(self.port), app]
        path = os.pathsep.join(filter(None, (str(SOURCES), os.environ.get("PYTHONPATH"))))
        self._environment = {
            **os.environ,
            "PYTHONPATH": path,
            "PERDURE_DATA": str(folder / "data"),
            **environment,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(self._command, cwd=HERE, env=self._environment, stdout=log, stderr=log)
        deadline = time.monotonic() + START_WITHIN_S
        while not self._ready():
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/healthz", timeout=1):
                return True
        except OSError:
            return False

    def kill(self) -> None:
        """As the power would: no goodbye."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """As an operator would: SIGTERM, and time to tidy up."""
        self._end(signal.SIGTERM)

    def restart_after_kill(self) -> None:
        """Kill it, start it again."""
        self.kill()
        self.start()

    def _end(self, signal_number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(signal_number)
        self._process.wait(STOP_WITHIN_S)
        self._process = None

    # --- plain requests

    def call(self, room: str, method: str, *arguments: Any) -> Any:
        """Call a method of a room."""
        return self.post(f"/rpc/Room/{room}/{method}", arguments)

    def post(self, path: str, body: Any) -> Any:
        """POST JSON, read JSON."""
        with self.open(path, body) as response:
            return json.load(response)

    def get(self, path: str) -> Any:
        """GET JSON."""
        with self.open(path) as response:
            return json.load(response)

    def open(self, path: str, body: Any = None) -> HTTPResponse:
        """GET, or POST a body; the response as it arrives, whatever its status."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": "application/json"})
        response: HTTPResponse = _opener.open(request, timeout=10)
        return response


class _AnyStatus(urllib.request.HTTPErrorProcessor):
    """A refusal is an answer like any other; tests look at its status."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response


_opener = urllib.request.build_opener(_AnyStatus)
