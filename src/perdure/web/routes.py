"""The routes of the built-in pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote, unquote

import msgspec
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from ..chat.room import ChatRoom
from ..errors import PerdureError, RemoteProtocolError
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..server.asgi import NotFound
from ..server.auth import Door, User
from ..values import ObjectId
from .assets import STATIC_PATH, find_asset
from .pages import PAGE_HEADERS, USER_COOKIE, RoomEntry, render_chat, render_index, render_messages

PAGE_MESSAGES = 200
"""Messages that a page shows at first; older ones are loaded on demand."""

ROOMS_LISTED = 200


class Pages:
    """Renders pages from the rooms themselves."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom]) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.index),
            Route("/chat", self.new_room),
            Route("/chat/{room}", self.chat),
            Route("/chat/{room}/messages", self.older),
            Route("/chat/{room}/messages/{id}", self.message),
            Route(STATIC_PATH + "{name}", self.asset),
        ]

    async def index(self, request: Request) -> Response:
        """The list of rooms."""
        user = await self._door.admit(request)
        rooms: list[RoomEntry] = [
            {"name": item.object_id.name, "last_active_ms": item.active_ms}
            for item in self._runtime.store.index.objects(self._class.__name__, ROOMS_LISTED)
            if user.may_enter(item.object_id.name)
        ]
        page = await asyncio.to_thread(render_index, rooms, now_ms=self._runtime.now_ms(), base_path=_base(request))
        return HTMLResponse(page, headers=dict(PAGE_HEADERS))

    async def new_room(self, request: Request) -> Response:
        """``?room=``: to the room of that name; without one, to a new room."""
        name = request.query_params.get("room", "").strip() or f"room-{self._runtime.new_id()[:8]}"
        self._runtime.object_id(self._class, name)
        return RedirectResponse(f"{_base(request)}/chat/{quote(name, safe='')}", 303)

    async def chat(self, request: Request) -> Response:
        """A room: its newest messages as they are now; the page goes on live from there."""
        object_id, user = await self._enter(request)
        limit = _limit(request, PAGE_MESSAGES)

        before = request.query_params.get("before")

        async def view(room: ChatRoom) -> dict[str, Any]:
            messages, more = _shown(room, limit, before)
            # Everything is read in one turn, so the offset is that of these very messages.
            return {
                "messages": messages,
                "more": more,
                "offset": room.room_offset,
                "streaming_message_id": room.streaming_answer,
            }

        shown = await self._read(object_id, view)
        # A page full of markdown takes tens of milliseconds: not on the loop.
        page = await asyncio.to_thread(
            render_chat,
            object_id.name,
            **shown,
            user=_name(request, user),
            user_fixed=user.name is not None,
            model=self._model_name(),
            message_bytes_max=self._runtime.limits.message_bytes_max,
            base_path=_base(request),
        )
        return HTMLResponse(page, headers=dict(PAGE_HEADERS))

    async def older(self, request: Request) -> Response:
        """Older messages as an HTML fragment."""
        object_id, user = await self._enter(request)
        limit = _limit(request, 50)
        before = request.query_params.get("before")

        async def view(room: ChatRoom) -> tuple[list[dict[str, Any]], bool]:
            return _shown(room, limit, before)

        messages, more = await self._read(object_id, view)
        return await self._fragment(request, messages, user, more)

    async def message(self, request: Request) -> Response:
        """One message as an HTML fragment, as `chat` has it."""
        object_id, user = await self._enter(request)
        message_id = request.path_params["id"]

        async def view(room: ChatRoom) -> dict[str, Any] | None:
            found = room.audience.shown_message(message_id)
            return None if found is None else msgspec.to_builtins(found)

        found = await self._read(object_id, view)
        if found is None:
            raise NotFound("there is no such message in this room")
        return await self._fragment(request, [found], user, False)

    async def asset(self, request: Request) -> Response:
        """A static file."""
        found = find_asset(request.path_params["name"])
        if found is None:
            raise NotFound()
        headers = found.headers(request.query_params.get("v"))
        if request.headers.get("if-none-match") == headers.get("etag"):
            return Response(status_code=304, headers=headers)
        return Response(found.body, headers=headers)

    async def _fragment(self, request: Request, messages: list[dict[str, Any]], user: User, more: bool) -> Response:
        headers = {"x-perdure-more": "true" if more else "false", **PAGE_HEADERS}
        return HTMLResponse(
            await asyncio.to_thread(render_messages, messages, user=_name(request, user)), headers=headers
        )

    async def _enter(self, request: Request) -> tuple[ObjectId, User]:
        object_id = self._runtime.object_id(self._class, request.path_params["room"])
        return object_id, await self._door.admit(request, object_id.name)

    async def _read(self, object_id: ObjectId, view: Callable[[ChatRoom], Awaitable[Any]]) -> Any:
        async def work(instance: Instance) -> Any:
            room = instance.object
            assert isinstance(room, ChatRoom)
            return await view(room)

        return await self._runtime.run_in(object_id, work)

    def _model_name(self) -> str | None:
        try:
            model = self._class.get_model()
        except PerdureError:
            return None
        return model.name if model is not None else None


def _shown(room: ChatRoom, limit: int, before: str | None) -> tuple[list[dict[str, Any]], bool]:
    """Messages with their parts (older than the message ``before``), and whether there are older ones."""
    older = None if before is None else room.transcript.find(before)
    if before is not None and older is None:
        return [], False
    page = room.audience.shown(limit + 1, None if older is None else older.seq)
    return [msgspec.to_builtins(message) for message in page[-limit:]], len(page) > limit


def _name(request: Request, user: User) -> str | None:
    return user.name or unquote(request.cookies.get(USER_COOKIE, "")) or None


def _limit(request: Request, default: int) -> int:
    text = request.query_params.get("limit", str(default))
    if not (text.isascii() and text.isdigit()) or not 0 < int(text[:9]) <= 1_000:
        raise RemoteProtocolError("limit is a number from 1 to 1000")
    return int(text)


def _base(request: Request) -> str:
    base: str = request.scope.get("root_path", "")
    return base.rstrip("/")
