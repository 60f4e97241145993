"""Dead letters: work that failed as often as it may, kept until someone decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .records import DeadLetter
from .tables import as_record

if TYPE_CHECKING:
    from .agent import Agent

DEAD_LETTERS_MAX = 1_000
"""Dead letters of one agent. While there are as many, what fails is tried on instead of becoming one."""

ERROR_CHARACTERS_MAX = 2_000
"""How much of an error's text is kept."""

_TABLE = "agent_dead_letters"


class DeadLetters:
    """The rows of ``agent_dead_letters``."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._tables = agent.agent_tables

    def add(
        self, source: str, source_id: str, callback: str, payload: str, attempts: int, retry: str, error: Exception
    ) -> bool:
        """Keep one more; False when there is no room."""
        rows = self._tables.read(_TABLE, f"SELECT count(*) AS held FROM {_TABLE}")
        if rows and rows[0]["held"] >= DEAD_LETTERS_MAX:
            return False
        self._tables.insert(
            _TABLE,
            id=self._agent.context.new_id(),
            source=source,
            source_id=source_id,
            callback=callback,
            payload=payload,
            attempts=attempts,
            retry=retry,
            error=describe(error),
            died_ms=self._agent.now_ms(),
        )
        return True

    def list(self, limit: int) -> list[DeadLetter]:
        """The oldest ones."""
        rows = self._tables.read(_TABLE, f"SELECT * FROM {_TABLE} ORDER BY seq LIMIT ?", limit)
        return [as_record(DeadLetter, row) for row in rows]

    def take(self, letter_id: str) -> dict[str, Any] | None:
        """Remove one; its row as it was."""
        rows = self._tables.change(_TABLE, f"DELETE FROM {_TABLE} WHERE id = ? RETURNING *", letter_id)
        return rows[0] if rows else None


def describe(error: BaseException) -> str:
    """An error in one line, as it is kept with what failed."""
    return f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS_MAX]
