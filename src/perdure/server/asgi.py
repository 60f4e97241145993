"""The ASGI application: life, dispatch, errors.

Sockets are dispatched before the router, which serves the rest.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import Any

import structlog
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from ..chat.room import ChatRoom
from ..errors import Overloaded, PerdureError, RemoteProtocolError
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from .agents import AgentRoutes
from .aisdk import AiSdk
from .auth import Door
from .chat_socket import ChatSocket
from .durable_chat import DurableChat
from .files import ChatFiles
from .helix import Helix
from .operations import Operations
from .paths import protect_slashes, restore_slashes, route_path, split_path
from .replies import error_reply
from .rpc import Rpc
from .session import Sessions
from .streams.surface import StreamSurface, is_stream_path
from .tanstack import ChatPosts, TanStack
from .tanstack_socket import TanStackSocket
from .websocket import CLOSE_TRY_LATER, serve_socket

log = structlog.get_logger("perdure.server")

START_WAIT_MS = 1_000
"""How long the server waits for recovery before it begins to answer (with 503 until it is done)."""

CORS_ALLOW = (
    "content-type",
    "last-event-id",
    "x-run-id",
    "x-resume-from-sequence",
    "x-existing-message-id",
    "authorization",
)
CORS_EXPOSE = (
    "location",
    "etag",
    "x-vercel-ai-ui-message-stream",
    "x-session-id",
    "retry-after",
    "stream-next-offset",
    "stream-cursor",
    "stream-up-to-date",
    "stream-closed",
)

ErrorPage = Callable[[int, str, str], str]


class NotFound(PerdureError):
    """There is nothing at this address."""

    code = "not_found"
    status = 404


class Server:
    """Serves one runtime over ASGI."""

    def __init__(
        self,
        runtime: Runtime,
        door: Door,
        room_class: type[ChatRoom] | None,
        *,
        pages: Sequence[BaseRoute] = (),
        error_page: ErrorPage | None = None,
        origins: Collection[str] = (),
        rooms_at_root: bool = False,
        streams: StreamSurface | None = None,
        double_answer: bool = False,
    ) -> None:
        self.runtime = runtime
        self._streams = streams
        self._double_answer = double_answer
        self._door = door
        self._room_class = room_class
        self._error_page = error_page
        self._rooms_at_root = rooms_at_root
        self._agents = AgentRoutes(runtime, door, room_class)
        self._chat_socket: ChatSocket | None = None
        self._run_socket: TanStackSocket | None = None
        self._starting: asyncio.Task[None] | None = None
        self._start_lock = asyncio.Lock()
        cors = Middleware(
            CORSMiddleware,
            allow_origins=[origin.rstrip("/") for origin in origins],
            allow_methods=["GET", "POST"],
            allow_headers=CORS_ALLOW,
            expose_headers=CORS_EXPOSE,
            allow_credentials="*" not in origins,
        )
        self._router = Starlette(
            routes=[restore_slashes(route) for route in (*self._routes(), *pages)],
            middleware=[cors] if origins else [],
            exception_handlers={
                PerdureError: self._on_error,
                HTTPException: self._on_http_error,
                Exception: self._on_bug,
            },
        )

    def _routes(self) -> list[BaseRoute]:
        operations = Operations(self.runtime)
        rpc = Rpc(self.runtime, self._door)
        routes: list[BaseRoute] = [
            Route("/healthz", operations.healthz),
            Route("/metrics", operations.metrics),
            Route("/rpc/{class}/{name}/{method}", _endpoint(rpc.call), methods=["POST"]),
            Route("/objects/{class}/{name}", _endpoint(self._request), methods=_ALL_METHODS),
            Route("/objects/{class}/{name}/{path:path}", _endpoint(self._request), methods=_ALL_METHODS),
            Route("/agents/{class}/{name}", _endpoint(self._agent_request), methods=_ALL_METHODS),
            Route("/agents/{class}/{name}/{path:path}", _endpoint(self._agent_request), methods=_ALL_METHODS),
        ]
        if self._room_class is not None:
            urls = self._streams.turn_urls if self._streams is not None and self._double_answer else None
            chat = AiSdk(self.runtime, self._door, self._room_class, urls)
            self._chat_socket = ChatSocket(self.runtime, self._door, self._room_class, chat)
            helix = Helix(self.runtime, self._door, self._room_class, chat)
            tanstack = TanStack(self.runtime, self._door, self._room_class)
            posts = ChatPosts(self._door, chat, tanstack)
            self._run_socket = TanStackSocket(self.runtime, self._door, chat, tanstack)
            routes += [
                Route("/api/chat", _endpoint(posts.post), methods=["POST"]),
                Route("/api/chat", _endpoint(tanstack.get)),
                Route("/api/chat/{id}", _endpoint(helix.post), methods=["POST"]),
                Route("/api/chat/{id}", _endpoint(helix.resume)),
                Route("/api/chat/{id}/snapshot", _endpoint(helix.snapshot)),
                Route("/api/chat/{id}/stream", _endpoint(chat.resume)),
                Route("/api/chat/{id}/stop", _endpoint(chat.stop), methods=["POST"]),
                Route("/api/chat/{id}/messages", _endpoint(chat.messages)),
            ]
            files = ChatFiles(self.runtime, self._door, self._room_class)
            routes += [
                Route("/api/chat/{id}/files", _endpoint(files.upload), methods=["POST"]),
                Route("/api/chat/{id}/files/{file}", _endpoint(files.read), methods=["GET", "HEAD"]),
                Route("/api/chat/{id}/files/{file}/url", _endpoint(files.sign)),
            ]
            if self._streams is not None:
                durable = DurableChat(self.runtime, chat, self._streams.turn_urls)
                sessions = Sessions(self.runtime, self._door, self._room_class, self._streams)
                routes += [
                    Route("/api/durable-chat", _endpoint(durable.post), methods=["POST"]),
                    Route("/api/durable-chat/{id}/stream", _endpoint(durable.resume)),
                    Route("/api/chat/{id}/session", _endpoint(sessions.post), methods=["POST"]),
                    Route("/api/chat/{id}/session", _endpoint(sessions.read), methods=["GET", "HEAD"]),
                ]
        return routes

    # --- ASGI

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._starting is None:
            await self.start()
        scope = protect_slashes(scope)
        if kind == "websocket":
            await self._socket(scope, receive, send)
        elif self.runtime.ready and self._streams is not None and is_stream_path(scope):
            await self._streams(scope, receive, send)
        elif self.runtime.ready or route_path(scope) == "/healthz":
            await self._router(scope, receive, send)
        else:
            error = Overloaded(f"the server is {self._state}; try again in a moment")
            await error_reply(error)(scope, receive, send)

    @property
    def _state(self) -> str:
        """What a server that is not ready is doing."""
        return "shutting down" if self.runtime.draining else "starting"

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.runtime.ready:
            # Accepted first: a close before that is a 403, which reads as "stay away".
            await receive()
            await send({"type": "websocket.accept"})
            reason = f"the server is {self._state}"
            await send({"type": "websocket.close", "code": CLOSE_TRY_LATER, "reason": reason})
            return
        if self._chat_socket is not None and route_path(scope) == "/api/chat/ws":
            await self._chat_socket(scope, receive, send)
            return
        if self._run_socket is not None and route_path(scope) == "/api/chat/runs":
            await self._run_socket(scope, receive, send)
            return
        object_id: ObjectId | PerdureError
        try:
            object_id, protocol = self._socket_target(split_path(scope))
        except PerdureError as error:
            object_id, protocol = error, ""
        await serve_socket(self.runtime, self._door, object_id, scope, receive, send, protocol=protocol)

    def _socket_target(self, pieces: list[str]) -> tuple[ObjectId, str]:
        """The object that a socket's address names, and the protocol that is spoken there."""
        if pieces[0] == "ws" and len(pieces) >= 2 and self._room_class is not None:
            return self.runtime.object_id(self._room_class, "/".join(pieces[1:])), "room"
        if pieces[0] == "objects" and len(pieces) >= 3:
            object_id = self.runtime.object_id(pieces[1], pieces[2])
            is_room = issubclass(self.runtime.classes[object_id.class_name], ChatRoom)
            return object_id, "room" if is_room else ""
        if pieces[0] == "agents" and len(pieces) >= 3:
            return self._agents.agent(pieces[1:])[0], "agents"
        if pieces[0] == "parties" and len(pieces) >= 3:
            return self._agents.party(pieces[1], pieces[2]), "party"
        if self._rooms_at_root and len(pieces) == 1 and self._room_class is not None:
            return self.runtime.object_id(self._room_class, pieces[0]), "room"
        raise NotFound("there is no room at this address; rooms are at /ws/{room}")

    # --- life

    async def start(self) -> None:
        """Start the runtime; returns when it is ready, or after a while when recovery takes long.

        Raises:
            StorageError: the data folder cannot be opened.
            Exception: what a class's ``on_server_start`` raised.
        """
        async with self._start_lock:
            if self._starting is None:
                # In its own time: a provider's library alone takes a second. What is wrong there ends the start.
                await self.runtime.start_classes()
                self._starting = asyncio.create_task(self.runtime.start(self._on_recovery), name="perdure:start")
        done, _ = await asyncio.wait({self._starting}, timeout=START_WAIT_MS / 1000)
        if done:
            self._starting.result()
        else:
            self._starting.add_done_callback(self._on_started)

    def _on_started(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the server cannot start", error=str(error))

    def _on_recovery(self, done: int, total: int) -> None:
        if total >= 1_000 and done % 1_000 == 0:
            log.info("recovering", objects=done, total=total)

    async def stop(self) -> None:
        """Drain and close."""
        if self._starting is None:
            return
        await asyncio.wait({self._starting})
        if self._starting.cancelled() or self._starting.exception() is not None:
            return
        await self.runtime.stop()

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.start()
        except Exception as error:
            # Said in full unless the message is meant for people already. uvicorn takes an exception from
            # here for an application without a lifespan, and would go on.
            if not isinstance(error, PerdureError):
                log.error("the server could not start", exc_info=error)
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        assert self._starting is not None
        if not self._starting.done():
            # Recovery goes on behind 503s; if it fails now, the server ends as it would have before.
            self._starting.add_done_callback(_end_process_on_error)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    # --- requests to objects

    async def _request(self, request: Request) -> ASGIApp:
        """HTTP for an object's own ``on_request``."""
        object_id = self.runtime.object_id(request.path_params["class"], request.path_params["name"])
        await self._door.admit(request, object_id.name)

        async def handle(instance: Instance) -> Any:
            return await instance.object.on_request(request)

        try:
            response: ASGIApp = await self.runtime.run_in(object_id, handle)
        except NotImplementedError:
            raise NotFound(f"{object_id.class_name} answers no HTTP requests") from None
        return response

    async def _agent_request(self, request: Request) -> ASGIApp:
        """HTTP for agents and rooms at Cloudflare's addresses."""
        response = await self._agents.request(request)
        if response is None:
            raise NotFound(f"{request.path_params['class']} answers no HTTP requests")
        return response

    # --- errors

    async def _on_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, PerdureError)
        if self._error_page is not None and "text/html" in request.headers.get("accept", ""):
            title = error.code.replace("_", " ").capitalize()
            page = await asyncio.to_thread(self._error_page, error.status, title, str(error))
            return HTMLResponse(page, error.status)
        return error_reply(error)

    async def _on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        shown: PerdureError = RemoteProtocolError(error.detail)
        if error.status_code == 404:
            shown = NotFound()
        shown.status = error.status_code
        response = await self._on_error(request, shown)
        response.headers.update(error.headers or {})
        return response

    async def _on_bug(self, request: Request, error: Exception) -> Response:
        log.error("request failed", path=request.url.path, exc_info=error)
        return await self._on_error(request, PerdureError("something went wrong on the server; it has been logged"))


_ALL_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def _endpoint(handler: Callable[[Request], Awaitable[ASGIApp]]) -> Callable[[Request], Awaitable[Any]]:
    async def endpoint(request: Request) -> Any:
        return await handler(request)

    return endpoint


def _end_process_on_error(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        os.kill(os.getpid(), signal.SIGTERM)
