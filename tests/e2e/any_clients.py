"""Clients of several families in one room: each can do what its family does, and says what it shows."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, Protocol, TypeAlias

from tests.e2e import tanstack
from tests.e2e.cloudflare import Cloudflare
from tests.e2e.served import Served
from tests.e2e.use_chat import React

from perdure.client import RoomClient

Line: TypeAlias = tuple[str, str, tuple[tuple[str, Any], ...]]
"""A message: role, text, and the results of its calls by id."""


class Family(Protocol):
    """A client, or one that is opened anew for each thing that it does."""

    def act(self, chance: Random) -> str:
        """Do something; what it was."""

    def shown(self) -> list[Line]:
        """What it shows now."""

    def close(self) -> None:
        """Leave."""


def lines(messages: list[dict[str, Any]]) -> list[Line]:
    """AI SDK messages, as they are compared."""
    return [
        (
            message["role"],
            "".join(part["text"] for part in message["parts"] if part["type"] == "text"),
            tuple(
                (part["toolCallId"], part["output"])
                for part in message["parts"]
                if part.get("state") == "output-available"
            ),
        )
        for message in messages
    ]


def owed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The calls that somebody must settle."""
    return [
        part
        for message in messages
        for part in message["parts"]
        if part.get("state") == "approval-requested"
        or (part.get("state") == "input-available" and part["type"] == "tool-where")
    ]


def something(chance: Random) -> str:
    """A message."""
    return f"{chance.choice(['words', 'weather', 'pay', 'where', 'break'])} {chance.randrange(1_000)}"


def by_role(shown: list[Line]) -> list[Line]:
    """Questions, then answers, each in their order.

    A session client puts an answer where its first word came, behind questions that came before that word.
    """
    return sorted(shown, key=lambda line: line[0])


class UseChat:
    """A page with ``useChat`` that is loaded anew each time."""

    def __init__(self, react: React, server: Served, room: str) -> None:
        self._react, self._server, self._room = react, server, room

    def _open(self) -> Any:
        history = self._server.get(f"/api/chat/{self._room}/messages")
        return self._react.open(self._server.url, self._room, resume=True, messages=history, auto=True)

    def act(self, chance: Random) -> str:
        tab = self._open()
        waiting = owed(tab.state().messages[-1:])
        action = chance.choice(["send", "send", "regenerate", "settle", "stop"])
        if action == "send" or (action == "settle" and not waiting):
            tab.do("send", text=something(chance))
        elif action == "regenerate":
            tab.do("regenerate")
        elif action == "stop":
            self._server.post(f"/api/chat/{self._room}/stop", {})
        elif waiting[0]["state"] == "approval-requested":
            tab.do("approve", id=waiting[0]["approval"]["id"], approved=chance.random() < 0.7)
        else:
            tab.do("output", tool="where", toolCallId=waiting[0]["toolCallId"], output="Oslo")
        tab.until(lambda state: state.status != "submitted")
        tab.close()
        return f"useChat: {action}"

    def shown(self) -> list[Line]:
        tab = self._open()
        state = tab.until(lambda state: state.status in ("ready", "error"))  # the last answer may have failed
        tab.close()
        return lines(state.messages)

    def close(self) -> None:
        """Its pages are closed."""


class Agents:
    """A page with ``useAgentChat`` that stays."""

    def __init__(self, cloudflare: Cloudflare, server: Served, room: str) -> None:
        self._tab = cloudflare.open("chat", server.url, "room", room)
        self._tab.until_identified()

    def act(self, chance: Random) -> str:
        waiting = owed(self._tab.shown().messages)
        action = chance.choice(["say", "say", "regenerate", "settle", "stop"])
        if action == "say" or (action == "settle" and not waiting):
            self._tab.do("say", text=something(chance))
        elif action in ("regenerate", "stop"):
            self._tab.do(action)
        elif waiting[0]["state"] == "approval-requested":
            self._tab.do("approve", id=waiting[0]["approval"]["id"], approved=chance.random() < 0.7)
        else:
            self._tab.do("tool-output", toolCallId=waiting[0]["toolCallId"], toolName="where", output="Oslo")
        return f"agents: {action}"

    def shown(self) -> list[Line]:
        return lines(self._tab.shown().messages)

    def close(self) -> None:
        self._tab.close()


class Session:
    """A TanStack AI client in the room's durable session."""

    def __init__(self, node: tanstack.TanStackNode, server: Served, room: str) -> None:
        self._tab = node.open(server.url, room, "session")

    def act(self, chance: Random) -> str:
        self._tab.do("say", content=something(chance))
        return "session: say"

    def shown(self) -> list[Line]:
        shown = []
        for message in self._tab.state["messages"]:
            text = "".join(part["content"] for part in message["parts"] if part["type"] == "text")
            results = [
                (part["id"], part["output"])
                for part in message["parts"]
                if part["type"] == "tool-call" and "output" in part and not _failed(part["output"])
            ]
            shown.append((message["role"], text, tuple(results)))
        return shown

    def close(self) -> None:
        self._tab.close()


def _failed(output: Any) -> bool:
    return isinstance(output, dict) and list(output) == ["error"]


class Plain:
    """perdure's own client, over a WebSocket."""

    def __init__(self, server: Served, room: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._client = RoomClient(f"{server.url}/ws/{room}", parts=True)
        self._joined = threading.Event()
        self._following: asyncio.Task[None] = self._do(self._start())
        assert self._joined.wait(10)

    async def _start(self) -> asyncio.Task[None]:
        return asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with self._client:
            async for _event in self._client:
                self._joined.set()

    async def _leave(self) -> None:
        self._following.cancel()
        await asyncio.wait([self._following])

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _look(self, see: Callable[[RoomClient], Any]) -> Any:
        return see(self._client)

    def act(self, chance: Random) -> str:
        waits = self._do(self._look(lambda client: client.waits))
        said = self._do(self._look(lambda client: [item.id for item in client.messages if item.role == "user"]))
        action = chance.choice(["say", "edit", "regenerate", "settle", "stop"])
        if action == "say" or (action == "settle" and not waits) or (action == "edit" and not said):
            self._do(self._client.say(something(chance)))
        elif action == "edit":
            self._do(self._client.edit(chance.choice(said), something(chance)))
        elif action == "regenerate":
            self._do(self._client.regenerate())
        elif action == "stop":
            self._do(self._client.stop())
        elif waits[0].kind == "approval":
            self._do(self._client.approve(waits[0].id, chance.random() < 0.7))
        else:
            self._do(self._client.give_result(waits[0].id, "Oslo"))
        return f"plain: {action}"

    def shown(self) -> list[Line]:
        if self._following.done():
            self._following.result()  # why it ended
        found: list[Line] = self._do(
            self._look(
                lambda client: lines(
                    [
                        {"role": item.role, "parts": item.parts or [{"type": "text", "text": item.content}]}
                        for item in client.messages
                    ]
                )
            )
        )
        return found

    def close(self) -> None:
        self._do(self._leave())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
