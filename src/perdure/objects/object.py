"""`DurableObject`: the class that applications derive from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar

from ..storage.object_storage import Storage
from ..streams.streams import Streams
from ..values import ObjectId
from .connections import Connection

if TYPE_CHECKING:
    from .runtime import Runtime

Method = TypeVar("Method", bound=Callable[..., Any])


def callable(method: Method) -> Method:
    """Mark a method as callable through stubs and ``POST /rpc/{class}/{name}/{method}``.

    It may be ``async def``, a plain ``def``, or an async generator (its values stream).
    Arguments that arrive from outside are checked against the annotations.
    """
    method.__perdure_callable__ = True  # type: ignore[attr-defined]
    return method


@dataclass(frozen=True, slots=True)
class AlarmInfo:
    """Why `DurableObject.on_alarm` runs: when it was due (Unix ms) and which try this is (0 is the first)."""

    scheduled_ms: int
    retry_count: int

    @property
    def is_retry(self) -> bool:
        return self.retry_count > 0


class Context(Protocol):
    """What an instance gives its object. Implemented by `Instance`."""

    object_id: ObjectId
    storage: Storage
    streams: Streams
    runtime: Runtime
    parking: bool

    def now_ms(self) -> int: ...
    def new_id(self) -> str: ...
    def connections(self, tag: str | None = None) -> tuple[Connection, ...]: ...
    def broadcast(self, frame: bytes, text: bool, tag: str | None, without: Connection | None) -> None: ...
    def background(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]: ...
    def block_concurrency(self) -> AbstractAsyncContextManager[None]: ...
    def set_alarm(self, at_ms: int | None) -> None: ...
    def get_alarm(self) -> int | None: ...
    def hold_awake(self, held: bool) -> None: ...
    def touch_connections(self) -> None: ...
    def after_durable(self, effect: Callable[..., object], *arguments: Any) -> None: ...


class DurableObject:
    """A single-threaded, stateful unit with its own storage, addressed by class and name.

    One live instance at most. Handlers run one at a time between awaits; while one awaits
    anything, others may run. All writes between two awaits are one commit; nothing leaves the
    object before the writes before it are durable.

    Override any of the handlers; all are optional. ``migrations`` is the schema of the
    application's own tables: SQL scripts, run once each, in order. Only ever append to it.
    """

    migrations: ClassVar[tuple[str, ...]] = ()
    internal: ClassVar[bool] = False
    """Whether the class is a part of the server: nobody can address its objects from outside."""

    hibernate_after_ms: ClassVar[int | None] = None
    """Idle time before hibernation; None takes the runtime's limit."""

    auto_response: ClassVar[tuple[str, str] | None] = None
    """A text frame and its answer, sent without waking the object: the clients' heartbeat."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.storage = context.storage
        self.streams = context.streams

    # --- handlers

    @classmethod
    async def on_server_start(cls) -> None:
        """Runs once in a process, before any object of the class wakes: make what they share, like HTTP clients.

        An error here keeps the server from starting.
        """

    @classmethod
    async def on_server_stop(cls) -> None:
        """Runs once after the last object of the class is gone: let go of what they shared."""

    async def on_start(self) -> None:
        """Runs before anything else whenever an instance is made. An error here discards the instance."""

    async def on_connect(self, connection: Connection) -> None:
        """A client has connected. May set tags and the attachment, send, or close."""

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        """A frame has arrived (``str`` for text)."""

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        """A client is gone. ``code`` is 1006 when it left without saying so."""

    async def on_error(self, connection: Connection | None, error: Exception) -> None:
        """A handler of this connection (or a background task: None) has failed. The object lives on."""

    async def on_alarm(self, info: AlarmInfo) -> None:
        """The alarm is due. Runs at least once; an error is retried 6 times, after 2 s doubling."""

    async def on_request(self, request: Any) -> Any:
        """An HTTP request under ``/objects/{class}/{name}/...`` (a Starlette request; returns a response)."""
        raise NotImplementedError

    # --- what the runtime calls: frameworks between objects and applications (agents, rooms) override these

    async def handle_start(self) -> None:
        """An instance was made; the application's `on_start` comes last."""
        await self.on_start()

    async def handle_connect(self, connection: Connection) -> None:
        """A client has connected; `Connection.protocol` says how."""
        await self.on_connect(connection)

    async def handle_message(self, connection: Connection, data: str | bytes) -> None:
        """A client's frame has arrived."""
        await self.on_message(connection, data)

    async def handle_close(self, connection: Connection, code: int, reason: str) -> None:
        """A client is gone."""
        await self.on_close(connection, code, reason)

    async def handle_alarm(self, info: AlarmInfo) -> None:
        """The alarm is due."""
        await self.on_alarm(info)

    # --- inside

    @property
    def name(self) -> str:
        """The object's name."""
        return self.context.object_id.name

    def now_ms(self) -> int:
        """Unix time in milliseconds, from the runtime's clock."""
        return self.context.now_ms()

    def connections(self, tag: str | None = None) -> tuple[Connection, ...]:
        """The live connections (with this tag), in order of arrival."""
        return self.context.connections(tag)

    def broadcast(self, data: str | bytes, *, tag: str | None = None, without: Connection | None = None) -> None:
        """Send one frame to all connections (with this tag); the bytes are shared."""
        text = isinstance(data, str)
        self.context.broadcast(data.encode() if isinstance(data, str) else data, text, tag, without)

    def background(self, work: Coroutine[Any, Any, Any], *, name: str = "background") -> asyncio.Task[Any]:
        """Run a coroutine beside the handlers; the instance does not hibernate while it runs.

        It ends with the instance: what must survive a crash belongs into storage and an alarm.
        """
        return self.context.background(work, name)

    def block_concurrency(self) -> AbstractAsyncContextManager[None]:
        """``async with``: no other event is delivered inside. An error or 30 s inside discard the instance."""
        return self.context.block_concurrency()

    def set_alarm(self, at_ms: int) -> None:
        """Have `on_alarm` called at this Unix time (ms); replaces the alarm. A past time is now."""
        if at_ms <= 0:
            raise ValueError("an alarm's time must be a positive number of Unix milliseconds")
        self.context.set_alarm(at_ms)

    def get_alarm(self) -> int | None:
        """When the alarm is due (Unix ms); None when there is none, and inside `on_alarm`."""
        return self.context.get_alarm()

    def delete_alarm(self) -> None:
        """Drop the alarm."""
        self.context.set_alarm(None)
