"""A slot: what the runtime keeps for one object, awake or not.

The slot outlives instances. It holds the object's connections and the events that wait
while an instance starts, is blocked, or was just discarded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import structlog

from ..errors import LimitExceeded, ObjectReset, Overloaded, PerdureError
from ..values import ObjectId
from .connections import Connection, ConnectionSet
from .gate import Answer
from .instance import Instance
from .object import DurableObject

if TYPE_CHECKING:
    from .runtime import Runtime

log = structlog.get_logger("perdure.objects")

Event = Callable[[Instance], Coroutine[Any, Any, None]]
"""Something to do in the object, once there is an instance."""


class Slot:
    """One object's place in the runtime."""

    __slots__ = (
        "_running",
        "_waiting",
        "blocked",
        "closing",
        "connections",
        "instance",
        "object_class",
        "object_id",
        "runtime",
        "starting",
    )

    def __init__(self, runtime: Runtime, object_id: ObjectId, object_class: type[DurableObject]) -> None:
        self.runtime = runtime
        self.object_id = object_id
        self.object_class = object_class
        self.connections = ConnectionSet()
        self.instance: Instance | None = None
        self.starting: asyncio.Task[None] | None = None
        self.closing = False
        self.blocked = 0
        self._waiting: deque[tuple[Event, str, Callable[[Exception], None]]] = deque()
        self._running = 0

    @property
    def empty(self) -> bool:
        """Whether the runtime may forget the slot."""
        return (
            self.instance is None
            and not len(self.connections)
            and not self._waiting
            and self.starting is None
            and not self.closing
        )

    # --- events

    def deliver(self, event: Event, name: str, fail: Callable[[Exception], None]) -> None:
        """Run the event in the object, in order of arrival; ``fail`` is told when it cannot be run.

        Raises:
            Overloaded: too many events of this object wait or run.
        """
        limit = self.runtime.limits.inbox_events_max
        if self._running + len(self._waiting) >= limit:
            raise Overloaded(
                f"{self.object_id.key} has {limit:,} events waiting (inbox_events_max); try again in a moment"
            )
        self._waiting.append((event, name, fail))
        if self.instance is None:
            if self.starting is None:
                self.starting = self.runtime.loop.create_task(self._activate(), name=f"{self.object_id.key}:start")
        elif self.starting is None and not self.blocked:
            self.instance.spawn(self._run_next(self.instance), name)

    def enter(self) -> Instance | None:
        """The instance, if an event could run in it at once.

        For work without an await: it is an event of its own, as if it had been delivered and had run.
        """
        instance = self.instance
        if instance is None or self.starting is not None or self.blocked or self._waiting or instance.gate.broken:
            return None
        instance.last_active = self.runtime.loop.time()
        return instance

    def deliver_waiting(self) -> None:
        """Start the events that waited."""
        if self.instance is not None and self.starting is None and not self.blocked:
            for _, name, _ in self._waiting:
                self.instance.spawn(self._run_next(self.instance), name)

    def refuse_waiting(self, error: PerdureError) -> None:
        """Fail the events that waited."""
        waiting, self._waiting = self._waiting, deque()
        for _, _, fail in waiting:
            fail(error)

    async def _run_next(self, instance: Instance) -> None:
        # An event stays in the queue until its task begins: a block that came first holds it back, and one
        # whose instance is discarded before that goes to the next instance.
        if not self._waiting or self.blocked or self.instance is not instance:
            return
        event, _, _ = self._waiting.popleft()
        self._running += 1
        try:
            await event(instance)
        finally:
            self._running -= 1

    async def _activate(self) -> None:
        error: Exception
        try:
            await self.runtime.room_for_instance(self)
            instance = Instance(self, self.runtime, self.object_class)
            self.instance = instance
            self.runtime.metrics.objects_awake.inc()
            for connection in self.connections.everyone():
                connection.bind(self._gate_send(instance))
            await instance.object.handle_start()
            self.starting = None
            if instance.gate.broken:
                raise ObjectReset(f"{self.object_id.key} was reset while it started")
            self.runtime.schedule_hibernation()
            self.deliver_waiting()
            return
        except Exception as caught:
            error = caught
        self.starting = None
        key = self.object_id.key
        if not isinstance(error, ObjectReset):
            log.error("object failed to start", object=key, exc_info=error)
        if self.instance is not None:
            self.discard_instance(self.instance, error, close_code=1011)
        self.refuse_waiting(
            error if isinstance(error, PerdureError) else ObjectReset(f"{self.object_id.key}: {error}")
        )
        self.runtime.forget_if_empty(self)

    # --- connections

    def add_connection(self, connection: Connection) -> None:
        """Take a connection in.

        Raises:
            Overloaded: ``connections_per_object_max``.
        """
        limit = self.runtime.limits.connections_per_object_max
        if len(self.connections) >= limit:
            raise Overloaded(f"{self.object_id.key} has {limit:,} connections (connections_per_object_max)")
        self.connections.add(connection)
        if self.instance is not None:
            connection.bind(self._gate_send(self.instance))

    def remove_connection(self, connection: Connection) -> None:
        connection.closed = True
        connection.bind(None)
        self.connections.remove(connection)

    def _gate_send(self, instance: Instance) -> Callable[..., None]:
        gate, storage = instance.gate, instance.storage

        def send(effect: Callable[..., object], *arguments: Any) -> None:
            gate.submit(storage.dirty, effect, *arguments)

        return send

    # --- ends of an instance

    def discard_instance(self, instance: Instance, cause: BaseException, *, close_code: int = 1012) -> None:
        """Throw the instance away: nothing that waited at its gate happens, its callers get an error.

        Its clients are told to come back at once (1012), or, where that would be in vain, with growing waits (1011).
        """
        if instance.gate.broken:
            return
        lost = instance.gate.discard()
        key = self.object_id.key
        log.error("object reset", object=key, cause=str(cause) or type(cause).__name__)
        self.runtime.metrics.resets.inc()
        error = cause if isinstance(cause, PerdureError) else ObjectReset(f"{key} was reset: {cause}")
        instance.reset_error = error
        for effect, _ in lost:
            if isinstance(effect, Answer):
                effect.fail(error)
        instance.streams.fail(ObjectReset(f"{key} was reset; read on from the same offset"))
        for task in instance.tasks:
            if task is not asyncio.current_task():
                task.cancel()
        self._drop_instance(instance)
        self.runtime.store.discard(instance.opened)
        for connection in self.connections.everyone():
            connection.transport.close(close_code, "the room was reset; reconnect and resume")
        self.runtime.after_discard(self)

    def let_go(self, instance: Instance) -> None:
        """The instance hibernates: connections stay, its file is closed by the caller."""
        instance.gate.broken = True
        self._drop_instance(instance)

    def _drop_instance(self, instance: Instance) -> None:
        if self.instance is instance:
            self.instance = None
            self.blocked = 0
            self.runtime.metrics.objects_awake.dec()
            for connection in self.connections.everyone():
                connection.bind(None)

    def check_message(self, size: int, protocol: str) -> None:
        """Raises LimitExceeded for a frame that is larger than a client of that protocol may send."""
        limits = self.runtime.limits
        if size > limits.message_bytes_max and (protocol != "agents" or size > limits.chat_frame_bytes_max):
            limit = "chat_frame_bytes_max" if protocol == "agents" else "message_bytes_max"
            raise LimitExceeded(limit, size, getattr(limits, limit))
