"""The npm clients of Durable Streams, run by node, and the servers that they are tested against."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.served import PERDURE_RUN, SOURCES, UVICORN, Served
from tests.e2e.use_chat import NPM, React
from tests.requirements import need

ROOT = NPM.parent.parent
WITHIN_S = 20

PACKAGES = (
    "@durable-streams/client",
    "@durable-streams/aisdk-transport",
    "@durable-streams/tanstack-ai-transport",
    "@tanstack/ai-client",
)

State = dict[str, Any]


class Node:
    """One process of ``durable_clients.mjs`` with any number of readers, writers and sessions."""

    def __init__(self) -> None:
        need_packages()
        self._process = _start("durable_clients.mjs")
        self._names = 0

    def do(self, action: str, **values: Any) -> State:
        """One command, one answer."""
        return _ask(self._process, {"do": action, **values})

    def start(self, action: str, url: str, **values: Any) -> Actor:
        """Start a ``read``, a ``produce`` or a session (``joinSession``)."""
        self._names += 1
        name = f"{action}{self._names}"
        self.do(action, name=name, url=url, **values)
        return Actor(self, name)

    def close(self) -> None:
        """End the process."""
        _stop(self._process)


class Actor:
    """Something that goes on by itself in the process."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self._name = name

    def do(self, action: str, **values: Any) -> State:
        """A command to it."""
        return self._node.do(action, name=self._name, **values)

    @property
    def state(self) -> State:
        """How far it is."""
        return self.do("state")

    def until_read(self, count: int) -> State:
        """Wait until a reader has so many items."""
        return self.until(lambda state: len(state["items"]) >= count)

    def until(self, holds: Callable[[State], object]) -> State:
        """Wait until its state is such."""
        deadline = time.monotonic() + WITHIN_S
        while not holds(state := self.state):
            assert time.monotonic() < deadline, state
            time.sleep(0.01)
        return state


class DurableReact(React):
    """``useChat`` over the Durable Streams transport. A tab's ``url`` is the whole address to post to."""

    def __init__(self, major: int) -> None:
        need_packages()
        need("node", shutil.which("node") is not None, "apt-get install nodejs")
        self._process = _start("durable_use_chat.mjs", str(major))
        self._tabs = 0


def need_packages() -> None:
    """Skip the test where node or its packages are not there."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    for package in PACKAGES:
        need(
            f"the npm package `{package}`",
            (NPM / "node_modules" / package).is_dir(),
            "npm install --prefix tests/npm",
        )


def _start(*script: str) -> subprocess.Popen[str]:
    return subprocess.Popen(["node", *script], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _ask(process: subprocess.Popen[str], command: dict[str, Any]) -> State:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(command) + "\n")
    process.stdin.flush()
    answer: State = json.loads(process.stdout.readline())
    assert "failure" not in answer, answer["failure"]
    return answer


def _stop(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=10)


def durable_server(folder: Path, *, plain: bool = False, **environment: str) -> Served:
    """`durable_app.py` in a process of its own, under `perdure run`; ``plain``: under uvicorn, inside a FastAPI."""
    path = os.pathsep.join((str(SOURCES), str(ROOT)))
    name, command = ("outer", UVICORN) if plain else ("app", PERDURE_RUN)
    return Served(folder, f"tests.e2e.durable_app:{name}", command=command, PYTHONPATH=path, **environment)
