"""What clients have asked of a room under names of their own: so that a request that comes twice is done once.

::

    chat_runs   seq        order of arrival
                run_id     the client's name for what it asked: AG-UI's ``runId``, or the digest of a session's post
                answer_id  the answer that came of it (null: none is made)
                leg        the leg of it; 0: all of it
"""

from __future__ import annotations

import msgspec

from ..storage.object_storage import Storage

RUNS_KEPT_MAX = 1_000
"""Runs that a room remembers: the newest."""

MIGRATION = """
CREATE TABLE chat_runs(
  seq INTEGER PRIMARY KEY,
  run_id TEXT NOT NULL UNIQUE,
  answer_id TEXT,
  leg INTEGER NOT NULL
);
"""


WHOLE = 0
"""Stands for the whole of an answer, in place of the number of a leg."""


class Run(msgspec.Struct, frozen=True):
    """What came of a request: a leg of an answer or all of it (`WHOLE`), or (None) nothing that could be read."""

    answer_id: str | None
    leg: int


class Runs:
    """Reads and writes the runs of one room."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def find(self, run_id: str) -> Run | None:
        """The run of that name, if the room remembers it."""
        rows = self._storage.sql("SELECT answer_id, leg FROM chat_runs WHERE run_id = ?", run_id)
        return Run(rows[0]["answer_id"], rows[0]["leg"]) if rows else None

    def add(self, run_id: str, answer_id: str | None, leg: int) -> None:
        """Remember a run, in the same commit as what came of it."""
        self._storage.sql(
            "INSERT OR REPLACE INTO chat_runs(run_id, answer_id, leg) VALUES(?,?,?)", run_id, answer_id, leg
        )
        self._storage.sql("DELETE FROM chat_runs WHERE seq <= (SELECT max(seq) FROM chat_runs) - ?", RUNS_KEPT_MAX)
