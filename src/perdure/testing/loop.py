"""An event loop without a clock, threads or sockets: everything on it happens in an order that can be repeated.

Real coroutines, tasks, futures and timers of asyncio run on it, one callback at a time, when
`run` says so. Its time stands until `advance` moves it. What would go to a thread is done on
the spot, as by a thread that is never waited for.

::

    loop = SimulatedLoop()
    task = loop.create_task(work())
    loop.run()                 # until nothing can go on
    loop.advance(1.5)          # timers that are due then ring
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from asyncio.events import _get_running_loop, _set_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, TypeVar, TypeVarTuple

if TYPE_CHECKING:
    from asyncio.base_events import BaseEventLoop as _Loop
else:
    from asyncio import AbstractEventLoop as _Loop  # whose methods raise NotImplementedError, as they should here

_Result = TypeVar("_Result")
_Ts = TypeVarTuple("_Ts")

MANY_CALLBACKS = 100_000
"""Callbacks in a row after which a program is taken for one that runs in circles."""


class SimulatedLoop(_Loop):
    """The loop. Only what asyncio's own primitives need is there.

    ``errors`` has what was reported to the loop because nobody else could be told.
    """

    def __init__(self, time_s: float = 0.0) -> None:
        self.errors: list[dict[str, Any]] = []
        self._time_s = time_s
        self._ready: deque[tuple[asyncio.Handle, Callable[..., object], tuple[Any, ...], Context]] = deque()
        self._timers: list[
            tuple[float, int, asyncio.TimerHandle, Callable[..., object], tuple[Any, ...], Context]
        ] = []
        self._numbers = itertools.count()

    # --- for whoever simulates

    def run(self, callbacks_max: int = MANY_CALLBACKS) -> None:
        """Run callbacks in order until none can go on, or so many have run. What one raises comes out here."""
        assert _get_running_loop() is None, "the simulated loop runs inside another one"
        left = callbacks_max
        _set_running_loop(self)
        try:
            while self._ready and left:
                handle, callback, arguments, context = self._ready.popleft()
                if not handle.cancelled():
                    context.run(callback, *arguments)
                    left -= 1
        finally:
            _set_running_loop(None)
        assert left or callbacks_max < MANY_CALLBACKS, f"still busy after {callbacks_max:,} callbacks"

    def do(self, action: Callable[..., _Result], *arguments: Any) -> _Result:
        """Run ``action`` at once, as a callback of the loop; before what is ready."""
        assert _get_running_loop() is None, "the simulated loop runs inside another one"
        _set_running_loop(self)
        try:
            return action(*arguments)
        finally:
            _set_running_loop(None)

    def advance(self, seconds: float) -> None:
        """Move the time; what is due by then rings in order, after what was ready already."""
        self._time_s += seconds
        while self._timers and self._timers[0][0] <= self._time_s:
            _, _, handle, callback, arguments, context = heapq.heappop(self._timers)
            self._ready.append((handle, callback, arguments, context))

    @property
    def ready(self) -> bool:
        """Whether something can go on now."""
        return bool(self._ready)

    @property
    def next_timer_s(self) -> float | None:
        """When the next timer rings; None when there is none."""
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    # --- for asyncio

    def time(self) -> float:
        return self._time_s

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def call_soon(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        context = context or copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append((handle, callback, args, context))
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*_Ts], object], *args: *_Ts, context: Context | None = None
    ) -> asyncio.Handle:
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        return self.call_at(self._time_s + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*_Ts], object],
        *args: *_Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        context = context or copy_context()
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        if when <= self._time_s:
            self._ready.append((handle, callback, args, context))
        else:
            heapq.heappush(self._timers, (when, next(self._numbers), handle, callback, args, context))
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Cancelled timers are left out when their time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self,
        coro: Generator[Any, None, _Result] | Coroutine[Any, Any, _Result],
        **options: Any,
    ) -> asyncio.Task[_Result]:
        return asyncio.Task(coro, loop=self, **options)

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., _Result], *args: Any
    ) -> asyncio.Future[_Result]:
        future: asyncio.Future[_Result] = self.create_future()
        running = _get_running_loop()
        _set_running_loop(None)  # a thread would have none
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        finally:
            _set_running_loop(running)
        return future

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.errors.append(context)
