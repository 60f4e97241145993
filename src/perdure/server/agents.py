"""Addresses of Cloudflare's Agents SDK and of PartySocket.

::

    WS   /agents/{class}/{name}                an agent or a room, spoken to by `AgentClient` and `useAgent`
    WS   .../sub/{class}/{name}                a child of it that is there, and so on
    GET  /agents/{class}/{name}/get-messages   a room's messages, [UIMessage, ...]: for `useAgentChat`
    *    /agents/{class}/{name}[/...]          the object's own `on_request`: for `agentFetch`
    WS   /parties/{party}/{room}               a room, spoken to with durable-chat's frames

``class`` and ``party`` are names of classes in kebab case: ``ChatRoom`` is ``chat-room``. The party ``chat``
(and ``main``, PartySocket's default) is the class of rooms that the chat surfaces serve.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from ..agents.agent import Agent
from ..chat.cloudflare_conversation import room_history
from ..chat.room import ChatRoom
from ..errors import RemoteProtocolError
from ..objects.instance import Instance
from ..objects.object import DurableObject
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.cloudflare import kebab_case
from ..wire.messages import ChatMessage
from .auth import Door
from .replies import json_reply

GET_MESSAGES = "get-messages"
USUAL_PARTIES = ("chat", "main")


class AgentRoutes:
    """The way to agents and rooms by these addresses."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom] | None) -> None:
        self._runtime = runtime
        self._door = door
        self._agents: dict[str, type[DurableObject]] = {}
        self._parties: dict[str, type[DurableObject]] = {}
        for item in runtime.classes.values():
            if not item.internal and issubclass(item, Agent | ChatRoom):
                self._agents.setdefault(kebab_case(item.__name__), item)
            if not item.internal and issubclass(item, ChatRoom):
                self._parties.setdefault(kebab_case(item.__name__), item)
        if room_class is not None:
            for party in USUAL_PARTIES:
                self._parties.setdefault(party, room_class)

    def agent(self, pieces: list[str]) -> tuple[ObjectId, str]:
        """The agent or room at ``/agents/`` and these segments: ``[class, name, "sub", class, name, ...]``; and the
        path below it.

        Raises:
            RemoteProtocolError: there is no such class (400, as Cloudflare's router answers), or no such child.
            InvalidName, LimitExceeded: nothing can bear that name.
        """
        found = self._object_id(self._agents, "agent", pieces[0], pieces[1])
        rest = pieces[2:]
        while rest[:1] == ["sub"] and len(rest) >= 3:
            found = self._object_id(self._agents, "agent", rest[1], f"{found.name}/{rest[2]}")
            rest = rest[3:]
            if not self._runtime.exists(found):  # children are made by their parents
                raise RemoteProtocolError(f"there is no sub-agent {found.name[:80]!r}")
        return found, "/".join(rest)

    def party(self, party: str, name: str) -> ObjectId:
        """The room at ``/parties/{party}/{name}``. Raises as `agent` does."""
        return self._object_id(self._parties, "party", party, name)

    def _object_id(self, known: dict[str, type[DurableObject]], what: str, given: str, name: str) -> ObjectId:
        found = known.get(given)
        if found is None:
            names = ", ".join(sorted(known)) or "none"
            raise RemoteProtocolError(f"there is no {what} {given[:80]!r} here (known: {names})")
        return self._runtime.object_id(found, name)

    async def request(self, request: Request) -> ASGIApp | None:
        """An HTTP request to an agent or a room. None: it answers none."""
        given = request.path_params
        object_id, path = self.agent([given["class"], given["name"], *given.get("path", "").split("/")])
        await self._door.admit(request, object_id.name)
        is_room = issubclass(self._runtime.classes[object_id.class_name], ChatRoom)
        if is_room and path == GET_MESSAGES and request.method in ("GET", "HEAD"):
            return json_reply(await self._messages(object_id))

        async def handle(instance: Instance) -> Any:
            return await instance.object.on_request(request)

        try:
            response: ASGIApp = await self._runtime.run_in(object_id, handle)
        except NotImplementedError:
            return None
        return response

    async def _messages(self, object_id: ObjectId) -> list[ChatMessage]:
        if not self._runtime.exists(object_id):
            return []

        async def read(instance: Instance) -> list[ChatMessage]:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return room_history(room)

        return await self._runtime.run_in(object_id, read)
