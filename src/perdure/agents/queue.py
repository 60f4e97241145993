"""The queue: callbacks that run one after the other, in the order in which they came."""

from __future__ import annotations

from typing import Any

from ..errors import Overloaded
from .callbacks import call_method
from .records import QueueItem
from .retries import Retry
from .runs import Row, Source, encode_retry
from .tables import as_record

QUEUE_ITEMS_MAX = 10_000
"""Items of one agent's queue."""

TABLE = "agent_queue"


class Queue(Source):
    """The rows of ``agent_queue``. The oldest runs; while it is tried again, the others wait behind it."""

    name = "queue"
    table = TABLE

    def add(self, callback: str, payload: str, retry: Retry | None, *, item_id: str | None = None) -> str:
        """Append an item; its id.

        Raises:
            Overloaded: ``queue_items_max``.
        """
        rows = self._tables.read(TABLE, f"SELECT count(*) AS held FROM {TABLE}")
        if rows and rows[0]["held"] >= QUEUE_ITEMS_MAX:
            raise Overloaded(f"{QUEUE_ITEMS_MAX:,} items wait in the queue (queue_items_max); try again later")
        self._work.alarm.share()
        now_ms = self._agent.now_ms()
        item_id = item_id or self._agent.context.new_id()
        self._tables.insert(
            TABLE,
            id=item_id,
            callback=callback,
            payload=payload,
            created_ms=now_ms,
            due_ms=now_ms,
            attempts=0,
            retry=encode_retry(retry),
        )
        self._work.pump()
        return item_id

    def list(self, callback: str | None, limit: int) -> list[QueueItem]:
        """The oldest items (of one callback)."""
        rows = self._tables.read(
            TABLE,
            f"SELECT * FROM {TABLE} WHERE callback = coalesce(?, callback) ORDER BY seq LIMIT ?",
            callback,
            limit,
        )
        return [as_record(QueueItem, row) for row in rows]

    def remove(self, item_id: str | None) -> int:
        """Remove one item, or (None) all; how many there were. A run that has begun goes on."""
        query = f"DELETE FROM {TABLE} WHERE id = coalesce(?, id) RETURNING id"
        removed = len(self._tables.change(TABLE, query, item_id))
        if removed:
            self._work.pump()
        return removed

    # --- runs

    def pump(self, now_ms: int) -> int | None:
        """Start what is due; when the next is, None when an end of a run will tell."""
        if self._work.count(self):
            return None
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} ORDER BY seq LIMIT 1")
        if not rows:
            return None
        if rows[0]["due_ms"] > now_ms:
            return int(rows[0]["due_ms"])
        self._start(rows[0])
        return None

    def _start(self, found: dict[str, Any]) -> None:
        row = Row(found["id"], found["callback"], found["payload"], found["attempts"], found["retry"])
        item = as_record(QueueItem, found)

        async def call() -> None:
            if self._tables.read(TABLE, f"SELECT 1 FROM {TABLE} WHERE id = ?", row.id):
                await call_method(self._agent, row.callback, row.payload, item)

        self._work.start(self, row, call)
