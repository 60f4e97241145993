"""Sub-agents: objects of their own that belong to an agent.

The child ``name`` of an object is the object ``{parent's name}/{name}`` of its class. It notes whose child it is,
so two parents whose names would lead to the same child cannot share it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Forbidden, InvalidName
from ..objects.namespace import ObjectStub
from ..values import ObjectId
from .tables import as_record

if TYPE_CHECKING:
    from .agent import Agent

TABLE = "agent_children"

_PARENT = "parent"


class SubAgent(msgspec.Struct, frozen=True):
    """A child of an agent: its class's name, its own name below the parent's, and since when (Unix ms)."""

    class_name: str
    name: str
    created_ms: int


class SubAgents:
    """The children of one agent, and who its parent is."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._tables = agent.agent_tables
        self._runtime = agent.context.runtime

    async def get(self, agent_class: type[Agent], name: str) -> ObjectStub:
        """See `Agent.sub_agent`."""
        child = self._child(agent_class.__name__, name)
        if not self._has(child.class_name, name):
            self._tables.insert(TABLE, class_name=child.class_name, name=name, created_ms=self._agent.now_ms())
            await self._agent.storage.sync()  # a child that exists is listed
        try:
            await self._runtime.call(child, _adopt, (self._key,), {})
        except Forbidden:
            self._forget(child.class_name, name)
            raise
        return self._runtime.get(child.class_name, child.name)

    def list(self) -> list[SubAgent]:
        """See `Agent.list_sub_agents`."""
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} ORDER BY class_name, name")
        return [as_record(SubAgent, row) for row in rows]

    async def delete(self, class_name: str, name: str) -> bool:
        """See `Agent.delete_sub_agent`."""
        if not self._has(class_name, name):
            return False
        await self._runtime.call(self._child(class_name, name), _destroy, (self._key,), {})
        self._forget(class_name, name)
        return True

    async def delete_all(self) -> None:
        """Delete every child."""
        for child in self.list():
            await self.delete(child.class_name, child.name)

    def parent(self) -> ObjectStub | None:
        """See `Agent.parent`."""
        key = self._tables.get_value(_PARENT)
        if key is None:
            return None
        return self._runtime.get(*ObjectId.from_key(key))

    def adopt(self, parent: str) -> None:
        """Note whose child the agent is.

        Raises:
            Forbidden: it is another's.
        """
        known = self._tables.get_value(_PARENT)
        if known is None:
            self._tables.put_value(_PARENT, parent)
        elif known != parent:
            raise Forbidden(f"{self._key} belongs to {known}")

    def belongs_to(self, parent: str) -> bool:
        """Whether the agent is that one's child, or could become it."""
        return self._tables.get_value(_PARENT) in (None, parent)

    @property
    def _key(self) -> str:
        return self._agent.context.object_id.key

    def _forget(self, class_name: str, name: str) -> None:
        self._tables.change(TABLE, f"DELETE FROM {TABLE} WHERE class_name = ? AND name = ?", class_name, name)

    def _has(self, class_name: str, name: str) -> bool:
        query = f"SELECT 1 FROM {TABLE} WHERE class_name = ? AND name = ?"
        return bool(self._tables.read(TABLE, query, class_name, name))

    def _child(self, class_name: str, name: str) -> ObjectId:
        if not name or "/" in name:
            raise InvalidName("a sub-agent's name must not be empty, and must not hold a slash")
        return self._runtime.object_id(class_name, f"{self._agent.name}/{name}")


def _adopt(agent: Agent, parent: str) -> None:
    agent.agent_children.adopt(parent)


async def _destroy(agent: Agent, parent: str) -> None:
    # A kill may have come between the row and the refusal: then another's child stands in the list.
    if agent.agent_children.belongs_to(parent):
        await agent.destroy()
