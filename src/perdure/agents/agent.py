"""`Agent`: a durable object with a state that clients follow, and with work of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from functools import cached_property
from typing import Any, ClassVar

from ..objects.connections import Connection
from ..objects.object import Context, DurableObject
from ..storage.sql import Binding
from .current import acting, enter_methods
from .holds import Holds
from .protocol import AGENTS, AgentClients
from .state import AgentState, StateListener, mark_readonly, marked_readonly
from .tables import Tables


class Agent(DurableObject):
    """A durable object that lives on its own: it keeps a state that clients follow. Derive from it.

    What is not used costs nothing: no table, no row, no timer.

    ``initial_state`` is the state until one is set; None: there is none. ``state_type`` is what the
    state is checked against and decoded to: plain JSON, or a type that msgspec knows, like a Struct.
    """

    initial_state: ClassVar[Any] = None
    state_type: ClassVar[Any] = Any

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.tables = Tables(context.storage)
        self.agent_clients = AgentClients(self)
        self.state_listeners: list[StateListener] = [self.agent_clients]
        self._holds = Holds(context)

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

    def should_connection_be_readonly(self, connection: Connection) -> bool:
        """Whether a client may not change the state. Asked whenever it matters, unless `set_connection_readonly`
        has decided: judge by ``connection.user``, ``query`` or ``attachment``. By default every client may."""
        return False

    # --- state

    @property
    def state(self) -> Any:
        """The state: what was set last, else ``initial_state``. A copy of yours: change it, then `set_state` it."""
        return self._state.read()

    def set_state(self, state: Any, *, source: Connection | None = None) -> None:
        """Replace the state. It is kept in one commit with what else the turn writes, and shown once that is durable.

        ``source`` is the client that sets it (None: the agent).

        Raises:
            Forbidden: the client, or the one whose call or frame is handled, is read-only.
            TypeError: it is not JSON, or not of ``state_type``.
            LimitExceeded: ``state_bytes_max``.
            Exception: what `validate_state_change` raised.
        """
        text = self._state.set(state, source)
        for listener in tuple(self.state_listeners):
            listener.on_state(text.encode(), source)
        if type(self).on_state_changed is not Agent.on_state_changed:
            self.background(self.on_state_changed(self._state.decode(text), source), name="on_state_changed")

    @property
    def state_json(self) -> bytes | None:
        """The state as JSON; None when there is none, not even an initial one."""
        text = self._state.read_json()
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
    def _state(self) -> AgentState:
        return AgentState(self)

    # --- what objects have, and a little more

    def sql(self, query: str, *bindings: Binding) -> list[dict[str, Any]]:
        """Run SQL with ``?`` bindings on the agent's own storage; rows as dicts. See `Storage.sql`."""
        return self.storage.sql(query, *bindings)

    def background(self, work: Coroutine[Any, Any, Any], *, name: str = "background") -> asyncio.Task[Any]:
        """See `DurableObject.background`. Inside, `current_agent` is this one, without a connection or request."""
        with acting(self):
            return super().background(work, name=name)

    def hold_awake(self, reason: str, held: bool = True) -> None:
        """Begin (or with ``held=False`` end) a stretch of work that a restart of the server must take up.

        While there is any, the object does not hibernate, and a start of the server wakes it. Reasons are
        kept: after a crash those of before still hold, until each is ended. For frameworks that derive from
        Agent, which must not call ``context.hold_awake`` themselves; see `keep_alive` for applications.
        """
        self._holds.set(reason, held)

    # --- what the runtime calls

    async def handle_start(self) -> None:
        """An instance was made. A framework that overrides it does its own first, then calls this."""
        await super().handle_start()

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
