"""What all kinds of an agent's work have: a row, and a place that knows what becomes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import msgspec

from .retries import Retry

if TYPE_CHECKING:
    from .work import Work


class Row(msgspec.Struct, frozen=True):
    """What the rows of all kinds of work have. ``payload`` and ``retry`` are JSON."""

    id: str
    callback: str
    payload: str
    attempts: int
    retry: str


class Source:
    """A kind of work: where its rows are, and what becomes of one that has run."""

    name: ClassVar[str]
    table: ClassVar[str]

    def __init__(self, work: Work) -> None:
        self._work = work
        self._agent = work.agent
        self._tables = work.agent.agent_tables

    def done(self, row: Row) -> None:
        """It has run, or will not be tried again."""
        self._tables.change(self.table, f"DELETE FROM {self.table} WHERE id = ?", row.id)

    def put_off(self, row: Row, due_ms: int) -> None:
        """It has failed once more and is tried again at that time."""
        query = f"UPDATE {self.table} SET due_ms = ?, attempts = attempts + 1 WHERE id = ?"
        self._tables.change(self.table, query, due_ms, row.id)


def encode_retry(retry: Retry | None) -> str:
    """The rule as it is kept with a row."""
    return msgspec.json.encode(retry or Retry()).decode()
