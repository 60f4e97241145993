"""Tabs with the clients of Cloudflare's Agents SDK, and with PartySocket, run by node."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import NPM, WITHIN_S


@dataclass(frozen=True)
class Shown:
    """What a tab shows.

    ``events`` is what it was told: ``["state", value, "server" | "client"]``, ``["message", data]`` and so on;
    ``results`` what its calls came to, by key. A chat's ``seen`` is every state that it rendered: status, text
    of the newest answer.
    """

    identified: bool = False
    open: bool = False
    name: str | None = None
    agent: str | None = None
    state: Any = None
    events: list[list[Any]] = field(default_factory=list)
    results: dict[str, Any] = field(default_factory=dict)
    status: str = ""
    error: str | None = None
    streaming: bool = False
    messages: list[dict[str, Any]] = field(default_factory=list)
    seen: list[tuple[str, str | None]] = field(default_factory=list)

    def told(self, kind: str) -> list[list[Any]]:
        """The events of one kind, without its name."""
        return [event[1:] for event in self.events if event[0] == kind]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of every message."""
        return [
            (message["role"], "".join(part["text"] for part in message["parts"] if part["type"] == "text"))
            for message in self.messages
        ]

    @property
    def answer(self) -> str:
        """The text of the newest answer, or nothing."""
        return next((text for role, text in reversed(self.texts) if role == "assistant"), "")

    @property
    def ready(self) -> bool:
        """Whether no answer is being made, as far as the tab knows."""
        return self.status == "ready" and not self.streaming

    def parts(self, kind: str) -> list[dict[str, Any]]:
        """The parts of the newest answer that are of this type."""
        answer = next((message for message in reversed(self.messages) if message["role"] == "assistant"), None)
        return [] if answer is None else [part for part in answer["parts"] if part["type"] == kind]


class Node:
    """One node process with any number of tabs."""

    def __init__(self, sdk: str, ai: int) -> None:
        self._process = subprocess.Popen(
            ["node", "--experimental-websocket", "--no-warnings", "cloudflare.mjs", sdk, str(ai)],
            cwd=NPM,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.rooms: list[str] = []
        """What its open tabs show."""

    def command(self, **command: Any) -> dict[str, Any]:
        """One command, one answer."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "failure" not in answer, answer["failure"]
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


class Cloudflare:
    """Browsers: ``sdk`` is newest or pinned, ``ai`` 6 or 7.

    The pages of one process share what they load, as those of a real browser never do: so two that show the same
    room get a process each.
    """

    def __init__(self, sdk: str, ai: int) -> None:
        self.sdk, self._ai = sdk, ai
        self._nodes: list[Node] = []
        self._tabs: list[Tab] = []
        self._opened = 0

    def open(self, kind: str, url: str, agent: str, name: str, **options: Any) -> Tab:
        """Open a tab: ``client`` is an `AgentClient`, ``agent`` `useAgent`, ``chat`` `useAgentChat`."""
        node = next((node for node in self._nodes if name not in node.rooms), None)
        if node is None:
            node = Node(self.sdk, self._ai)
            self._nodes.append(node)
        self._opened += 1
        tab = Tab(node, f"tab{self._opened}", name)
        self._tabs.append(tab)
        tab.do("open", kind=kind, url=url, agent=agent, name=name, **options)
        return tab

    def close_tabs(self) -> None:
        """Close what a test has left open."""
        for tab in self._tabs:
            tab.close()
        self._tabs.clear()

    def close(self) -> None:
        """End the processes."""
        for node in self._nodes:
            node.close()


class Tab:
    """One client."""

    def __init__(self, node: Node, name: str, room: str) -> None:
        self._node = node
        self._name = name
        self._room = room
        self._closed = False
        node.rooms.append(room)

    def do(self, action: str, **values: Any) -> Shown:
        """Do something with the client; what comes of it shows later."""
        answer = self._node.command(tab=self._name, do=action, **values)
        answer["seen"] = [(status, text) for status, text in answer.get("seen", ())]
        return Shown(**answer)

    def shown(self) -> Shown:
        """What the tab shows now."""
        return self.do("state")

    def close(self) -> None:
        """Close it, as one that leaves or reloads."""
        if not self._closed:
            self._closed = True
            self._node.rooms.remove(self._room)
            self._node.command(tab=self._name, do="close")

    def until(self, holds: Callable[[Shown], object], *, within_s: float = WITHIN_S) -> Shown:
        """Wait until what the tab shows is such."""
        deadline = time.monotonic() + within_s
        while not holds(shown := self.shown()):
            assert time.monotonic() < deadline, str(shown)[:4_000]
            time.sleep(0.01)
        return shown

    def until_identified(self) -> Shown:
        """Until it knows whom it has reached."""
        return self.until(lambda shown: shown.identified)

    def call(self, method: str, *arguments: Any, key: str = "call") -> Any:
        """Call a method and wait: ``{"value": ...}`` or ``{"error": ...}``."""
        self.do("call", key=key, method=method, args=arguments)
        return self.until(lambda shown: key in shown.results).results[key]

    def until_words(self, count: int) -> Shown:
        """Until the newest answer has got that far."""
        return self.until(lambda shown: f"word{count} " in shown.answer)

    def until_ready(self, answers: int = 1) -> Shown:
        """Until there are that many answers and none is being made."""
        return self.until(
            lambda shown: shown.ready and sum(role == "assistant" for role, _text in shown.texts) >= answers
        )


OpenChat = Callable[..., Tab]
"""Opens a page with ``useAgentChat`` in a room."""


def stored(server: Served, room: str) -> list[dict[str, Any]]:
    """The room's messages, as a page gets them that opens."""
    messages: list[dict[str, Any]] = server.get(f"/agents/talk-room/{room}/get-messages")
    return messages


def whole(shown: Shown) -> bool:
    """Whether the answer is there to its last word, settled, and in its place (old clients put it there last)."""
    return shown.ready and shown.texts[-1:] == [("assistant", words(80))]


def settled(server: Served, room: str, *tabs: Tab) -> list[dict[str, Any]]:
    """The messages, when the tabs show what the room has and no answer is being made."""

    def same(shown: Shown) -> bool:
        return not shown.streaming and shown.status in ("ready", "error") and shown.messages == stored(server, room)

    for tab in tabs:
        tab.until(same)
    return stored(server, room)
