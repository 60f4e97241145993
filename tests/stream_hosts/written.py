"""Sources and writers for the tests of `StreamWriter`, and what they have written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from perdure.objects.runtime import Runtime
from perdure.stream_hosts.directory import StreamDirectory
from perdure.stream_hosts.host import StreamHost
from perdure.stream_hosts.writers import StreamWriter
from perdure.values import format_offset
from perdure.wire.durable_streams import CreateRequest

TEXT = CreateRequest("text/plain", None, None, False, None)
LOST = b"failed: the server stopped while this was written"


class Source:
    """Gives what the test lets it give: entries, errors, and its end (None)."""

    def __init__(self, *items: bytes | BaseException | None) -> None:
        self.items: asyncio.Queue[bytes | BaseException | None] = asyncio.Queue()
        self.given = 0
        self.closed = False
        self.give(*items)

    def give(self, *items: bytes | BaseException | None) -> None:
        """Let it go on by these."""
        for item in items:
            self.items.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                self.given += 1
                yield item
        finally:
            self.closed = True


class Shown(NamedTuple):
    """What a stream holds."""

    entries: list[bytes]
    closed: bool


def writer_of(runtime: Runtime, source: Any, path: str = "s", *, told: bool = True) -> StreamWriter:
    """A writer whose last entry, where one is ``told``, begins with ``failed: `` or is ``stopped``."""
    return StreamWriter(
        runtime,
        path,
        source,
        encode=bytes,
        failure=lambda text: f"failed: {text}".encode() if told else None,
        stopped=b"stopped" if told else None,
    )


async def begun(
    runtime: Runtime, source: Any, request: CreateRequest = TEXT, *, told: bool = True
) -> tuple[StreamWriter, asyncio.Task[str]]:
    """A writer at work."""
    writer = writer_of(runtime, source, told=told)
    await writer.begin(request)
    return writer, asyncio.create_task(writer.run())


async def in_host(runtime: Runtime, work: Callable[[StreamHost], Any], path: str = "s") -> Any:
    """What ``work`` returns in the stream's host."""
    return await StreamDirectory(runtime).run(path, work)


async def shown(runtime: Runtime, path: str = "s") -> Shown:
    """The whole stream."""

    def read(host: StreamHost) -> Shown:
        stream = host.get(path).stream
        entries: list[bytes] = []
        while len(entries) < stream.position:
            entries += stream.read(format_offset(len(entries))).entries
        return Shown(entries, stream.closed)

    found: Shown = await in_host(runtime, read, path)
    return found


async def has(runtime: Runtime, *entries: bytes) -> None:
    """Wait until the stream, still open, holds these."""
    while await shown(runtime) != (list(entries), False):  # noqa: ASYNC110
        await asyncio.sleep(0.002)


def host_slot(runtime: Runtime, path: str = "s") -> Any:
    """Where the stream's host lives."""
    directory = StreamDirectory(runtime)
    return runtime.slot(directory.host_id(directory.home(path)))


def reset_host(runtime: Runtime) -> None:
    """Throw the host's instance away, as a failing disk would."""
    slot = host_slot(runtime)
    if slot.instance is not None:
        slot.discard_instance(slot.instance, RuntimeError("a test"))


def is_held_awake(runtime: Runtime) -> bool:
    """Whether the host would be woken by a restart."""
    return bool(host_slot(runtime).instance._held)


def set_clock(runtime: Runtime, now_ms: int) -> None:
    """Let it be this time from now on."""
    runtime.now_ms = lambda: now_ms
