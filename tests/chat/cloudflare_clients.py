"""Clients that speak `useAgentChat`'s frames without a network."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from tests.objects.clients import Client
from tests.running import until

from perdure import ChatRoom
from perdure.objects.runtime import Runtime

RESPONSE = "cf_agent_use_chat_response"


class Chat:
    """One client of a room; `frames` are those it has got, decoded."""

    def __init__(self, runtime: Runtime, room: type[ChatRoom], name: str = "r", **options: Any) -> None:
        self.client = Client.of(runtime, room, name, protocol="agents", **options)

    @property
    def frames(self) -> list[dict[str, Any]]:
        """Everything that has come."""
        return [msgspec.json.decode(frame) for frame in self.client.frames]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The frames of one type."""
        return [frame for frame in self.frames if frame["type"] == kind]

    def send(self, kind: str, **fields: Any) -> None:
        """Send a frame."""
        self.client.say(json.dumps({"type": kind, **fields}))

    def post(self, request_id: str, *messages: Any, trigger: str = "submit-message", **extra: Any) -> None:
        """Ask for an answer; a bare text is a user's message with that text and id."""
        given = [user(item) if isinstance(item, str) else item for item in messages]
        body = json.dumps({"messages": given, "trigger": trigger, **extra})
        self.send("cf_agent_use_chat_request", id=request_id, init={"method": "POST", "body": body})

    def chunks(self, request_id: str, *, replay: bool = False) -> list[dict[str, Any]]:
        """The chunks that came under this id, live or replayed."""
        frames = [frame for frame in self.of(RESPONSE) if frame["id"] == request_id and not frame["done"]]
        shown = [frame for frame in frames if frame["body"] and frame.get("replay", False) is replay]
        return [json.loads(frame["body"]) for frame in shown]

    def text(self, request_id: str, *, replay: bool = False) -> str:
        """What was said under this id."""
        return "".join(chunk.get("delta", "") for chunk in self.chunks(request_id, replay=replay))

    def ends(self) -> list[tuple[str, str | None, str]]:
        """How answers and requests have ended: id, outcome, error."""
        return [(frame["id"], frame.get("outcome"), frame["body"]) for frame in self.of(RESPONSE) if frame["done"]]

    async def end(self, request_id: str) -> tuple[str | None, str]:
        """Wait for the end of a request: its outcome and error."""
        await until(lambda: request_id in [end[0] for end in self.ends()])
        [found] = [(outcome, error) for end, outcome, error in self.ends() if end == request_id]
        return found

    async def until(self, kind: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for so many frames of a type."""
        await until(lambda: len(self.of(kind)) >= count)
        return self.of(kind)


def user(text: str) -> dict[str, Any]:
    """A user's message whose id is its text."""
    return {"id": text, "role": "user", "parts": [{"type": "text", "text": text}]}


def texts(frame: dict[str, Any]) -> list[str]:
    """The texts of the messages in a frame."""
    return ["".join(part.get("text", "") for part in message["parts"]) for message in frame["messages"]]
