"""The asynchronous client: `AsyncStreamClient`, `AsyncStream`, `AsyncFollow`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import datetime

import httpx2

from .async_producer import AsyncProducer
from .async_transport import AsyncTransport
from .core import CreateResult, Source, StreamCore, StreamInfo, address_of
from .http import ClientLimits, Headers, surroundings
from .producing import ProducerCore
from .reading import START, Batch, Live, Reading, Whole
from .retry import RETRY_FOR_S


class AsyncStreamClient:
    """Streams of one server, asynchronously. `StreamClient` is its blocking twin.

    Used as ``async with``, or closed with `aclose`.

    Args:
        base_url: where the streams are, as ``https://example.com/v1/stream``; None where every
            stream is named by its whole address.
        headers: of every request, or a function that is asked for them each time.
        retry_for_s: how long one operation tries without progress; None for ever, 0 not again.
        limits: timeouts and sizes.
        http: an HTTP client of your own, with its certificates, proxies or authentication. It
            stays open.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        headers: Headers | None = None,
        retry_for_s: float | None = RETRY_FOR_S,
        limits: ClientLimits | None = None,
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._base_url = base_url
        self._around = surroundings(retry_for_s)
        self._transport = AsyncTransport(headers, limits or ClientLimits(), http)

    def stream(self, path: str, *, content_type: str | None = None) -> AsyncStream:
        """A handle of the stream at ``path`` below `base_url`, or at a whole address. Sends nothing.

        ``content_type`` spares the question for it before the first append.

        Raises:
            ConfigError: that is no address.
        """
        core = StreamCore(address_of(self._base_url, path), self._around, content_type=content_type)
        return AsyncStream(self._transport, core)

    async def aclose(self) -> None:
        """Close the connections. Producers must have been left before."""
        await self._transport.aclose()

    async def __aenter__(self) -> AsyncStreamClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()


class AsyncStream:
    """One stream of a server: create, append, close, delete, read, follow. Made by `AsyncStreamClient.stream`.

    Every method raises `PerdureError`\\ s: `StreamNotFound`, `StreamGone`, `StreamUnreachable` when
    no try is left, `StreamRefused` and its like for the rest (`perdure.streams_client.errors` has
    the tree). Lost connections, 429 and 5xx are tried again. A cancelled operation may have been
    carried out.
    """

    def __init__(self, transport: AsyncTransport, core: StreamCore) -> None:
        self._transport = transport
        self._core = core

    @property
    def url(self) -> str:
        """The stream's address."""
        return self._core.url

    @property
    def content_type(self) -> str | None:
        """The stream's content type, as far as it is known here."""
        return self._core.content_type

    async def create(
        self,
        *,
        content_type: str | None = None,
        items: Iterable[object] = (),
        closed: bool = False,
        ttl_s: int | None = None,
        expires_at: datetime | str | None = None,
        source: Source | None = None,
    ) -> CreateResult:
        """Create the stream, or make sure that it is there as described.

        Args:
            content_type: ``application/json`` for messages; default ``application/octet-stream``, of a
                fork the source's.
            items: what it begins with, as `append_all` takes them.
            closed: it ends with that.
            ttl_s: seconds without a read or write after which it is gone.
            expires_at: when it is gone, with a time zone.
            source: make it a fork of that stream.

        Raises:
            StreamConflict: there is one that differs; the source's content type differs.
            StreamNotFound: there is no such source.
        """
        return await self._transport.run(
            self._core.create(
                content_type=content_type,
                items=items,
                closed=closed,
                ttl_s=ttl_s,
                expires_at=expires_at,
                source=source,
            )
        )

    def as_source(self, offset: str | None = None, sub_offset: int | None = None) -> Source:
        """This stream as what a fork begins with: up to ``offset`` (its tail), and so many messages or bytes more."""
        return Source(self.url, offset, sub_offset)

    async def append(self, item: object, *, seq: str | None = None) -> str:
        """Append one item; return the new tail's offset.

        A JSON stream takes any value that has JSON as one message (``bytes`` as JSON text), others
        take ``bytes`` or ``str``. At least once: when an answer was lost, the item is sent again
        and may be there twice. `producer` appends exactly once.

        Args:
            seq: a `Stream-Seq`, which must be greater than all before, as text. A repetition is refused
                then, so that a `StreamConflict` after a lost answer may mean that the item is there.

        Raises:
            StreamClosed: the stream has ended.
            StreamConflict: the content type differs, or ``seq`` is not greater.
        """
        return await self._transport.run(self._core.append([item], seq=seq))

    async def append_all(self, items: Iterable[object], *, seq: str | None = None) -> str:
        """Append all items or none, in one request; return the new tail's offset. Else as `append`."""
        return await self._transport.run(self._core.append(items, seq=seq))

    async def close(self, *items: object) -> str:
        """End the stream for good, with ``items`` as its last; return the final offset.

        Exactly once, however often it is tried. Closing a closed stream is no error, unless with items.

        Raises:
            StreamClosed: it has ended without these items.
        """
        return await self._transport.run(self._core.close(items))

    async def delete(self) -> None:
        """Delete the stream."""
        await self._transport.run(self._core.delete())

    async def head(self) -> StreamInfo:
        """What the server says about the stream."""
        return await self._transport.run(self._core.head())

    async def read(self, offset: str = START) -> Batch:
        """Everything from ``offset`` to the tail, in one batch in memory.

        Raises:
            OffsetError: the server does not know the offset.
            StreamGone: what was there is no longer kept.
            LimitExceeded: it is more than ``body_bytes_max``; follow it with ``live=False`` instead.
        """
        async with self.follow(offset, live=False) as follow:
            whole = Whole(self._transport.limits.body_bytes_max)
            async for batch in follow:
                whole.add(batch)
            return whole.batch

    def follow(self, offset: str = START, *, live: Live = "auto") -> AsyncFollow:
        """Iterate over the stream in batches, from ``offset`` (``"now"``: the tail) to its end.

        Use it as ``async with`` where the loop may be left before the end.
        """
        limits = self._transport.limits
        reading = Reading(
            self.url,
            self._core.around,
            offset=offset,
            live=live,
            body_bytes_max=limits.body_bytes_max,
            event_bytes_max=limits.event_bytes_max,
        )
        return AsyncFollow(self._transport, reading)

    def producer(
        self,
        producer_id: str,
        *,
        epoch: int = 0,
        auto_claim: bool = False,
        batch_bytes_max: int = 1_048_576,
        linger_ms: float = 5,
        in_flight_max: int = 5,
        buffer_bytes_max: int = 16_777_216,
    ) -> AsyncProducer:
        """A producer: many appends in few requests, each item exactly once and in order.

        Args:
            producer_id: its name on this stream; one producer of a name at a time.
            epoch: which run of it this is; higher than that of every run before.
            auto_claim: instead, take an epoch above all before: the time in milliseconds, or one more
                than the server's. A producer of the same name that still runs is fenced off.
            batch_bytes_max: longest request body, except of one item.
            linger_ms: how long an item waits for others to go with.
            in_flight_max: requests on their way at once.
            buffer_bytes_max: bytes of items that are not acknowledged; at it `append` waits.
        """
        core = ProducerCore(
            self._core,
            producer_id,
            epoch=epoch,
            auto_claim=auto_claim,
            batch_bytes_max=batch_bytes_max,
            linger_ms=linger_ms,
            in_flight_max=in_flight_max,
            buffer_bytes_max=buffer_bytes_max,
        )
        return AsyncProducer(self._transport, self._core, core)


class AsyncFollow:
    """An iterator over a stream's batches. Made by `AsyncStream.follow`.

    It reconnects by itself; when it raises, go on with a new one from `offset`.
    """

    def __init__(self, transport: AsyncTransport, reading: Reading) -> None:
        self._reading = reading
        self._batches = transport.follow(reading)

    @property
    def offset(self) -> str:
        """Where the last batch ended."""
        return self._reading.offset

    @property
    def up_to_date(self) -> bool:
        """Whether that was the tail."""
        return self._reading.up_to_date

    @property
    def closed(self) -> bool:
        """Whether that was the stream's end."""
        return self._reading.closed

    @property
    def content_type(self) -> str:
        """The stream's content type, known from the first batch on."""
        return self._reading.content_type

    def __aiter__(self) -> AsyncFollow:
        return self

    async def __anext__(self) -> Batch:
        return await anext(self._batches)

    async def __aenter__(self) -> AsyncFollow:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the connection."""
        await self._batches.aclose()


@asynccontextmanager
async def connect_async(
    url: str, *, headers: Headers | None = None, retry_for_s: float | None = RETRY_FOR_S
) -> AsyncIterator[AsyncStream]:
    """One stream at its whole address, with a client of its own for as long as the block lasts."""
    async with AsyncStreamClient(headers=headers, retry_for_s=retry_for_s) as client:
        yield client.stream(url)
