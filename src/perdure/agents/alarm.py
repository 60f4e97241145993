"""The application's own alarm beside an agent's schedules.

An object has one alarm. While an agent has neither schedules nor a queue, it is the application's. From then
on it rings for whatever is next, and the application's is a row among the schedules, retried like them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..objects.object import AlarmInfo
from .current import acting
from .runs import Row, Source, encode_retry
from .schedules import ALARM_ID, TABLE

if TYPE_CHECKING:
    from .work import Work


class ApplicationAlarm(Source):
    """What `set_alarm`, `get_alarm`, `delete_alarm` and `on_alarm` are in an agent."""

    name = "alarm"
    table = TABLE

    def __init__(self, work: Work) -> None:
        super().__init__(work)
        self._ringing: AlarmInfo | None = None
        """The alarm that `on_alarm` runs for, unless another was set since."""

    @property
    def shared(self) -> bool:
        """Whether the object's alarm is not the application's alone."""
        return self._tables.has(TABLE)

    def share(self) -> None:
        """From now on it is a row. What it was, set or ringing, it stays."""
        if self.shared:
            return
        at_ms = self._agent.context.get_alarm()
        self._tables.make(TABLE)
        if self._ringing is not None:
            self._put(self._ringing.scheduled_ms, self._ringing.retry_count)
            self._work.running[self.name, ALARM_ID] = None
        elif at_ms is not None:
            self._put(at_ms, 0)

    def set(self, at_ms: int) -> None:
        """See `DurableObject.set_alarm`."""
        self._ringing = None
        if self.shared:
            self._put(at_ms, 0)
            self._work.pump()
        else:
            self._agent.context.set_alarm(at_ms)

    def get(self) -> int | None:
        """See `DurableObject.get_alarm`."""
        if not self.shared:
            return self._agent.context.get_alarm()
        if self._ringing is not None:
            return None
        rows = self._tables.read(TABLE, f"SELECT due_ms FROM {TABLE} WHERE id = ?", ALARM_ID)
        return int(rows[0]["due_ms"]) if rows else None

    def delete(self) -> None:
        """See `DurableObject.delete_alarm`."""
        self._ringing = None
        if self.shared:
            self._tables.change(TABLE, f"DELETE FROM {TABLE} WHERE id = ?", ALARM_ID)
            self._work.pump()
        else:
            self._agent.context.set_alarm(None)

    def _put(self, at_ms: int, attempts: int) -> None:
        self._tables.insert(
            TABLE,
            id=ALARM_ID,
            kind="alarm",
            callback="on_alarm",
            payload="null",
            due_ms=at_ms,
            planned_ms=at_ms,
            attempts=attempts,
            retry=encode_retry(None),
        )

    # --- runs

    def start(self, row: Row, scheduled_ms: int) -> None:
        """The row is due: run `on_alarm`, unless it was deleted before that begins."""
        info = AlarmInfo(scheduled_ms, row.attempts)
        self._ringing = info

        async def call() -> None:
            if self._ringing is info:
                await self._ring(info)

        self._work.start(self, row, call)

    async def ring_alone(self, info: AlarmInfo) -> None:
        """The object's alarm, which is the application's alone, rings. It may come to be shared meanwhile.

        Raises what `on_alarm` raised: the runtime tries again, unless the alarm is a row by now.
        """
        self._ringing = info
        try:
            await self._ring(info)
        except Exception as error:
            self._settle(info, error)
            raise
        else:
            self._settle(info, None)
        finally:
            # Also when it was cancelled, for it took too long: the row, where there is one, is due again.
            self._work.running.pop((self.name, ALARM_ID), None)
            if self._ringing is info:
                self._ringing = None

    async def _ring(self, info: AlarmInfo) -> None:
        with acting(self._agent):
            await self._agent.on_alarm(info)

    def _settle(self, info: AlarmInfo, error: Exception | None) -> None:
        if (self.name, ALARM_ID) in self._work.running:
            row = Row(ALARM_ID, "on_alarm", "null", info.retry_count, encode_retry(None))
            self._work.settle(self, row, error)

    def done(self, row: Row) -> None:
        if self._ringing is not None:
            self._ringing = None
            super().done(row)

    def put_off(self, row: Row, due_ms: int) -> None:
        if self._ringing is not None:
            self._ringing = None
            super().put_off(row, due_ms)
