"""`StreamTails`: where streams end, asked of their hosts.

A tail that is told here is durable, and nothing that was appended before the question is missing
from it: the host is asked first, and what it says waits until what it had written is safe. So who
listens to news of streams and then asks for their tails misses nothing in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from typing import NamedTuple

from ..objects.runtime import Runtime
from ..streams.stream import Stream
from .directory import HOST_COUNT, StreamDirectory
from .host import StreamHost

STREAMS_AT_ONCE = 100
"""Streams that are asked for together; between two such groups others have their turn."""

NAMES_AT_ONCE = 200
"""Names of one host that are looked through together."""


class Tail(NamedTuple):
    """Where a stream ends. ``stream`` tells it from others that had its path before."""

    offset: str
    stream: str


Tails = dict[str, Tail]
"""Tails by path."""


class _Page(NamedTuple):
    tails: Tails
    last: str | None
    """The last name that was looked at, if there may be more."""


class StreamTails:
    """Finds the tails of streams. Each of its methods raises PerdureError when a host cannot be asked now."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def of(self, paths: Iterable[str]) -> Tails:
        """The tails of these streams, as far as there are such streams."""
        tails: Tails = {}
        async for group in self.named(paths):
            tails |= group
        return tails

    async def named(self, paths: Iterable[str]) -> AsyncIterator[Tails]:
        """The same, a group at a time."""
        # A directory of its own: what a lasting one remembers of forks could be over, and it would not be told.
        directory, wanted = StreamDirectory(self._runtime), list(paths)
        for start in range(0, len(wanted), STREAMS_AT_ONCE):
            group = wanted[start : start + STREAMS_AT_ONCE]
            found = await asyncio.gather(*(directory.run(path, partial(_tail, path)) for path in group))
            yield {path: tail for path, tail in zip(group, found, strict=True) if tail is not None}

    async def all(self, wanted: Callable[[str], bool]) -> Tails:
        """The tails of all streams whose paths are wanted."""
        tails: Tails = {}
        for number in range(HOST_COUNT):
            async for page in self.in_host(number, wanted):
                tails |= page
        return tails

    async def in_host(self, number: int, wanted: Callable[[str], bool]) -> AsyncIterator[Tails]:
        """The tails of all streams of one host whose paths are wanted, a page at a time."""
        directory = StreamDirectory(self._runtime)
        last: str | None = "" if directory.exists(number) else None
        while last is not None:
            page = await directory.run_in(number, partial(_page, last, wanted))
            yield page.tails
            last = page.last
            await asyncio.sleep(0)  # an awake host answers at once: others want their turn


def _page(after: str, wanted: Callable[[str], bool], host: StreamHost) -> _Page:
    names = host.storage.stream_table.names_after(after, "", NAMES_AT_ONCE)
    found = {name: _tail(name, host) for name in names if wanted(name)}
    tails = {name: tail for name, tail in found.items() if tail is not None}
    return _Page(tails, names[-1] if len(names) == NAMES_AT_ONCE else None)


def _tail(path: str, host: StreamHost) -> Tail | None:
    hosted = host.find(path)  # not what has expired, or is kept for its forks alone
    return None if hosted is None else Tail(hosted.stream.tail_offset, stream_id(host.name, hosted.stream))


def stream_id(host_name: str, stream: Stream) -> str:
    """Tells a stream from all others: hosts give no number twice."""
    return f"{host_name}.{stream.stored.number}"
