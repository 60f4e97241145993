"""Clients of TanStack AI, run by node, and the server that they are tested against."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.served import PERDURE_RUN, SOURCES, Served
from tests.e2e.use_chat import NPM
from tests.requirements import need

ROOT = NPM.parent.parent
WITHIN_S = 30

VERSIONS = {"newest": "@tanstack/ai-client", "pinned": "tanstack-client-pinned"}
"""The package by which version it is; the pinned one is from before messages were spread out on the wire."""

State = dict[str, Any]


class TanStackNode:
    """One node process with any number of clients of one version.

    ``is_newest``, or the pinned one. ``shows_late_results``: before 0.48 a client forgot in which message it had a
    call when it posted the approval, and dropped the call's result; what the model made of it was shown.
    """

    def __init__(self, package: str) -> None:
        self.is_newest = package == VERSIONS["newest"]
        self.shows_late_results = self.is_newest
        need("node", shutil.which("node") is not None, "apt-get install nodejs")
        for name in (package, "@durable-streams/tanstack-ai-transport"):
            need(
                f"the npm package `{name}`", (NPM / "node_modules" / name).is_dir(), "npm install --prefix tests/npm"
            )
        self._process = subprocess.Popen(
            ["node", "tanstack.mjs", package], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._names = 0

    def open(self, url: str, room: str, via: str, **options: Any) -> Tab:
        """A client in a room, ``via`` sse, ndjson or session; see the script for more."""
        self._names += 1
        name = f"tab{self._names}"
        self.do("open", name=name, url=url, room=room, via=via, **options)
        tab = Tab(self, name)
        tab.until(lambda state: state["joined"])
        return tab

    def do(self, action: str, **values: Any) -> State:
        """One command, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": action, **values}) + "\n")
        self._process.stdin.flush()
        answer: State = json.loads(self._process.stdout.readline())
        assert "failure" not in answer, answer["failure"]
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate(timeout=10)


class Tab:
    """One client."""

    def __init__(self, node: TanStackNode, name: str) -> None:
        self._node = node
        self._name = name

    def do(self, action: str, **values: Any) -> State:
        """``say``, ``stop``, ``reload``, ``approve``, ``result``. It goes on by itself."""
        return self._node.do(action, name=self._name, **values)

    @property
    def state(self) -> State:
        """What it shows."""
        return self.do("state")

    def close(self) -> None:
        """Leave, as a closed or reloaded page does."""
        self.do("close")

    def until(self, holds: Callable[[State], object]) -> State:
        """Wait until what it shows is such."""
        deadline = time.monotonic() + WITHIN_S
        while not holds(state := self.state):
            assert time.monotonic() < deadline, state
            time.sleep(0.01)
        return state

    def until_texts(self, *expected: tuple[str, str]) -> State:
        """Wait until it shows these, and waits for nothing."""
        return self.until(lambda state: texts(state) == list(expected) and not state["loading"])

    def until_said(self, said: str) -> State:
        """Wait until it shows that."""
        return self.until(lambda state: said in str(state["messages"]))

    def until_call(self, call_state: str, call_id: str = "c1") -> State:
        """Wait until a call is in that state, and it waits for nothing else."""
        return self.until(lambda state: calls(state).get(call_id) == call_state and not state["loading"])


def texts(state: State) -> list[tuple[str, str]]:
    """Role and text of the client's messages."""
    return [
        (message["role"], "".join(part["content"] for part in message["parts"] if part["type"] == "text"))
        for message in state["messages"]
    ]


def parts(state: State, kind: str) -> list[dict[str, Any]]:
    """All parts of that kind."""
    return [part for message in state["messages"] for part in message["parts"] if part["type"] == kind]


def calls(state: State) -> dict[str, str]:
    """The states of the tool calls, by id."""
    return {part["id"]: part["state"] for part in parts(state, "tool-call")}


def outputs(state: State) -> dict[str, Any]:
    """What the tool calls gave, by id."""
    return {part["id"]: part["output"] for part in parts(state, "tool-call") if "output" in part}


def ids(state: State) -> list[str]:
    """The ids of the client's messages."""
    return [message["id"] for message in state["messages"]]


def grew(state: State, answer: str) -> bool:
    """Whether all that was ever shown as the last message was a beginning of the answer."""
    return all(answer.startswith(shown[-1]) for shown in state["seen"] if len(shown) >= 2)


def stored(server: Served, room: str) -> list[tuple[str, str]]:
    """Role and text of the room's messages."""
    messages: list[dict[str, Any]] = server.get(f"/api/chat/{room}/messages")
    return [
        (message["role"], "".join(part["text"] for part in message["parts"] if part["type"] == "text"))
        for message in messages
    ]


def ran(server: Served, room: str, tool: str) -> int:
    """How often a tool has taken effect in a room."""
    count: int = server.call(room, "count", tool)["result"]
    return count


def tanstack_server(folder: Path, **environment: str) -> Served:
    """`tanstack_app.py` in a process of its own."""
    path = os.pathsep.join((str(SOURCES), str(ROOT)))
    return Served(folder, "tests.e2e.tanstack_app:app", command=PERDURE_RUN, PYTHONPATH=path, **environment)
