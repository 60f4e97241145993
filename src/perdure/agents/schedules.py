"""Schedules: callbacks at times, kept as rows over the object's one alarm."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ..errors import LimitExceeded
from .callbacks import call_method
from .cron import parse_cron
from .records import Schedule
from .retries import Retry
from .runs import Row, Source, encode_retry
from .tables import as_record

When = float | timedelta | datetime | str
"""When something runs: after so many seconds, at an aware datetime, or again and again by a cron text."""

SCHEDULES_MAX = 10_000
"""Schedules of one agent."""

RUNS_AT_ONCE_MAX = 16
"""Schedules of one agent that run at the same time; others that are due wait for one to end."""

INTERVAL_MS_MIN = 1_000
"""Shortest interval of a schedule that repeats."""

DELAY_MS_MAX = 100 * 366 * 24 * 60 * 60 * 1000
"""Farthest time of a schedule, from now."""

TABLE = "agent_schedules"
ALARM_ID = ""
"""The id of the row that stands for the application's own alarm."""


class Schedules(Source):
    """The rows of ``agent_schedules`` and their times."""

    name = "schedule"
    table = TABLE

    # --- in

    def add_once(self, at_ms: int, callback: str, payload: str, retry: Retry | None, idempotent: bool) -> Schedule:
        """One run at a time."""
        return self._add("once", at_ms, callback, payload, retry, idempotent)

    def add_cron(
        self, text: str, time_zone: str, callback: str, payload: str, retry: Retry | None, idempotent: bool
    ) -> Schedule:
        """A run each time that the cron text is due."""
        text = " ".join(text.split())
        due_ms = parse_cron(text).next_ms(self._agent.now_ms(), _zone(time_zone))
        return self._add("cron", due_ms, callback, payload, retry, idempotent, cron=text, time_zone=time_zone)

    def add_every(
        self, interval_ms: int, callback: str, payload: str, retry: Retry | None, idempotent: bool
    ) -> Schedule:
        """A run after each interval."""
        if not INTERVAL_MS_MIN <= interval_ms <= DELAY_MS_MAX:
            raise ValueError(f"an interval has {INTERVAL_MS_MIN:,} ms or more, not {interval_ms:,} (interval_ms_min)")
        due_ms = self._agent.now_ms() + interval_ms
        return self._add("every", due_ms, callback, payload, retry, idempotent, interval_ms=interval_ms)

    def _add(
        self,
        kind: Literal["once", "cron", "every"],
        due_ms: int,
        callback: str,
        payload: str,
        retry: Retry | None,
        idempotent: bool,
        *,
        cron: str | None = None,
        time_zone: str | None = None,
        interval_ms: int | None = None,
    ) -> Schedule:
        if idempotent:
            same = self._tables.read(
                TABLE,
                f"SELECT * FROM {TABLE} WHERE kind = ? AND callback = ? AND payload = ?"
                " AND cron IS ? AND time_zone IS ? AND interval_ms IS ?",
                *(kind, callback, payload, cron, time_zone, interval_ms),
            )
            if same:
                return as_record(Schedule, same[0])
        if (held := self._count()) >= SCHEDULES_MAX:
            raise LimitExceeded("schedules_max", held + 1, SCHEDULES_MAX)
        self._work.alarm.share()
        schedule_id = self._agent.context.new_id()
        self._tables.insert(
            TABLE,
            id=schedule_id,
            kind=kind,
            callback=callback,
            payload=payload,
            due_ms=due_ms,
            planned_ms=due_ms,
            attempts=0,
            retry=encode_retry(retry),
            cron=cron,
            time_zone=time_zone,
            interval_ms=interval_ms,
        )
        self._work.pump()
        found = self.find(schedule_id)
        assert found is not None
        return found

    def _count(self) -> int:
        rows = self._tables.read(TABLE, f"SELECT count(*) AS held FROM {TABLE} WHERE id != ?", ALARM_ID)
        return int(rows[0]["held"]) if rows else 0

    # --- about

    def find(self, schedule_id: str) -> Schedule | None:
        """The schedule of that id."""
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE id = ? AND kind != 'alarm'", schedule_id)
        return as_record(Schedule, rows[0]) if rows else None

    def list(self, callback: str | None, limit: int) -> list[Schedule]:
        """Those due first (of one callback)."""
        rows = self._tables.read(
            TABLE,
            f"SELECT * FROM {TABLE} WHERE kind != 'alarm' AND callback = coalesce(?, callback)"
            " ORDER BY due_ms, rowid LIMIT ?",
            callback,
            limit,
        )
        return [as_record(Schedule, row) for row in rows]

    def cancel(self, schedule_id: str) -> bool:
        """Remove one; whether it was there. A run that has begun goes on."""
        query = f"DELETE FROM {TABLE} WHERE id = ? AND kind != 'alarm' RETURNING id"
        found = bool(self._tables.change(TABLE, query, schedule_id))
        if found:
            self._work.pump()
        return found

    # --- runs

    def pump(self, now_ms: int) -> int | None:
        """Start what is due; when the next is, None when an end of a run will tell."""
        running = self._work.count(self)
        # Those that run are among the earliest; behind them come as many as there is room for, and the next one.
        query = f"SELECT id, due_ms FROM {TABLE} ORDER BY due_ms, rowid LIMIT ?"
        rows = self._tables.read(TABLE, query, RUNS_AT_ONCE_MAX + running + 1)
        for row in rows:
            if (self.name if row["id"] else "alarm", row["id"]) in self._work.running:
                continue
            if row["due_ms"] > now_ms:
                return int(row["due_ms"])
            if running >= RUNS_AT_ONCE_MAX:
                return None  # the end of a run looks again
            running += 1
            self._start(row["id"])
        return None

    def _start(self, schedule_id: str) -> None:
        found = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE id = ?", schedule_id)[0]
        row = Row(found["id"], found["callback"], found["payload"], found["attempts"], found["retry"])
        if found["kind"] == "alarm":
            self._work.alarm.start(row, found["planned_ms"])
            return
        schedule = as_record(Schedule, found)

        async def call() -> None:
            # A transaction that was undone took the row with it; so did a cancel that came before the task began.
            if self.find(schedule.id) is not None:
                await call_method(self._agent, schedule.callback, row.payload, schedule)

        self._work.start(self, row, call)

    def done(self, row: Row) -> None:
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE id = ?", row.id)
        if not rows:
            return
        try:
            next_ms = self._next_ms(rows[0])
        except ValueError as error:  # its time zone is gone
            if not self._work.dead_letters.add(self.name, row.id, row.callback, row.payload, 0, row.retry, error):
                return self.put_off(row, self._agent.now_ms() + Retry().delay_ms_max)
            next_ms = None
        if next_ms is None:
            super().done(row)
        else:
            query = f"UPDATE {TABLE} SET due_ms = ?, planned_ms = ?, attempts = 0 WHERE id = ?"
            self._tables.change(TABLE, query, next_ms, next_ms, row.id)

    def _next_ms(self, row: dict[str, Any]) -> int | None:
        """The next time of a schedule that repeats. Times that have passed meanwhile are left out."""
        now_ms = max(self._agent.now_ms(), row["planned_ms"])
        if row["kind"] == "cron":
            return parse_cron(row["cron"]).next_ms(now_ms, _zone(row["time_zone"]))
        if row["kind"] == "every":
            passed = (now_ms - row["planned_ms"]) // row["interval_ms"]
            return int(row["planned_ms"] + (passed + 1) * row["interval_ms"])
        return None


def due_at(when: float | timedelta | datetime, now_ms: int, *, least: int = 1) -> int:
    """Unix milliseconds of a delay or a datetime. A time that has passed is now.

    Raises:
        ValueError: the delay is negative or no number, the datetime is naive, or it is too far.
    """
    if isinstance(when, datetime):
        if when.tzinfo is None:
            raise ValueError("a datetime needs a time zone: datetime.now(UTC), or with tzinfo=ZoneInfo(...)")
        at_ms = round(when.astimezone(UTC).timestamp() * 1000)
    else:
        seconds = when.total_seconds() if isinstance(when, timedelta) else float(when)
        if not math.isfinite(seconds) or seconds < 0:
            raise ValueError(f"a delay is a number of seconds from 0 on, not {when}")
        at_ms = now_ms + round(seconds * 1000)
    if at_ms > now_ms + DELAY_MS_MAX:
        raise ValueError("a schedule within a hundred years (delay_ms_max)")
    return max(at_ms, least)


def _zone(name: str | None) -> tzinfo:
    if name is None or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"no time zone is named {name!r}") from None
