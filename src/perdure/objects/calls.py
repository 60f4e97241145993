"""Calls into objects: one answer, or a stream of values."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from .instance import Instance

CALL_BUFFER_VALUES = 64
"""Values of a streaming call that wait for the caller before the object's generator is paused."""


def plain_call(
    function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any], answer: asyncio.Future[Any]
) -> Callable[[Instance], Coroutine[Any, Any, None]]:
    """The event that calls a method and gives its result to ``answer``, once it may leave the object."""

    async def event(instance: Instance) -> None:
        try:
            result = function(instance.object, *arguments, **named)
            if inspect.isawaitable(result):
                result = await result
            await instance.sync()
        except asyncio.CancelledError:
            _fail(answer, instance.cancelled)
            raise
        except Exception as error:
            _fail(answer, await _after_writes(instance, error))
        else:
            if not answer.done():
                answer.set_result(result)

    return event


async def _after_writes(instance: Instance, error: Exception) -> Exception:
    """The error that a caller is told, when what was written before it is durable."""
    if not instance.gate.broken:
        try:
            await instance.sync()
        except Exception as second:
            return second
    return error


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


class StreamingCall:
    """The caller's side of an async generator in an object: an async iterator.

    Closing it (or cancelling the caller) closes the generator.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self._function = function
        self._arguments = arguments
        self._named = named
        self._values: deque[Any] = deque()
        self._changed = asyncio.Event()
        self._taken = asyncio.Event()
        self._done = False
        self._error: Exception | None = None
        self._task: asyncio.Task[Any] | None = None

    async def event(self, instance: Instance) -> None:
        """Runs in the object."""
        self._task = asyncio.current_task()
        generator: AsyncIterator[Any] = self._function(instance.object, *self._arguments, **self._named)
        try:
            async for value in generator:
                instance.after_durable(self._put, value)
                while len(self._values) >= CALL_BUFFER_VALUES and not self._done:
                    self._taken.clear()
                    await self._taken.wait()
            await instance.sync()
        except asyncio.CancelledError:
            self.fail(instance.cancelled)
            raise
        except Exception as error:
            # The values before it come first, and neither overtakes what was written.
            self.fail(await _after_writes(instance, error))
        finally:
            self._done = True
            self._changed.set()
            close = getattr(generator, "aclose", None)
            if close is not None:
                await close()

    def fail(self, error: Exception) -> None:
        self._error = self._error or error
        self._done = True
        self._changed.set()

    def _put(self, value: Any) -> None:
        self._values.append(value)
        self._changed.set()

    def __aiter__(self) -> StreamingCall:
        return self

    async def __anext__(self) -> Any:
        while not self._values:
            if self._done:
                if self._error is not None:
                    error, self._error = self._error, None
                    raise error
                raise StopAsyncIteration
            self._changed.clear()
            await self._changed.wait()
        self._taken.set()
        return self._values.popleft()

    async def aclose(self) -> None:
        """Stop: the object's generator is closed."""
        self._done = True
        self._taken.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
