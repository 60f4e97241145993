"""Fibers: long work that is noted down while it runs, so that a crash can be told and mended.

::

    running --it returned------------------> completed
       |--it raised------------------------> failed
       |--cancel_fiber---------------------> cancelled
       |--crash, on_fiber_recovered--> running
       '--nobody takes it up, or too many crashes--> interrupted

A fiber is a row. It is there before the work begins and is settled in the commit of what the work wrote last.
An instance that starts and finds fibers running has had a predecessor that died: each of them is one
interruption, counted in the row, and `Agent.on_fiber_recovered` is called for it once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import structlog

from ..errors import Overloaded
from .callbacks import encode_payload, method_name
from .current import acting
from .dead_letters import describe
from .records import Fiber, FiberStatus
from .tables import as_record
from .values import decode_value, encode_value

if TYPE_CHECKING:
    from .agent import Agent

log = structlog.get_logger("perdure.agents")

FIBERS_RUNNING_MAX = 1_000
"""Fibers of one agent that run at the same time."""

FIBERS_KEPT_MAX = 1_000
"""Ended fibers that are kept to be asked about; the oldest go first."""

FIBER_KEEP_MS = 24 * 60 * 60 * 1000
"""How long an ended fiber, and its idempotency key, is kept."""

INTERRUPTIONS_MAX = 10
"""Crashes after which a fiber is not taken up again: it may be what crashes the server."""

STASH_BYTES_MAX = 1024 * 1024
"""Largest stash, and largest result, of a fiber, as JSON."""

HOLD = "fibers"
TABLE = "agent_fibers"

_CANCELLED = "the fiber was cancelled"

FiberWork = Callable[["FiberContext"], Awaitable[Any]]


class FiberInterrupted(Exception):
    """Raised in `Agent.on_fiber_recovered`: the fiber is not taken up; it ends as ``interrupted``."""


class FiberContext:
    """What a fiber's work is given.

    ``payload`` is what it was started with, ``stashed`` the last stash (None at first), ``interruptions`` how many
    crashes it has been through.
    """

    def __init__(self, fibers: Fibers, row: dict[str, Any]) -> None:
        self._fibers = fibers
        self._method: str | None = row["method"]
        self._kept = bool(row["kept"])
        self.id: str = row["id"]
        self.name: str = row["name"]
        self.payload: Any = decode_value(row["payload"])
        self.stashed: Any = decode_value(row["stash"])
        self.interruptions: int = row["interruptions"]
        self._begun = False

    def stash(self, value: Any) -> None:
        """Keep a JSON value in place of the last one, in one commit with what else the turn writes.

        Raises:
            TypeError: it is not JSON.
            LimitExceeded: ``stash_bytes_max``.
        """
        text = encode_value(value, "a stash", "stash_bytes_max", STASH_BYTES_MAX)
        self._fibers.update(self.id, stash=text)
        self.stashed = decode_value(text)

    async def go_on(self) -> Any:
        """Run the fiber's method again, with this context.

        Raises:
            FiberInterrupted: its work was no method of the agent; a function is gone after a crash.
        """
        method = getattr(self._fibers.agent, self._method, None) if self._method else None
        if method is None:
            raise FiberInterrupted(f"the work of fiber {self.name!r} is no method of the agent")
        return await method(self)


class Fibers:
    """The fibers of one agent."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self._tables = agent.agent_tables
        self._tasks: dict[str, tuple[asyncio.Task[Any], FiberContext]] = {}

    # --- beginning

    async def run(self, name: str, work: str | FiberWork, payload: Any) -> Any:
        """See `Agent.run_fiber`."""
        outcome: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_seen)
        self._begin(name, work, payload, key=None, kept=False, outcome=outcome)
        return await asyncio.shield(outcome)

    def start(self, name: str, work: str | FiberWork, payload: Any, key: str | None) -> Fiber:
        """See `Agent.start_fiber`."""
        self._forget_old()
        if key is not None:
            known = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE idempotency_key = ?", key)
            if known:
                return as_record(Fiber, known[0])
        fiber = self.find(self._begin(name, work, payload, key=key, kept=True, outcome=None))
        assert fiber is not None
        return fiber

    def _begin(
        self,
        name: str,
        work: str | FiberWork,
        payload: Any,
        *,
        key: str | None,
        kept: bool,
        outcome: asyncio.Future[Any] | None,
    ) -> str:
        if len(self._tasks) >= FIBERS_RUNNING_MAX:
            raise Overloaded(f"{FIBERS_RUNNING_MAX:,} fibers run (fibers_running_max); try again later")
        agent = self.agent
        method = None
        if isinstance(work, str) or getattr(work, "__self__", None) is agent:
            method = method_name(agent, work)
        text = encode_payload(agent, None, payload)
        fiber_id = agent.context.new_id()
        self._tables.insert(
            TABLE,
            id=fiber_id,
            name=name,
            method=method,
            payload=text,
            status="running",
            idempotency_key=key,
            kept=int(kept),
            parked=0,
            interruptions=0,
            created_ms=agent.now_ms(),
        )
        function: Any = getattr(agent, method) if method is not None else work
        self._drive(self._context(fiber_id), function, outcome)
        return fiber_id

    def _context(self, fiber_id: str) -> FiberContext:
        return FiberContext(self, self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE id = ?", fiber_id)[0])

    # --- running

    def _drive(self, context: FiberContext, work: FiberWork, outcome: asyncio.Future[Any] | None) -> None:
        self.agent.hold_awake(HOLD)
        task = self.agent.background(self._run(context, work, outcome), name=f"fiber {context.name}")
        self._tasks[context.id] = task, context

    async def _run(self, context: FiberContext, work: FiberWork, outcome: asyncio.Future[Any] | None) -> None:
        if context.id not in self._tasks:
            return _tell(outcome, FiberInterrupted(_CANCELLED))  # before it began
        context._begun = True
        try:
            with acting(self.agent, work=context):
                result = await work(context)
            text = None
            if context._kept:
                text = encode_value(result, "a fiber's result", "stash_bytes_max", STASH_BYTES_MAX)
        except asyncio.CancelledError:
            self._cancelled(context)
            _tell(outcome, FiberInterrupted(_CANCELLED))
            raise
        except FiberInterrupted as error:
            log.warning("fiber left", object=self.agent.context.object_id.key, fiber=context.name, why=str(error))
            self._end(context.id, "interrupted", error=describe(error))
            _tell(outcome, error)
        except Exception as error:
            self._end(context.id, "failed", error=describe(error))
            if outcome is None:
                raise  # `on_error` hears of it
            _tell(outcome, error)
        else:
            self._end(context.id, "completed", result=text)
            if outcome is not None and not outcome.done():
                outcome.set_result(result)

    def _cancelled(self, context: FiberContext) -> None:
        """The work was cancelled: by `cancel` (then nothing is left to do), with the instance, or by its own code."""
        task = asyncio.current_task()
        if self.agent.context.parking:
            self.update(context.id, parked=1)
        elif task is not None and not task.cancelling():
            self._end(context.id, "cancelled", error=_CANCELLED)

    def update(self, fiber_id: str, **values: Any) -> None:
        """Change the row of a fiber that runs."""
        changes = ", ".join(f"{name} = ?" for name in values)
        query = f"UPDATE {TABLE} SET {changes} WHERE id = ? AND status = 'running'"
        self._tables.change(TABLE, query, *values.values(), fiber_id)

    def _end(self, fiber_id: str, status: str, *, result: str | None = None, error: str | None = None) -> None:
        self.update(fiber_id, status=status, result=result, error=error, ended_ms=self.agent.now_ms())
        self._tables.change(TABLE, f"DELETE FROM {TABLE} WHERE id = ? AND kept = 0", fiber_id)
        self._tasks.pop(fiber_id, None)
        if not self._tasks:
            self.agent.hold_awake(HOLD, False)

    # --- after a crash

    def recover(self) -> None:
        """Take up what the last instance left running."""
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE status = 'running' ORDER BY created_ms, rowid")
        for row in rows:
            if row["id"] in self._tasks:
                continue
            interruptions = row["interruptions"] + (0 if row["parked"] else 1)
            self.update(row["id"], interruptions=interruptions, parked=0)
            if interruptions > INTERRUPTIONS_MAX:
                error = FiberInterrupted(f"fiber {row['name']!r} was interrupted by {interruptions} crashes")
                self._end(row["id"], "interrupted", error=describe(error))
                self.agent.background(_fail(error), name="fiber given up")  # `on_error` hears of it
            else:
                self._drive(self._context(row["id"]), self.agent.on_fiber_recovered, None)
        if not self._tasks:
            self.agent.hold_awake(HOLD, False)

    # --- about

    def find(self, fiber_id: str) -> Fiber | None:
        """The fiber of that id."""
        rows = self._tables.read(TABLE, f"SELECT * FROM {TABLE} WHERE id = ?", fiber_id)
        return as_record(Fiber, rows[0]) if rows else None

    def list(self, status: FiberStatus | None, limit: int) -> list[Fiber]:
        """The newest fibers (of one status)."""
        query = (
            f"SELECT * FROM {TABLE} WHERE status = coalesce(?, status) ORDER BY created_ms DESC, rowid DESC LIMIT ?"
        )
        return [as_record(Fiber, row) for row in self._tables.read(TABLE, query, status, limit)]

    def cancel(self, fiber_id: str) -> bool:
        """See `Agent.cancel_fiber`."""
        running = self._tasks.get(fiber_id)
        if running is None:
            return False
        task, context = running
        self._end(fiber_id, "cancelled", error=_CANCELLED)
        if context._begun:
            task.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancel every fiber that runs."""
        for fiber_id in list(self._tasks):
            self.cancel(fiber_id)

    def delete(self, fiber_id: str) -> bool:
        """See `Agent.delete_fiber`."""
        query = f"DELETE FROM {TABLE} WHERE id = ? AND status != 'running' RETURNING id"
        return bool(self._tables.change(TABLE, query, fiber_id))

    def _forget_old(self) -> None:
        ended = f"DELETE FROM {TABLE} WHERE status != 'running'"
        self._tables.change(TABLE, f"{ended} AND ended_ms <= ?", self.agent.now_ms() - FIBER_KEEP_MS)
        newest = f"SELECT id FROM {TABLE} WHERE status != 'running' ORDER BY ended_ms DESC, rowid DESC LIMIT ?"
        self._tables.change(TABLE, f"{ended} AND id NOT IN ({newest})", FIBERS_KEPT_MAX)


def _tell(outcome: asyncio.Future[Any] | None, error: Exception) -> None:
    if outcome is not None and not outcome.done():
        outcome.set_exception(error)


async def _fail(error: Exception) -> None:
    raise error


def _seen(outcome: asyncio.Future[Any]) -> None:
    """Whoever waited may be gone: an error is no news then."""
    if not outcome.cancelled():
        outcome.exception()
