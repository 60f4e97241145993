"""The tool calls of answers that are not whole yet: what became of each.

::

    tool_calls   answer_id    the answer that the call belongs to
                 call_id      the call's id, the same on every wire
                 name         the tool
                 state        asked      a person must agree      -> approved | denied
                              awaited    a client must give the result  -> given
                              approved, denied, given   came back; the answer's next step takes it up
                              running    is being carried out; found after a crash: was cut off
                              done       has ended
                 attempt      how often it was begun
                 approval_id  of a call that a person must agree to
                 result       JSON: {"output": ...} | {"error": "..."} | {"reason": "..."} of a denial

A row is there from the moment that something is owed or begun until the answer has ended. It is what
keeps a call from being carried out twice.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..storage.object_storage import Storage

CallState = Literal["asked", "awaited", "approved", "denied", "given", "running", "done"]

OWED: tuple[CallState, ...] = ("asked", "awaited")
"""States in which the answer waits for somebody."""

MIGRATION = """
CREATE TABLE tool_calls(
  answer_id TEXT NOT NULL,
  call_id TEXT NOT NULL,
  name TEXT NOT NULL,
  state TEXT NOT NULL,
  attempt INTEGER NOT NULL DEFAULT 0,
  approval_id TEXT,
  result TEXT,
  PRIMARY KEY(answer_id, call_id)
) WITHOUT ROWID;
"""

_COLUMNS = "answer_id, call_id, name, state, attempt, approval_id, result"


class StoredCall(msgspec.Struct):
    """One row."""

    answer_id: str
    call_id: str
    name: str
    state: CallState
    attempt: int = 0
    approval_id: str | None = None
    result: dict[str, Any] | None = None

    @property
    def owed(self) -> bool:
        """Whether the answer waits for somebody to settle this call."""
        return self.state in OWED

    @property
    def approval(self) -> dict[str, Any] | None:
        """What somebody has answered, as the call's part has it; None where nobody has."""
        if self.state not in ("approved", "denied"):
            return None
        return {"id": self.approval_id, "approved": self.state == "approved", **(self.result or {})}


class ToolCalls:
    """Reads and writes the rows of one room."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, answer_id: str, call_id: str) -> StoredCall | None:
        """The call of that answer."""
        rows = self._rows("WHERE answer_id = ? AND call_id = ?", answer_id, call_id)
        return rows[0] if rows else None

    def of(self, answer_id: str) -> list[StoredCall]:
        """All calls of that answer."""
        return self._rows("WHERE answer_id = ?", answer_id)

    def owed(self, id: str) -> StoredCall | None:
        """The call with that id (its own, or of its approval) that somebody must settle; the newest answer's."""
        rows = self._rows("WHERE state IN ('asked', 'awaited') AND (call_id = ?1 OR approval_id = ?1)", id)
        return max(rows, key=lambda row: self._seq(row.answer_id)) if rows else None

    def count_owed(self, answer_id: str) -> int:
        """How many calls of the answer somebody must still settle."""
        rows = self._storage.database.execute(
            "SELECT count(*) FROM tool_calls WHERE answer_id = ? AND state IN ('asked', 'awaited')", (answer_id,)
        )
        return int(rows[0][0])

    def put(self, call: StoredCall) -> None:
        """Store the row as it is now."""
        self._begin()
        result = None if call.result is None else msgspec.json.encode(call.result).decode()
        self._storage.database.execute(
            f"INSERT OR REPLACE INTO tool_calls({_COLUMNS}) VALUES(?,?,?,?,?,?,?)",
            (call.answer_id, call.call_id, call.name, call.state, call.attempt, call.approval_id, result),
        )

    def forget(self, answer_id: str) -> None:
        """The answer has ended: nothing of it is owed or begun any more."""
        if self._storage.database.execute("SELECT 1 FROM tool_calls WHERE answer_id = ? LIMIT 1", (answer_id,)):
            self._begin()
            self._storage.database.execute("DELETE FROM tool_calls WHERE answer_id = ?", (answer_id,))

    def _rows(self, where: str, *bindings: object) -> list[StoredCall]:
        rows = self._storage.database.execute(f"SELECT {_COLUMNS} FROM tool_calls {where}", bindings)
        return [_stored(*row) for row in rows]

    def _seq(self, answer_id: str) -> int:
        rows = self._storage.database.execute("SELECT seq FROM messages WHERE id = ?", (answer_id,))
        return int(rows[0][0]) if rows else -1

    def _begin(self) -> None:
        self._storage.mark_dirty()
        self._storage.database.begin()


def _stored(
    answer_id: str,
    call_id: str,
    name: str,
    state: CallState,
    attempt: int,
    approval_id: str | None,
    result: str | None,
) -> StoredCall:
    decoded = None if result is None else msgspec.json.decode(result)
    return StoredCall(answer_id, call_id, name, state, attempt, approval_id, decoded)
