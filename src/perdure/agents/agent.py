"""`Agent`: a durable object with a state that clients follow, and with work of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property, partial
from typing import Any, ClassVar, TypeVar

from ..objects.connections import Connection
from ..objects.namespace import ObjectStub
from ..objects.object import AlarmInfo, Context, DurableObject
from ..storage.kv import LIST_LIMIT
from ..storage.sql import Binding
from .callbacks import encode_payload, method_name
from .current import acting, enter_methods
from .fibers import HOLD as FIBERS
from .fibers import FiberContext, Fibers, FiberWork
from .holds import Holds
from .protocol import AGENTS, AgentClients
from .records import DeadLetter, Fiber, FiberStatus, QueueItem, Schedule
from .retries import AT_ONCE, Retry, is_worth_a_retry, with_retries
from .schedules import When, due_at
from .state import AgentState, StateListener, mark_readonly, marked_readonly
from .sub_agents import SubAgent, SubAgents
from .tables import Tables
from .work import HOLD as WORK
from .work import Work

Result = TypeVar("Result")

ALIVE = "alive"
"""What `Agent.keep_alive` holds the object for."""


class Agent(DurableObject):
    """A durable object that lives on its own: it keeps a state that clients follow. Derive from it.

    What is not used costs nothing: no table, no row, no timer. Names that begin with ``agent_``, of attributes and
    of tables, are the framework's.

    ``initial_state`` is the state until one is set; None: there is none. ``state_type`` is what the
    state is checked against and decoded to: plain JSON, or a type that msgspec knows, like a Struct.
    """

    initial_state: ClassVar[Any] = None
    state_type: ClassVar[Any] = Any

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.agent_tables = Tables(context.storage)
        self.agent_clients = AgentClients(self)
        self.state_listeners: list[StateListener] = [self.agent_clients]
        self.agent_holds = Holds(context)
        self.agent_alive = 0

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        enter_methods(cls)

    # --- hooks

    def validate_state_change(self, state: Any, source: Connection | None) -> None:
        """Raise to reject a state: nothing of it is kept, and whoever set it gets the error.

        ``source`` is the client that sets it; None: the agent itself.
        """

    async def on_state_changed(self, state: Any, source: Connection | None) -> None:
        """The state was set. Runs beside the handlers, once for each `set_state`, in their order of start."""

    async def on_fiber_recovered(self, fiber: FiberContext) -> Any:
        """A fiber was cut off by a crash or a restart: go on with it, from ``fiber.stashed``.

        Called once for each instance that finds the fiber running (``fiber.interruptions`` counts those that no
        planned stop caused), after `on_start`, as the fiber's work: what it returns or raises ends the fiber.
        Raise `FiberInterrupted` to leave it. By default the method that was its work is called again.
        """
        return await fiber.go_on()

    def should_connection_be_readonly(self, connection: Connection) -> bool:
        """Whether a client may not change the state. Asked whenever it matters, unless `set_connection_readonly`
        has decided: judge by ``connection.user``, ``query`` or ``attachment``. By default every client may."""
        return False

    # --- state

    @property
    def state(self) -> Any:
        """The state: what was set last, else ``initial_state``. A copy of yours: change it, then `set_state` it."""
        return self.agent_state.read()

    def set_state(self, state: Any, *, source: Connection | None = None) -> None:
        """Replace the state. It is kept in one commit with what else the turn writes, and shown once that is durable.

        ``source`` is the client that sets it (None: the agent). Inside of a `transaction` it is shown at the end of
        that, or not at all.

        Raises:
            Forbidden: the client, or the one whose call or frame is handled, is read-only.
            TypeError: it is not JSON, or not of ``state_type``.
            LimitExceeded: ``state_bytes_max``.
            Exception: what `validate_state_change` raised.
        """
        text = self.agent_state.set(state, source)
        self.storage.after_transaction(partial(self._tell_state, text, source))

    def _tell_state(self, text: str, source: Connection | None) -> None:
        for listener in tuple(self.state_listeners):
            listener.on_state(text.encode(), source)
        if type(self).on_state_changed is not Agent.on_state_changed:
            self.background(self.on_state_changed(self.agent_state.decode(text), source), name="on_state_changed")

    @property
    def state_json(self) -> bytes | None:
        """The state as JSON; None when there is none, not even an initial one."""
        text = self.agent_state.read_json()
        return None if text is None else text.encode()

    def set_connection_readonly(self, connection: Connection, readonly: bool = True) -> None:
        """Decide whether the client may change the state. It is noted in its tags, so it holds over hibernation;
        in `on_connect`, tag the connection first."""
        mark_readonly(connection, readonly)
        self.context.touch_connections()

    def is_connection_readonly(self, connection: Connection) -> bool:
        """Whether the client may not change the state."""
        marked = marked_readonly(connection)
        return self.should_connection_be_readonly(connection) if marked is None else marked

    @cached_property
    def agent_state(self) -> AgentState:
        """Where the state is read, checked and kept."""
        return AgentState(self)

    # --- at a time

    def schedule(
        self,
        when: When,
        callback: str | Callable[..., Any],
        payload: Any = None,
        *,
        time_zone: str = "UTC",
        idempotent: bool | None = None,
        retry: Retry | None = None,
    ) -> Schedule:
        """Have a method of the agent called with ``payload``: at least once for each time, also after crashes.

        A run that raises is tried again as ``retry`` says, then becomes a dead letter. A repeating schedule runs
        once for all the times that it missed, and never beside itself.

        Args:
            when: seconds from now (a number or timedelta), an aware datetime, or a cron text, whose times are
                those of ``time_zone``.
            callback: a method, or its name. It is given the payload, converted to its annotation, if it takes one.
            idempotent: whether the same callback with the same payload and the same kind of time is scheduled
                only once: then the one that is there is returned. By default, cron texts are.

        Raises:
            TypeError: the callback is no method, or the payload is not JSON.
            ValueError: a time that cannot be.
            LimitExceeded: ``schedules_max``, ``payload_bytes_max``.
        """
        name = method_name(self, callback)
        text = encode_payload(self, name, payload)
        schedules = self.agent_work.schedules
        if isinstance(when, str):
            return schedules.add_cron(when, time_zone, name, text, retry, idempotent is not False)
        return schedules.add_once(due_at(when, self.now_ms()), name, text, retry, bool(idempotent))

    def schedule_every(
        self,
        interval: float | timedelta,
        callback: str | Callable[..., Any],
        payload: Any = None,
        *,
        idempotent: bool = True,
        retry: Retry | None = None,
    ) -> Schedule:
        """`schedule` again and again, ``interval`` (seconds or a timedelta, 1 s at least) apart.

        Raises:
            TypeError, ValueError, LimitExceeded: as `schedule`.
        """
        name = method_name(self, callback)
        interval_ms = due_at(interval, 0, least=0)
        text = encode_payload(self, name, payload)
        return self.agent_work.schedules.add_every(interval_ms, name, text, retry, idempotent)

    def get_schedule(self, schedule_id: str) -> Schedule | None:
        """The schedule of that id, until it has run for the last time."""
        return self.agent_work.schedules.find(schedule_id)

    def list_schedules(self, callback: str | None = None, *, limit: int = LIST_LIMIT) -> list[Schedule]:
        """The schedules (of the method of that name), those due first."""
        return self.agent_work.schedules.list(callback, limit)

    def cancel_schedule(self, schedule_id: str) -> bool:
        """Remove a schedule; whether it was there. A run that has begun goes on."""
        return self.agent_work.schedules.cancel(schedule_id)

    # --- one after the other

    def queue(self, callback: str | Callable[..., Any], payload: Any = None, *, retry: Retry | None = None) -> str:
        """Have a method of the agent called with ``payload`` when all that was queued before is done; the item's id.

        One at a time, in order, at least once, also after crashes. An item that raises is tried again as ``retry``
        says while the others wait, then becomes a dead letter.

        Raises:
            TypeError: the callback is no method, or the payload is not JSON.
            LimitExceeded: ``payload_bytes_max``.
            Overloaded: ``queue_items_max``.
        """
        name = method_name(self, callback)
        return self.agent_work.queue.add(name, encode_payload(self, name, payload), retry)

    def get_queue(self, callback: str | None = None, *, limit: int = LIST_LIMIT) -> list[QueueItem]:
        """The items that wait or run (of the method of that name), oldest first."""
        return self.agent_work.queue.list(callback, limit)

    def dequeue(self, item_id: str) -> bool:
        """Remove an item; whether it was there. A run that has begun goes on."""
        return bool(self.agent_work.queue.remove(item_id))

    def dequeue_all(self) -> int:
        """Remove all items; how many there were."""
        return self.agent_work.queue.remove(None)

    # --- what failed

    def dead_letters(self, *, limit: int = LIST_LIMIT) -> list[DeadLetter]:
        """Schedules and queued items that failed as often as they may, oldest first."""
        return self.agent_work.dead_letters.list(limit)

    def retry_dead_letter(self, letter_id: str) -> bool:
        """Run one again: at once, or at the end of the queue; whether there was one. Its attempts count anew."""
        return self.agent_work.retry_letter(letter_id)

    def delete_dead_letter(self, letter_id: str) -> bool:
        """Drop one; whether there was one."""
        return self.agent_work.dead_letters.take(letter_id) is not None

    async def retry(
        self,
        work: Callable[[], Awaitable[Result] | Result],
        *,
        attempts_max: int = AT_ONCE.attempts_max,
        base_delay_ms: int = AT_ONCE.base_delay_ms,
        delay_ms_max: int = AT_ONCE.delay_ms_max,
        should_retry: Callable[[Exception], bool] | None = None,
    ) -> Result:
        """What ``work()`` gives, tried again in place while it raises: nothing of this is durable.

        Before each new try it waits up to ``base_delay_ms``, doubling to ``delay_ms_max`` (full jitter).
        ``should_retry(error)`` says which errors may pass; by default all but perdure's own that are final.

        Raises:
            Exception: what the last try raised.
        """
        retry = Retry(attempts_max, base_delay_ms, delay_ms_max)
        return await with_retries(work, retry, should_retry or is_worth_a_retry, self.agent_work.random)

    # --- long work

    async def run_fiber(self, name: str, work: str | FiberWork, payload: Any = None) -> Any:
        """Run ``await work(fiber)`` so that a crash in the middle is noticed; what it returns.

        It does not end with its caller. After a crash `on_fiber_recovered` is called; nobody waits for what
        it returns then. ``work`` is a method of the agent, its name, or any function (see `FiberContext.go_on`).

        Raises:
            TypeError: the payload is not JSON.
            Overloaded: ``fibers_running_max``.
            FiberInterrupted: it was cancelled.
            Exception: what the work raised.
        """
        return await self.agent_fibers.run(name, work, payload)

    def start_fiber(
        self, name: str, work: str | FiberWork, payload: Any = None, *, idempotency_key: str | None = None
    ) -> Fiber:
        """Begin ``work(fiber)`` and return at once. How it ends is kept for a day, with its (JSON) result.

        With an ``idempotency_key`` that a kept fiber has, nothing is begun, and that one is returned.

        Raises:
            TypeError: the payload is not JSON.
            Overloaded: ``fibers_running_max``.
        """
        return self.agent_fibers.start(name, work, payload, idempotency_key)

    def inspect_fiber(self, fiber_id: str) -> Fiber | None:
        """Where a fiber stands."""
        return self.agent_fibers.find(fiber_id)

    def list_fibers(self, status: FiberStatus | None = None, *, limit: int = LIST_LIMIT) -> list[Fiber]:
        """The fibers that run or are kept (with that status), newest first."""
        return self.agent_fibers.list(status, limit)

    def cancel_fiber(self, fiber_id: str) -> bool:
        """Cancel a fiber; False when it does not run. Its work may clean up; what it writes then is kept."""
        return self.agent_fibers.cancel(fiber_id)

    def delete_fiber(self, fiber_id: str) -> bool:
        """Forget an ended fiber, and its idempotency key; whether there was one."""
        return self.agent_fibers.delete(fiber_id)

    @asynccontextmanager
    async def keep_alive(self) -> AsyncIterator[None]:
        """``async with``: the object does not hibernate inside. If the server dies inside, the object wakes with it
        again, and `on_start` runs."""
        self.agent_alive += 1
        self.hold_awake(ALIVE)
        try:
            yield
        finally:
            self.agent_alive -= 1
            if not self.agent_alive and not self.context.parking:
                self.hold_awake(ALIVE, False)

    # --- agents of its own

    async def sub_agent(self, agent_class: type[Agent], name: str) -> ObjectStub:
        """A stub of the agent's child of that class and name, which is made when it is new.

        It is the object ``{this agent's name}/{name}`` of a class that the app has: clients reach it there.

        Raises:
            ClassNotFound, InvalidName, LimitExceeded: as `App.get`; a name must not hold a slash.
            Forbidden: there is such an object, and it belongs to another agent.
        """
        return await self.agent_children.get(agent_class, name)

    def list_sub_agents(self) -> list[SubAgent]:
        """The agent's children, by class and name."""
        return self.agent_children.list()

    async def delete_sub_agent(self, agent_class: type[Agent], name: str) -> bool:
        """Delete a child with all that it keeps, and its own children; whether there was one."""
        return await self.agent_children.delete(agent_class.__name__, name)

    @property
    def parent(self) -> ObjectStub | None:
        """A stub of the agent whose child this one is; None: of nobody."""
        return self.agent_children.parent()

    async def destroy(self) -> None:
        """Delete everything that the agent keeps, with its children; cancel what it does, close its connections."""
        await self.agent_children.delete_all()
        self.agent_fibers.cancel_all()
        self.agent_work.cancel_all()
        for connection in self.connections():
            connection.close(1000, "deleted")
        self.hold_awake(ALIVE, False)
        self.hold_awake(WORK, False)
        self.storage.delete_all()

    # --- what objects have, and a little more

    def set_alarm(self, at_ms: int) -> None:
        """See `DurableObject.set_alarm`. It goes together with schedules and the queue."""
        if at_ms <= 0:
            raise ValueError("an alarm's time must be a positive number of Unix milliseconds")
        self.agent_work.alarm.set(at_ms)

    def get_alarm(self) -> int | None:
        """See `DurableObject.get_alarm`."""
        return self.agent_work.alarm.get()

    def delete_alarm(self) -> None:
        """See `DurableObject.delete_alarm`."""
        self.agent_work.alarm.delete()

    def sql(self, query: str, *bindings: Binding) -> list[dict[str, Any]]:
        """Run SQL with ``?`` bindings on the agent's own storage; rows as dicts. See `Storage.sql`."""
        return self.storage.sql(query, *bindings)

    def background(self, work: Coroutine[Any, Any, Any], *, name: str = "background") -> asyncio.Task[Any]:
        """See `DurableObject.background`. Inside, `current_agent` is this one, without a connection or request."""
        with acting(self):
            task = super().background(work, name=name)
        # One that is cancelled before it begins, as the instance ends, leaves no coroutine behind.
        task.add_done_callback(lambda _: work.close())
        return task

    def hold_awake(self, reason: str, held: bool = True) -> None:
        """Begin (or with ``held=False`` end) a stretch of work that a restart of the server must take up.

        While there is any, the object does not hibernate, and a start of the server wakes it. Reasons are
        kept: after a crash those of before still hold, until each is ended. For frameworks that derive from
        Agent, which must not call ``context.hold_awake`` themselves; see `keep_alive` for applications.
        """
        self.agent_holds.set(reason, held)

    # --- what the runtime calls

    async def handle_start(self) -> None:
        """An instance was made. A framework that overrides it does its own first, then calls this."""
        await super().handle_start()
        if WORK in self.agent_holds:
            self.agent_work.pump()
        if FIBERS in self.agent_holds:
            self.agent_fibers.recover()
        if ALIVE in self.agent_holds and not self.agent_alive:
            self.hold_awake(ALIVE, False)

    async def handle_alarm(self, info: AlarmInfo) -> None:
        """The object's alarm is due: the application's, or what is next of the agent's work."""
        if self.agent_work.alarm.shared:
            self.agent_work.pump()
        else:
            await self.agent_work.alarm.ring_alone(info)

    @cached_property
    def agent_work(self) -> Work:
        """The engine of schedules, the queue and the alarm."""
        return Work(self)

    @cached_property
    def agent_fibers(self) -> Fibers:
        """The fibers that run here, and their rows."""
        return Fibers(self)

    @cached_property
    def agent_children(self) -> SubAgents:
        """The agent's children, and its parent."""
        return SubAgents(self)

    async def handle_connect(self, connection: Connection) -> None:
        """A client has connected; one of Cloudflare's Agents SDK is told whom it has reached, first."""
        if connection.protocol == AGENTS:
            self.agent_clients.greet(connection)
        await super().handle_connect(connection)

    async def handle_message(self, connection: Connection, data: str | bytes) -> None:
        """A client's frame: the protocol's, or the application's."""
        if connection.protocol == AGENTS and await self.agent_clients.handle(connection, data):
            return
        await super().handle_message(connection, data)

    async def handle_close(self, connection: Connection, code: int, reason: str) -> None:
        """A client is gone."""
        self.agent_clients.gone(connection)
        await super().handle_close(connection, code, reason)
