"""Which host a stream lives in, and the way there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import Any, TypeVar

from ..errors import PerdureError
from ..objects.gate import Answer
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from .host import StreamHost

HOST_COUNT = 16
"""Hosts of a data folder. Never changes: a stream's home follows from it."""

MOVED_MAX = 100_000
"""Forks whose host is kept in mind; others are looked up at their home."""

STREAM_PATH_BYTES_MAX = 1_024
"""Longest path of a stream, in bytes of UTF-8."""

_Result = TypeVar("_Result")
Visit = Callable[[StreamHost], None]
Fail = Callable[[Exception], None]


def home_of(path: str) -> int:
    """The number of the path's home: a stable hash, the same on every machine."""
    return blake2b(path.encode(), digest_size=1).digest()[0] % HOST_COUNT


class StreamDirectory:
    """Finds streams' hosts and runs work in them."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ids = [ObjectId(StreamHost.__name__, f"{number:02}") for number in range(HOST_COUNT)]
        self._homes: dict[str, int] = {}
        self._moved: dict[str, int] = {}

    def home(self, path: str) -> int:
        """The number of the path's home."""
        number = self._homes.get(path)
        if number is None:
            if len(self._homes) >= MOVED_MAX:
                self._homes.clear()
            number = self._homes[path] = home_of(path)
        return number

    def host_id(self, number: int) -> ObjectId:
        """The host's object id."""
        return self._ids[number]

    @property
    def host_ids(self) -> list[ObjectId]:
        """All hosts."""
        return list(self._ids)

    def exists(self, number: int) -> bool:
        """Whether the host has ever held anything."""
        return self._runtime.exists(self._ids[number])

    def awake(self, path: str) -> StreamHost | None:
        """The host where the path's stream is in memory, if work could be done there at once; the short way."""
        number = self._moved.get(path)
        if number is None:
            number = self._homes.get(path)
            if number is None:
                return None
        instance = self._runtime.enter(self._ids[number])
        if instance is None:
            return None
        host = instance.object
        return host if type(host) is StreamHost and host.holds(path) else None

    def visit(self, path: str, work: Visit, fail: Fail) -> None:
        """Run ``work`` in the host where the path's stream lives, or in its home when there is none.

        At once when the host is awake. ``fail`` is told when it cannot be run.
        """
        moved = self._moved.get(path)
        if moved is not None:
            self.enter(moved, lambda host: self._at_moved(path, host, work, fail), fail)
            return
        number = self.home(path)
        self.enter(number, lambda host: self._at_home(path, number, host, work, fail), fail)

    def _at_moved(self, path: str, host: StreamHost, work: Visit, fail: Fail) -> None:
        if host.find(path) is None and not host.streams.hidden(path):
            self.removed(path)
            self.enter(self.home(path), work, fail)
        else:
            work(host)

    def _at_home(self, path: str, number: int, host: StreamHost, work: Visit, fail: Fail) -> None:
        # A fork lives elsewhere; only a path that nothing lives at is looked up in vain.
        if host.find(path) is None:
            pointer = host.pointer(path)
            if pointer is not None and pointer != number:
                self.enter(pointer, lambda other: self._at_pointer(path, pointer, host, other, work, fail), fail)
                return
        work(host)

    def _at_pointer(
        self, path: str, number: int, home: StreamHost, host: StreamHost, work: Visit, fail: Fail
    ) -> None:
        if host.find(path) is None and not host.streams.hidden(path):
            self.enter(self.home(path), work, fail)  # the pointer leads to nothing
            return
        if len(self._moved) >= MOVED_MAX:
            self._moved.clear()
        self._moved[path] = number
        work(host)

    async def run(self, path: str, work: Callable[[StreamHost], _Result]) -> _Result:
        """Run ``work`` as `visit` does; its result comes when what it wrote is durable.

        Raises:
            Exception: what ``work`` raised, or what kept it from being run.
            ObjectReset: what it wrote was lost, or may have been.
        """
        return await self._run(work, lambda visit, fail: self.visit(path, visit, fail))

    async def run_in(self, number: int, work: Callable[[StreamHost], _Result]) -> _Result:
        """Run ``work`` in a host, else as `run`."""
        return await self._run(work, lambda visit, fail: self.enter(number, visit, fail))

    async def _run(self, work: Callable[[StreamHost], _Result], go: Callable[[Visit, Fail], None]) -> _Result:
        answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()

        def visit(host: StreamHost) -> None:
            instance = host.context
            assert isinstance(instance, Instance)
            try:
                result = work(host)
            except Exception as error:
                _fail(answer, error)
            else:
                instance.gate.submit(host.storage.dirty, _Delivered(answer, result))

        go(visit, lambda error: _fail(answer, error))
        return await answer

    def enter(self, number: int, work: Visit, fail: Fail) -> None:
        """Run ``work`` in a host: at once when it is awake, else as soon as it is."""
        object_id = self._ids[number]
        instance = self._runtime.enter(object_id)
        if instance is not None:
            work(_host(instance))
            return

        async def event(woken: Instance) -> None:
            work(_host(woken))

        try:
            self._runtime.deliver(object_id, event, "stream", fail)
        except PerdureError as error:
            fail(error)

    def moved(self, path: str, number: int) -> None:
        """A fork was made outside its home."""
        self._moved[path] = number

    def removed(self, path: str) -> None:
        """The stream is gone; so is the pointer to it, if it had one."""
        number = self._moved.pop(path, None)
        if number is None:
            return

        def forget(home: StreamHost) -> None:
            if home.pointer(path) == number:  # not a newer one's
                home.set_pointer(path, None)

        self.enter(self.home(path), forget, _ignore)


class _Delivered(Answer):
    """A result whose writes are durable."""

    def __init__(self, answer: asyncio.Future[Any], result: object) -> None:
        self._answer = answer
        self._result = result

    def __call__(self) -> None:
        if not self._answer.done():
            self._answer.set_result(self._result)

    def fail(self, error: Exception) -> None:
        _fail(self._answer, error)


def _fail(answer: asyncio.Future[Any], error: Exception) -> None:
    if not answer.done():
        answer.set_exception(error)


def _host(instance: Instance) -> StreamHost:
    assert isinstance(instance.object, StreamHost)
    return instance.object


def _ignore(_error: Exception) -> None:
    """A pointer that stays leads to nothing, and is forgotten when the path is used again."""
