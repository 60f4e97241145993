"""An agent's state: one JSON value that clients follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..errors import Forbidden
from ..objects.connections import Connection
from .current import current_agent
from .values import decode_value, encode_value

if TYPE_CHECKING:
    from .agent import Agent

STATE_BYTES_MAX = 1024 * 1024
"""Largest state, as JSON: each change of it goes whole to every client that follows it."""

READONLY_TAG, WRITABLE_TAG = "perdure:readonly", "perdure:writable"

_STATE = "state"


class StateListener(Protocol):
    """Shows an agent's state to connections of one kind: what a surface puts into `Agent.state_listeners`."""

    def on_state(self, state: bytes, source: Connection | None) -> None:
        """The state is ``state`` (JSON) now. ``source`` is the client that set it; None: the agent itself.

        It is written, but not yet durable: what is sent now waits for that at the object's gate.
        """


class AgentState:
    """Reads, checks and keeps the state of one agent.

    Nothing is kept in memory: a change that a transaction undoes is undone here, too.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def read(self) -> Any:
        """The state, decoded anew; what is done to it changes nothing that is kept."""
        text = self.read_json()
        return None if text is None else self.decode(text)

    def read_json(self) -> str | None:
        """The state as JSON; None while there is none, not even an initial one."""
        agent = self._agent
        text = agent.agent_tables.get_value(_STATE)
        if text is None and agent.initial_state is not None:
            text = self._encode(agent.initial_state)
        return text

    def set(self, state: Any, source: Connection | None) -> str:
        """Check and keep it; its JSON. See `Agent.set_state`."""
        agent = self._agent
        current = current_agent()
        writer = source or (current.connection if current is not None and current.agent is agent else None)
        if writer is not None and agent.is_connection_readonly(writer):
            raise Forbidden("Connection is readonly")
        text = self._encode(state)
        agent.validate_state_change(state, source)
        agent.agent_tables.put_value(_STATE, text)
        return text

    def decode(self, text: str) -> Any:
        """The state of the JSON text."""
        return decode_value(text, self._agent.state_type)

    def _encode(self, state: Any) -> str:
        return encode_value(state, "a state", "state_bytes_max", STATE_BYTES_MAX, kind=self._agent.state_type)


def mark_readonly(connection: Connection, readonly: bool) -> None:
    """Note the decision in the connection's tags, where it outlives the instance."""
    kept = [tag for tag in connection.tags if tag not in (READONLY_TAG, WRITABLE_TAG)]
    connection.tags = (*kept, READONLY_TAG if readonly else WRITABLE_TAG)


def marked_readonly(connection: Connection) -> bool | None:
    """What `mark_readonly` noted; None when nothing was."""
    if READONLY_TAG in connection.tags:
        return True
    return False if WRITABLE_TAG in connection.tags else None
