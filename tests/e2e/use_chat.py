"""Tabs of a React page with ``useChat``, run by node in jsdom."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NPM = Path(__file__).parent.parent / "npm"
WITHIN_S = 10


@dataclass(frozen=True)
class State:
    """What a tab shows; ``seen`` is every state that it rendered: status, text of the newest answer.

    ``data``, ``calls`` and ``finished`` are what its callbacks were given: data parts, ids of tool calls, ends.
    """

    status: str
    error: str | None
    messages: list[dict[str, Any]]
    seen: list[tuple[str, str | None]]
    data: list[dict[str, Any]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    finished: list[dict[str, Any]] = field(default_factory=list)

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of every message."""
        return [
            (message["role"], "".join(part["text"] for part in message["parts"] if part["type"] == "text"))
            for message in self.messages
        ]

    def part(self, kind: str) -> dict[str, Any]:
        """The newest part of that type, in any message; empty where there is none."""
        parts = [part for message in self.messages for part in message["parts"] if part["type"] == kind]
        return parts[-1] if parts else {}

    @property
    def answer(self) -> str:
        """The text of the newest answer, or nothing."""
        return next((text for role, text in reversed(self.texts) if role == "assistant"), "")


class React:
    """One node process with any number of tabs; ``major`` is the version of ``ai`` (``6-first``: 6.0.0)."""

    def __init__(self, major: int | str) -> None:
        self.major = major
        self._process = subprocess.Popen(
            ["node", "use_chat.mjs", str(major)], cwd=NPM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._tabs = 0

    def open(
        self,
        url: str,
        room: str,
        *,
        resume: bool = False,
        messages: list[dict[str, Any]] | None = None,
        **options: Any,
    ) -> ReactTab:
        """Mount a page with ``useChat({id: room, resume, messages})``.

        ``options``: ``transport`` (``http``, ``socket``, ``helix``), ``auto`` (send again when all results are in),
        ``tools`` (client tools and what they give), ``strict`` (React's strict mode), ``body``, ``query``.
        """
        self._tabs += 1
        tab = ReactTab(self, f"tab{self._tabs}")
        tab.do("open", url=url, id=room, resume=resume, messages=messages or [], **options)
        return tab

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


class ReactTab:
    """One mounted page."""

    def __init__(self, react: React, name: str) -> None:
        self._react = react
        self._name = name

    def do(self, action: str, **values: Any) -> State:
        """Call the hook: ``send``, ``regenerate``, ``stop``, ``resume``. It goes on by itself."""
        answer = self._react.command(tab=self._name, do=action, **values)
        return State(**{**answer, "seen": [tuple(one) for one in answer["seen"]]})

    def state(self) -> State:
        """What the tab shows now."""
        return self.do("state")

    def close(self) -> None:
        """Unmount it, as a closed or reloaded page does."""
        self._react.command(tab=self._name, do="close")

    def until(self, holds: Callable[[State], object]) -> State:
        """Wait until what the tab shows is such."""
        deadline = time.monotonic() + WITHIN_S
        while not holds(state := self.state()):
            assert time.monotonic() < deadline, state
            time.sleep(0.01)
        return state

    def until_words(self, count: int) -> State:
        """Until the newest answer has got that far."""
        return self.until(lambda state: f"word{count} " in state.answer)

    def until_ready(self, answers: int = 1) -> State:
        """Until there are that many answers and none is being made."""
        return self.until(
            lambda state: (
                state.status == "ready"
                and sum(message["role"] == "assistant" for message in state.messages) >= answers
            )
        )
