"""Agents' clients of Cloudflare's Agents SDK: `AgentClient` and `useAgent`, unmodified.

A client is greeted with who the agent is and its state, follows the state, sets it (where it may), and calls
the agent's ``@callable`` methods; an async generator's values stream. What it sends beside that is the
application's. The frames are those of `perdure.wire.cloudflare`.
"""

from __future__ import annotations

import asyncio
import inspect
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec
import structlog

from ..errors import Forbidden, LocalProtocolError, MethodNotFound, PerdureError
from ..objects.arguments import check_arguments
from ..objects.connections import Connection
from ..objects.namespace import callable_of
from ..wire.cloudflare import (
    MCP_SERVERS,
    READ_ONLY,
    STATE_REJECTED,
    Call,
    SetState,
    failure_frame,
    identity_frame,
    kebab_case,
    parse_agent_frame,
    result_frame,
    state_error_frame,
    state_frame,
)
from .current import acting

if TYPE_CHECKING:
    from .agent import Agent

log = structlog.get_logger("perdure.agents")

AGENTS = "agents"
"""`Connection.protocol` of these clients."""


class AgentClients:
    """Speaks with one agent's clients of this kind. A `StateListener`."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._streaming: dict[Connection, set[asyncio.Task[Any]]] = {}

    def greet(self, connection: Connection) -> None:
        """Tell a new client whom it has reached, and the state."""
        agent = self._agent
        state = agent.state_json
        name = kebab_case(type(agent).__name__)
        connection.send_frame(identity_frame(agent.name, name, state_follows=state is not None))
        if state is not None:
            connection.send_frame(state_frame(msgspec.Raw(state)))
        connection.send_frame(MCP_SERVERS)

    async def handle(self, connection: Connection, data: str | bytes) -> bool:
        """Do what a client's frame asks for. False: it is the application's."""
        command = parse_agent_frame(data)
        if command is None:
            return False
        with acting(self._agent, connection=connection):
            if isinstance(command, SetState):
                self._set_state(connection, command.state)
            else:
                await self._call(connection, command)
        return True

    def gone(self, connection: Connection) -> None:
        """A client has left: nobody hears the rest of its streaming calls."""
        for task in self._streaming.pop(connection, ()):
            task.cancel()

    # --- state

    def on_state(self, state: bytes, source: Connection | None) -> None:
        """The state has changed: show it to all but the client that did it."""
        context = self._agent.context
        audience = tuple(item for item in context.connections() if item.protocol == AGENTS and item is not source)
        if audience:
            context.after_durable(context.runtime.fan_out, audience, state_frame(msgspec.Raw(state)), True)

    def _set_state(self, connection: Connection, state: Any) -> None:
        try:
            self._agent.set_state(state, source=connection)
        except Forbidden:
            connection.send_frame(state_error_frame(READ_ONLY))
        except Exception as error:
            # Whatever the application's check raises is a refusal; its reason is for the log.
            log.info("state rejected", object=self._agent.context.object_id.key, error=str(error))
            connection.send_frame(state_error_frame(STATE_REJECTED))

    # --- calls

    async def _call(self, connection: Connection, call: Call) -> None:
        agent = self._agent
        try:
            function = callable_of(type(agent), call.method)
        except MethodNotFound:
            there = not call.method.startswith("_") and callable(getattr(type(agent), call.method, None))
            reason = "is not callable" if there else "does not exist"
            connection.send_frame(failure_frame(call.id, f"Method {call.method} {reason}"))
            return
        try:
            arguments, named = check_arguments(function, call.args, caller=connection.user)
            if inspect.isasyncgenfunction(function):
                await self._stream(connection, call.id, function(agent, *arguments, **named))
                return
            result = function(agent, *arguments, **named)
            if inspect.isawaitable(result):
                result = await result
            connection.send_frame(result_frame(call.id, result))
        except Exception as error:
            if not isinstance(error, PerdureError) or isinstance(error, LocalProtocolError):
                log.warning("call failed", object=agent.context.object_id.key, method=call.method, exc_info=error)
            connection.send_frame(failure_frame(call.id, str(error) or type(error).__name__))

    async def _stream(self, connection: Connection, call_id: str, generator: Any) -> None:
        """Send a generator's values as they come; it is closed when the client leaves."""
        task = asyncio.current_task()
        assert task is not None
        running = self._streaming.setdefault(connection, set())
        running.add(task)
        try:
            async with aclosing(generator) as values:
                async for value in values:
                    connection.send_frame(result_frame(call_id, value, done=False))
        finally:
            running.discard(task)
            if not running:
                self._streaming.pop(connection, None)
        connection.send_frame(result_frame(call_id, None))
