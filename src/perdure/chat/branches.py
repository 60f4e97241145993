"""Branches: what was said before a message was edited or an answer made again, kept and brought back.

The transcript holds one line of messages. Where a user edits a message or has an answer made again, its
end from there is put aside as a *branch*, and a new end grows. Ends that follow the same message (the
*anchor*) are alternatives of each other; each has a number, and one of them is in the transcript::

    m1 ─ a1 ─ m2 ─ a2          choose: the end in the transcript is put aside, the other comes back
          │
          └── m2' ─ a2' ─ ...  (edited)        anchor a1: two alternatives, 1 of 2 and 2 of 2

    branches       id       numbers in order of their making
                   anchor   id of the message before it; '' where it is the first
                   within   0: the anchor is in the transcript; else the branch that the anchor is in
                   live     1: it is in the transcript, or where its anchor is
    old_messages   branch, and the columns of `messages`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from ..storage.object_storage import Storage
    from .transcript import StoredMessage, Transcript

BRANCHES_MAX = 50
"""Alternatives that are kept of one place; past it the oldest is let go."""

MIGRATION = """
CREATE TABLE branches(
  id INTEGER PRIMARY KEY,
  anchor TEXT NOT NULL,
  within INTEGER NOT NULL DEFAULT 0,
  live INTEGER NOT NULL
);
CREATE INDEX branches_anchor ON branches(within, anchor);
CREATE TABLE old_messages(
  branch INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  id TEXT NOT NULL,
  role TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  status TEXT NOT NULL,
  answers TEXT,
  answer_id TEXT,
  attempt INTEGER NOT NULL,
  parks INTEGER NOT NULL,
  error TEXT,
  leg INTEGER NOT NULL,
  due_ms INTEGER,
  message TEXT NOT NULL,
  PRIMARY KEY(branch, seq)
) WITHOUT ROWID;
"""

_COLUMNS = "seq, id, role, created_ms, status, answers, answer_id, attempt, parks, error, leg, due_ms, message"


class Alternatives(msgspec.Struct):
    """Which of the alternatives of its place a message is: ``index`` (from 0) of ``count``."""

    index: int
    count: int


class Branches:
    """The branches of one room."""

    def __init__(self, storage: Storage, transcript: Transcript) -> None:
        self._storage = storage
        self._transcript = transcript

    def of(self, message_id: str) -> Alternatives:
        """The alternatives of the end that begins with this message; 0 of 1 where there is no other."""
        rows = self._alternatives(self._anchor_of(message_id))
        if not rows:
            return Alternatives(0, 1)
        return Alternatives(next(index for index, (_, live) in enumerate(rows) if live), len(rows))

    def all(self) -> dict[str, Alternatives]:
        """The alternatives of all messages that have any, by the id of the message."""
        anchors = self._storage.database.execute("SELECT DISTINCT anchor FROM branches WHERE within = 0")
        found: dict[str, Alternatives] = {}
        for (anchor,) in anchors:
            head = self._after(anchor)
            if head is not None:
                found[head] = self.of(head)
        return found

    def put_aside(self, seq: int) -> None:
        """Keep the end of the transcript from that number on, before it is removed there.

        A new end is expected to grow in its place, and is an alternative of it.
        """
        anchor = self._anchor_before(seq)
        self._begin()
        live = [id for id, is_live in self._alternatives(anchor) if is_live]
        branch = live[0] if live else self._new(anchor)
        self._keep(branch, seq)
        self._execute("UPDATE branches SET live = 0 WHERE id = ?", branch)
        self._new(anchor)
        for old, _ in self._alternatives(anchor)[:-BRANCHES_MAX]:
            self._forget(old)

    def find(self, message_id: str, index: int) -> int | None:
        """The branch that is number ``index`` of the message's alternatives; None: it is in the transcript."""
        rows = self._alternatives(self._anchor_of(message_id))
        if 0 <= index < len(rows) and not rows[index][1]:
            return int(rows[index][0])
        return None

    def bring_back(self, branch: int, seq: int) -> list[StoredMessage]:
        """Put the end from ``seq`` on aside and the branch in its place; the messages that came back."""
        anchor = self._anchor_before(seq)
        self._begin()
        shown = next(id for id, live in self._alternatives(anchor) if live)
        self._keep(shown, seq)
        self._execute("UPDATE branches SET live = id = ?1 WHERE within = 0 AND anchor = ?2", branch, anchor)
        self._transcript.cut_from(seq)
        self._execute(
            f"INSERT INTO messages({_COLUMNS}) SELECT {_COLUMNS} FROM old_messages WHERE branch = ?", branch
        )
        self._execute("DELETE FROM old_messages WHERE branch = ?", branch)
        self._execute("UPDATE branches SET within = 0 WHERE within = ?", branch)
        return self._transcript.after(seq - 1)

    def clear(self) -> None:
        """Let go of all branches."""
        self._begin()
        self._execute("DELETE FROM branches")
        self._execute("DELETE FROM old_messages")

    # --- inside

    def _keep(self, branch: int, seq: int) -> None:
        self._execute(
            "UPDATE branches SET within = ?1"
            " WHERE within = 0 AND anchor IN (SELECT id FROM messages WHERE seq >= ?2)",
            branch,
            seq,
        )
        self._execute(
            f"INSERT INTO old_messages(branch, {_COLUMNS}) SELECT ?1, {_COLUMNS} FROM messages WHERE seq >= ?2",
            branch,
            seq,
        )

    def _forget(self, branch: int) -> None:
        for (inner,) in self._execute("SELECT id FROM branches WHERE within = ?", branch):
            self._forget(inner)
        self._execute("DELETE FROM old_messages WHERE branch = ?", branch)
        self._execute("DELETE FROM branches WHERE id = ?", branch)

    def _new(self, anchor: str) -> int:
        self._execute("INSERT INTO branches(anchor, live) VALUES(?, 1)", anchor)
        return int(self._storage.database.connection.last_insert_rowid())

    def _alternatives(self, anchor: str) -> list[tuple[int, int]]:
        rows = self._execute("SELECT id, live FROM branches WHERE within = 0 AND anchor = ? ORDER BY id", anchor)
        return [(int(row[0]), int(row[1])) for row in rows]

    def _anchor_of(self, message_id: str) -> str:
        stored = self._transcript.find(message_id)
        return self._anchor_before(stored.seq) if stored is not None else ""

    def _anchor_before(self, seq: int) -> str:
        rows = self._execute("SELECT id FROM messages WHERE seq < ? ORDER BY seq DESC LIMIT 1", seq)
        return str(rows[0][0]) if rows else ""

    def _after(self, anchor: str) -> str | None:
        rows = self._execute(
            "SELECT id FROM messages WHERE seq > coalesce((SELECT seq FROM messages WHERE id = ?), -1)"
            " ORDER BY seq LIMIT 1",
            anchor,
        )
        return str(rows[0][0]) if rows else None

    def _execute(self, query: str, *bindings: object) -> list[tuple[Any, ...]]:
        return self._storage.database.execute(query, bindings)

    def _begin(self) -> None:
        self._storage.mark_dirty()
        self._storage.database.begin()
