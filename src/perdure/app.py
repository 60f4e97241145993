"""`App`: an ASGI application made of durable objects."""

from __future__ import annotations

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from .chat.room import ChatRoom
from .errors import ConfigError
from .objects.limits import Limits
from .objects.namespace import ObjectStub
from .objects.object import DurableObject
from .objects.runtime import Runtime
from .server.asgi import Server
from .server.auth import Authenticate, Door
from .server.config import data_folder
from .server.durable_response import STREAM_KEPT_S, Mode, Protocol, durable_response
from .server.streams.access import READ_ONLY, TOKEN_PARAMETER, Action, Authorize, StreamAccess, UrlSigner
from .server.streams.limits import StreamLimits
from .server.streams.service import STREAM_ROOT
from .server.streams.surface import StreamSurface
from .server.streams.turn_urls import TurnUrls
from .stream_hosts.host import StreamHost
from .stream_hosts.live_writers import live_writers
from .stream_hosts.subscriptions import Subscriptions
from .web.pages import render_error
from .web.routes import Pages
from .wire.durable_streams import JSON_TYPE


class App:
    """Durable objects behind all of perdure's surfaces. Plain ASGI: run it, or mount it.

    Args:
        classes: the objects' classes. The first `ChatRoom` among them is the one that the chat
            surfaces and the page serve (or say which with ``chat``).
        data: the data folder; default: the environment's ``PERDURE_DATA``, else ``./data``.
        authenticate: called with each request; returns a `User`, or None to refuse. Without it
            everyone is let in, and ``perdure run`` binds to this machine only.
        origins: sites (``https://example.com``) whose pages may connect, beside our own.
        limits: the runtime's `Limits`.
        pages: whether to serve the built-in pages.
        rooms_at_root: also serve plain WebSocket rooms at ``/{room}``.
        streams: whether to serve Durable Streams at ``/v1/stream/``.
        stream_limits: their `StreamLimits`.
        authorize: called as ``authorize(request, stream, action)`` with ``"read"``, ``"append"``, ``"create"`` or
            ``"delete"``; returns whether free-standing streams may be used so. Without it whoever
            ``authenticate`` lets in may.
        double_answer: answer ``POST /api/chat`` with the events and with the address of the turn's stream,
            so that `@durable-streams/aisdk-transport` works at ``/api/chat``, too.
    """

    def __init__(
        self,
        classes: Iterable[type[DurableObject]],
        *,
        data: str | Path | None = None,
        chat: type[ChatRoom] | None = None,
        authenticate: Authenticate | None = None,
        origins: Collection[str] = (),
        limits: Limits | None = None,
        pages: bool = True,
        rooms_at_root: bool = False,
        streams: bool = True,
        stream_limits: StreamLimits | None = None,
        authorize: Authorize | None = None,
        double_answer: bool = False,
    ) -> None:
        registered = list(classes)
        if not registered and not streams:
            raise ConfigError("App needs at least one class: App([MyRoom])")
        if streams:
            registered += [StreamHost, Subscriptions]
        self.runtime = Runtime(data_folder(data), registered, limits=limits)
        rooms = [item for item in registered if issubclass(item, ChatRoom)]
        self.room_class = chat or (rooms[0] if rooms else None)
        self.authenticate = authenticate
        door = Door(authenticate, origins)
        self.stream_surface = self._stream_surface(door, authorize, stream_limits, origins) if streams else None
        self._server = Server(
            self.runtime,
            door,
            self.room_class,
            pages=Pages(self.runtime, door, self.room_class).routes() if pages and self.room_class else (),
            error_page=render_error if pages else None,
            origins=origins,
            rooms_at_root=rooms_at_root,
            streams=self.stream_surface,
            double_answer=double_answer,
        )

    def _stream_surface(
        self, door: Door, authorize: Authorize | None, limits: StreamLimits | None, origins: Collection[str]
    ) -> StreamSurface:
        access = StreamAccess(door, authorize, self._url_signer)
        urls = TurnUrls(access, self._url_signer)
        return StreamSurface(self.runtime, access, self.room_class, limits or StreamLimits(), origins, urls)

    def _url_signer(self) -> UrlSigner:
        return UrlSigner(self.runtime.secret)

    def stream_address(self, path: str) -> str:
        """Where clients read a free-standing stream, from the server's root on; with a token where one is needed."""
        if self.stream_surface is not None and self.stream_surface.open:
            return f"{STREAM_ROOT}{quote(path)}"
        return self.sign_stream_url(path)

    async def durable_response(
        self,
        source: AsyncIterable[Any],
        *,
        stream: str | None = None,
        mode: Mode = "immediate",
        content_type: str = JSON_TYPE,
        protocol: Protocol | None = "ui",
        ttl_s: int | None = STREAM_KEPT_S,
        address: Callable[[str], str] | None = None,
    ) -> Response:
        """Write what ``source`` gives into a new stream, to its end; answer a request with where to read it.

        The request may end, and its client leave and come back: the stream does not notice.
        ``immediate``: 201 with ``Location`` and ``{"streamUrl", "stopUrl"}`` while the source goes on;
        ``await``: 200 with ``finalOffset``, too, when it has ended.

        Args:
            source: JSON values (dicts, lists, msgspec Structs, or bytes that are JSON), or for other content
                types ``str`` or ``bytes``. It is closed when the stream is stopped (`stop_stream`, or a POST
                to ``stopUrl``).
            stream: the stream's path; by default a new one under ``generations/``.
            protocol: whose chunks these are, AI SDK's or AG-UI's: so the stream's last entry says that the
                source failed, that it was stopped, or (after a restart) that the server died. None: the
                stream just ends. Readers never hang.
            ttl_s: how long the stream is kept after it was last used; None: for ever.
            address: makes the address that clients are given from the one that `stream_address` gives.

        Raises:
            StreamConflict: there is such a stream already.
            ConfigError: the app serves no streams.
            Exception: ``await``: what the source raised.
        """
        if self.stream_surface is None:
            raise ConfigError("this app serves no streams: App(..., streams=True)")

        def address_of(path: str) -> str:
            return self.stream_address(path) if address is None else address(self.stream_address(path))

        return await durable_response(
            self.runtime,
            self.stream_surface.service,
            source,
            address_of,
            stream=stream,
            mode=mode,
            content_type=content_type,
            protocol=protocol,
            ttl_s=ttl_s,
        )

    def stop_stream(self, path: str) -> bool:
        """End a stream that `durable_response` writes here; whether there was one."""
        writer = live_writers(self.runtime).get(path)
        if writer is not None:
            writer.stop()
        return writer is not None

    def sign_stream_url(self, path: str, *, actions: Collection[Action] = READ_ONLY, expires_in_s: int = 3600) -> str:
        """A URL's path and query that let whoever has it use one stream, without signing in, for a while.

        ``path`` is the stream's path below ``/v1/stream/``. Only once the app has started.
        """
        token = self._url_signer().sign(path, actions, int(time.time()) + expires_in_s)
        return f"{STREAM_ROOT}{quote(path)}?{TOKEN_PARAMETER}={token}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server(scope, receive, send)

    def get(self, object_class: type[DurableObject] | str, name: str) -> ObjectStub:
        """A stub of an object. Sends nothing; the first call activates the object.

        Raises:
            ClassNotFound, InvalidName, LimitExceeded.
        """
        return self.runtime.get(object_class, name)

    async def start(self) -> None:
        """Open the data folder and recover (an ASGI server does this by itself).

        Raises:
            StorageError: the folder is locked, damaged or of a newer format.
            ConfigError: a room's model is not there; the message says what to do.
        """
        await self._server.start()

    async def stop(self) -> None:
        """Drain: running work gets a bounded time or is parked durably; then close everything."""
        await self._server.stop()

    @asynccontextmanager
    async def lifespan(self, _app: object = None) -> AsyncIterator[None]:
        """For an application that mounts this one: ``FastAPI(lifespan=app.lifespan)``."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()
