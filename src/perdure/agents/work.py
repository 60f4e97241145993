"""The engine of an agent's timed and queued work.

Schedules and the queue are rows; a row is removed (or moved to its next time) in the commit of what its
callback wrote last, so after a crash it is run again. `Work.pump` looks at the rows: it starts what is due,
sets the object's one alarm for what comes next, and holds the object awake while anything runs. It is called
after every change, when the alarm rings, and when an instance starts whose predecessor left work.

The application's own alarm shares the object's: from the first schedule or queued item on it is a row, too
(see alarm.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import TYPE_CHECKING

import msgspec
import structlog

from .alarm import ApplicationAlarm
from .dead_letters import DeadLetters
from .queue import Queue
from .retries import Retry
from .runs import Row, Source
from .schedules import Schedules

if TYPE_CHECKING:
    from .agent import Agent

log = structlog.get_logger("perdure.agents")

HOLD = "work"


class Work:
    """What runs in one agent, and when the next of it does."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.random = Random(agent.context.new_id())
        self.running: dict[tuple[str, str], asyncio.Task[object] | None] = {}
        """By source and id of the rows that run: the task; None for an alarm that began to ring alone."""
        self.dead_letters = DeadLetters(agent)
        self.schedules = Schedules(self)
        self.queue = Queue(self)
        self.alarm = ApplicationAlarm(self)

    def pump(self) -> None:
        """Start what is due, set the alarm, hold the object awake while anything runs."""
        context = self.agent.context
        # A server that is stopped begins nothing more: as if nothing were due yet. The alarm is, at the next start.
        now_ms = 0 if context.runtime.draining else context.now_ms()
        following = (self.schedules.pump(now_ms), self.queue.pump(now_ms))
        next_ms = min((at_ms for at_ms in following if at_ms is not None), default=None)
        if next_ms != context.get_alarm():
            context.set_alarm(next_ms)
        self.agent.hold_awake(HOLD, bool(self.running))

    def retry_letter(self, letter_id: str) -> bool:
        """Give a dead letter's work another life, at once or at the queue's end; whether there was one."""
        with self.agent.storage.transaction():
            letter = self.dead_letters.take(letter_id)
            if letter is None:
                return False
            now_ms = self.agent.now_ms()
            callback, payload = letter["callback"], letter["payload"]
            retry = msgspec.json.decode(letter["retry"], type=Retry)
            if letter["source"] == self.queue.name:
                self.queue.add(callback, payload, retry, item_id=letter["source_id"])
            elif letter["source"] == self.schedules.name:
                self.schedules.add_once(now_ms, callback, payload, retry, idempotent=False)
            else:
                self.alarm.set(now_ms)
        return True

    def count(self, source: Source) -> int:
        """How many of the source's rows run."""
        return sum(1 for name, _ in self.running if name == source.name)

    def start(self, source: Source, row: Row, call: Callable[[], Awaitable[object]]) -> None:
        """Run the row's callback beside the handlers."""
        task = self.agent.background(self._run(source, row, call), name=f"{source.name} {row.callback}")
        self.running[source.name, row.id] = task

    def cancel_all(self) -> None:
        """Cancel what runs, but not who calls this. Rows stay as they are."""
        for task in self.running.values():
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self.running.clear()

    async def _run(self, source: Source, row: Row, call: Callable[[], Awaitable[object]]) -> None:
        limit_s = self.agent.context.runtime.limits.alarm_ms_max / 1000
        try:
            async with asyncio.timeout(limit_s):
                await call()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise  # the instance ends; the row stays
            self.settle(source, row, RuntimeError("cancelled by its own code"))
        except Exception as error:
            self.settle(source, row, error)
            raise  # `on_error` hears of it
        else:
            self.settle(source, row, None)

    def settle(self, source: Source, row: Row, error: Exception | None) -> None:
        """The row has run: what becomes of it, and what is next."""
        self.running.pop((source.name, row.id), None)
        if error is None:
            source.done(row)
        else:
            self._failed(source, row, error)
        self.pump()

    def _failed(self, source: Source, row: Row, error: Exception) -> None:
        retry = msgspec.json.decode(row.retry, type=Retry)
        attempts = row.attempts + 1
        now_ms = self.agent.now_ms()
        if attempts < retry.attempts_max:
            source.put_off(row, now_ms + retry.delay_ms(attempts, self.random))
        elif self.dead_letters.add(source.name, row.id, row.callback, row.payload, attempts, row.retry, error):
            source.done(row)
            log.error("work given up", object=self.agent.context.object_id.key, callback=row.callback, tries=attempts)
        else:
            # Nothing is dropped: while there is no room for a dead letter, it is tried on.
            source.put_off(row, now_ms + retry.delay_ms_max)
