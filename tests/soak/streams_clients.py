"""The clients of the streams' kill test: writers that send again whatever was not answered, readers that resume.

Each remembers what it was told, and nothing else: what a server answered must hold for ever.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
from abc import ABC, abstractmethod
from contextlib import AsyncExitStack
from typing import Literal

from tests.server.streams.servers import Raw, RawAnswer, asked, raw

from perdure.wire.sse import SseParser

Kind = Literal["application/json", "text/plain", "application/octet-stream"]
Mode = Literal["sse", "long-poll", "catch-up"]

ANSWER_S_MAX = 10.0
AGAIN_S = 0.1
"""About how long a client waits after its connection was lost."""


class Violation(Exception):
    """A promise was broken."""


class Cut(Exception):
    """The connection was lost, or the server is not there."""


class Line:
    """A connection that is made anew when it was lost."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stack: AsyncExitStack | None = None
        self._raw: Raw | None = None
        self.connects = 0

    async def open(self) -> Raw:
        """The connection.

        Raises:
            Cut: nobody listens.
        """
        if self._raw is None:
            self._stack = AsyncExitStack()
            try:
                self._raw = await self._stack.enter_async_context(raw(f"127.0.0.1:{self._port}"))
            except OSError as error:
                raise Cut from error
            self.connects += 1
        return self._raw

    async def close(self) -> None:
        """Let go of the connection."""
        stack, self._stack, self._raw = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    async def ask(self, *requests: bytes, head: bool = False) -> list[RawAnswer]:
        """Send requests in a row; the answers that came before the connection was lost, if it was.

        Raises:
            Cut: there was none.
        """
        answers: list[RawAnswer] = []
        try:
            line = await self.open()
            line.send(*requests)
            async with asyncio.timeout(ANSWER_S_MAX):
                while len(answers) < len(requests):
                    answers += [await line.answer(head=head)]
        except (OSError, EOFError, asyncio.IncompleteReadError, TimeoutError) as error:
            await self.close()
            if isinstance(error, TimeoutError):
                raise Violation(f"no answer in {ANSWER_S_MAX:g} s to {requests[len(answers)][:80]!r}") from error
            if not answers:
                raise Cut from error
        return answers

    async def lose(self, *requests: bytes) -> None:
        """Send requests, and lose the connection before an answer is read: they may arrive or not.

        Raises:
            Cut: always.
        """
        line = await self.open()
        line.send(*requests)
        await asyncio.sleep(0.005)
        await self.close()
        raise Cut


class Client(ABC):
    """Someone who comes back until it has done what it wants."""

    def __init__(self, path: str, kind: Kind, port: int, chance: random.Random, name: str) -> None:
        self.path = path
        self.kind = kind
        self.name = f"{path} {name}"
        self.chance = chance
        self.line = Line(port)

    @abstractmethod
    async def step(self) -> bool:
        """Do the next thing; whether all is done.

        Raises:
            Cut: to be done again.
            Violation: the server broke a promise.
        """

    async def run(self) -> None:
        """Do everything. Raises Violation."""
        try:
            while True:
                try:
                    if await self.step():
                        return
                except Cut:
                    await asyncio.sleep(AGAIN_S * self.chance.uniform(0.2, 1.5))
        finally:
            await self.line.close()

    def fail(self, what: str) -> None:
        """Raises Violation."""
        raise Violation(f"{self.name}: {what}")


class Maker(Client):
    """Makes a stream, or a fork of one; asked again, it is no error."""

    def __init__(self, path: str, kind: Kind, port: int, chance: random.Random, source: str | None) -> None:
        super().__init__(path, kind, port, chance, "maker")
        self.source = source

    async def step(self) -> bool:
        headers = [f"content-type: {self.kind}"]
        if self.source is not None:
            headers.append(f"stream-forked-from: /v1/stream/{self.source}")
        (answer,) = await self.line.ask(asked("PUT", self.path, b"", *headers))
        if answer.status == 503:
            raise Cut
        if answer.status not in (200, 201):
            self.fail(f"PUT was answered {answer.status} {answer.body!r}")
        return True


class Item:
    """What one append adds. ``text`` is in no other."""

    def __init__(self, text: str, kind: Kind, epoch: int = 0, seq: int = 0) -> None:
        self.text = text
        self.body = json.dumps(text).encode() if kind == "application/json" else f"{text};".encode()
        self.epoch = epoch
        self.seq = seq
        self.tries = 0


class Writer(Client):
    """An idempotent producer: some appends in a row, sometimes out of order, each until it was answered.

    Stops when ``stop`` is set and all is acknowledged. ``ends``: then it closes the stream, with its last
    item (``"item"``), with its numbers alone (``"numbers"``), or as anyone may (``"plain"``).
    """

    def __init__(
        self,
        path: str,
        kind: Kind,
        port: int,
        chance: random.Random,
        number: int,
        stop: asyncio.Event,
    ) -> None:
        super().__init__(path, kind, port, chance, f"writer {number}")
        self.id = f"writer {number} é"
        self.stop = stop
        self.acked: dict[str, int | None] = {}
        """The items that were acknowledged, and the offset that the first answer gave."""
        self.waiting: list[Item] = []
        self.sent: list[str] = []
        self.retries = 0
        self.duplicates = 0
        self.epoch = 0
        self.seq = 0
        self.close: Literal["item", "numbers", "plain"] | None = None
        self.others: list[Writer] = []
        """Whoever else writes to the stream: the one that closes it waits for them."""
        self.finished = False
        self.closing: Item | None = None
        self.closed = False

    async def step(self) -> bool:
        if not self.waiting and self.epoch and self.seq and not self.closing and self.chance.random() < 0.02:
            await self._check_fence()
        if not self.stop.is_set():
            self._add(self.chance.choice((0, 1, 1, 1, 2, 5)))
            await asyncio.sleep(self.chance.choice((0, 0.002, 0.01)))
        if self.waiting:
            await self._send()
            return False
        if not self.stop.is_set():
            if self.chance.random() < 0.03:
                self.epoch, self.seq = self.epoch + 1, 0  # as if it had been started anew
            return False
        self.finished = True
        if self.close is None or self.closed:
            return True
        if not all(other.finished for other in self.others):
            await asyncio.sleep(0.02)
            return False
        await self._end()
        return False

    def _add(self, count: int) -> None:
        for _ in range(count):
            text = f"{self.id}/{self.epoch}/{self.seq}/{'x' * self.chance.choice((0, 5, 400))}"
            self.sent.append(text)
            self.waiting.append(Item(text, self.kind, self.epoch, self.seq))
            self.seq += 1

    def _request(self, item: Item, *headers: str, body: bytes | None = None) -> bytes:
        return asked(
            "POST",
            self.path,
            item.body if body is None else body,
            f"content-type: {self.kind}",
            f"producer-id: {self.id}".encode().decode("latin-1"),
            f"producer-epoch: {item.epoch}",
            f"producer-seq: {item.seq}",
            *headers,
        )

    async def _send(self) -> None:
        batch = self.waiting[:8]
        if len(batch) > 1 and batch[0].seq and self.chance.random() < 0.1:
            batch.append(batch.pop(0))  # the oldest comes last; but an epoch's first item is always first
        self.retries += sum(1 for item in batch if item.tries)
        for item in batch:
            item.tries += 1
        if self.chance.random() < 0.02:
            await self.line.lose(*map(self._request, batch))
        answers = await self.line.ask(*map(self._request, batch))
        for item, answer in zip(batch, answers, strict=False):
            self._take(item, answer)

    def _take(self, item: Item, answer: RawAnswer) -> None:
        match answer.status:
            case 200:
                offset = int(answer.headers["stream-next-offset"])
                self.acked[item.text] = offset - 1
            case 204:
                if item.tries < 2:
                    self.fail(f"{item.text!r}, sent for the first time, was answered as a duplicate")
                self.duplicates += 1
                self.acked[item.text] = None
            case 409 if "producer-expected-seq" in answer.headers:
                return  # it came before the one before it
            case 503:
                return
            case _:
                self.fail(f"{item.text!r} was answered {answer.status} {answer.body!r}")
        self.waiting.remove(item)

    async def _check_fence(self) -> None:
        """What an earlier life of the producer still sends is refused."""
        (answer,) = await self.line.ask(self._request(Item("zombie", self.kind, self.epoch - 1, 10**6)))
        if answer.status not in (403, 503):
            self.fail(f"an earlier epoch was answered {answer.status} {answer.body!r}")

    async def _end(self) -> None:
        if self.close == "plain":
            (answer,) = await self.line.ask(asked("POST", self.path, b"", "stream-closed: true"))
        else:
            if self.closing is None:
                self.closing = Item(f"{self.id}/last", self.kind, self.epoch, self.seq)
                self.sent += [self.closing.text] if self.close == "item" else []
            self.closing.tries += 1
            body = None if self.close == "item" else b""
            (answer,) = await self.line.ask(self._request(self.closing, "stream-closed: true", body=body))
        if answer.status == 503:
            raise Cut
        if answer.status not in (200, 204) or answer.headers.get("stream-closed") != "true":
            self.fail(f"the end was answered {answer.status} {answer.headers} {answer.body!r}")
        if self.close == "item" and self.closing is not None:
            self.acked[self.closing.text] = int(answer.headers["stream-next-offset"]) - 1
        self.closed = True


class PlainWriter(Client):
    """Appends without numbers, so never twice: what was not answered may be there or not."""

    def __init__(self, path: str, kind: Kind, port: int, chance: random.Random, stop: asyncio.Event) -> None:
        super().__init__(path, kind, port, chance, "plain writer")
        self.stop = stop
        self.acked: dict[str, int | None] = {}
        self.unknown: set[str] = set()
        self._number = 0

    async def step(self) -> bool:
        if self.stop.is_set():
            return True
        self._number += 1
        item = Item(f"plain/{self._number}", self.kind)
        await self.line.open()
        self.unknown.add(item.text)
        (answer,) = await self.line.ask(asked("POST", self.path, item.body, f"content-type: {self.kind}"))
        if answer.status == 204:
            self.unknown.remove(item.text)
            self.acked[item.text] = int(answer.headers["stream-next-offset"]) - 1
        elif answer.status == 503:
            raise Cut
        else:
            self.fail(f"an append was answered {answer.status} {answer.body!r}")
        await asyncio.sleep(self.chance.uniform(0.002, 0.03))
        return False


class Reader(Client):
    """Reads a stream to its end, live or in parts, from where it was each time."""

    def __init__(self, path: str, kind: Kind, port: int, chance: random.Random, mode: Mode) -> None:
        super().__init__(path, kind, port, chance, mode)
        self.mode = mode
        self.offset = "-1"
        self.cursor = ""
        self.seen: list[str] = []
        self._half = b""

    async def step(self) -> bool:
        if self.mode == "sse":
            return await self._follow()
        live = "&live=long-poll" if self.mode == "long-poll" and self.offset != "-1" else ""
        query = f"?offset={self.offset}{live}&cursor={self.cursor}"
        (answer,) = await self.line.ask(asked("GET", self.path + query))
        if answer.status == 503:
            raise Cut
        if answer.status not in (200, 204):
            self.fail(f"a read at {self.offset} was answered {answer.status} {answer.body!r}")
        self._take(answer.body, answer.headers["stream-next-offset"])
        self.cursor = answer.headers.get("stream-cursor", "")
        if self.mode == "catch-up" and "stream-up-to-date" in answer.headers:
            await asyncio.sleep(self.chance.uniform(0.02, 0.2))
        return answer.headers.get("stream-closed") == "true"

    def _take(self, body: bytes, offset: str) -> None:
        before = len(self.seen)
        if self.kind == "application/json":
            self.seen += json.loads(body or b"[]")
        else:
            *items, self._half = (self._half + body).split(b";")
            self.seen += [item.decode() for item in items]
        if self._half or int(offset) != len(self.seen):
            self.fail(f"{len(self.seen)} items are not {offset}; the newest are {self.seen[before:][-3:]}")
        self.offset = offset

    async def _follow(self) -> bool:
        connection = await self.line.open()
        # Now and then the network fails by itself.
        stays = self.chance.choice((None, None, 1, 3, 30))
        try:
            connection.send(asked("GET", f"{self.path}?offset={self.offset}&live=sse&cursor={self.cursor}"))
            head = (await connection.reader.readuntil(b"\r\n\r\n")).lower()
            if b" 503 " in head:
                raise Cut
            if not head.startswith(b"http/1.1 200"):
                self.fail(f"a live read at {self.offset} was answered {head!r}")
            return await self._events(connection, b"stream-sse-data-encoding: base64" in head, stays)
        except (OSError, EOFError, asyncio.IncompleteReadError) as error:
            raise Cut from error
        finally:
            await self.line.close()

    async def _events(self, connection: Raw, encoded: bool, stays: int | None) -> bool:
        parser, data = SseParser(), b""
        while True:
            async with asyncio.timeout(ANSWER_S_MAX):
                size = int(await connection.reader.readline() or b"-1", 16)
                if size < 0:
                    raise EOFError
                block = await connection.reader.readexactly(size + 2)
            if not size:
                return False  # rotated
            for event in parser.feed(block[:-2]):
                if event.event == "data":
                    data = base64.b64decode(event.data) if encoded else event.data.encode()
                    continue
                control = json.loads(event.data)
                self._take(data, control["streamNextOffset"])
                self.cursor, data = control.get("streamCursor", ""), b""
                if control.get("streamClosed"):
                    return True
                if stays is not None and (stays := stays - 1) <= 0:
                    return False
