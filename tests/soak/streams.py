"""Kill a server of streams under its writers and readers, again and again; lose nothing, store nothing twice.

    python -m tests.soak.streams --rounds 20 --streams 10 --seed 1

Each round: new streams (some are forks of older ones) get several idempotent producers, which send whatever was not
answered again, plain writers, and readers in every mode; at random moments the server is ended with ``kill -9`` (or,
one time in five, with SIGTERM, and sometimes while it still recovers) and started again on the same folder, with
the accelerator or without. At the end of a round each stream is closed. Then:

- every item that was acknowledged is in its stream, once, where the answer said; each producer's are in order;
- nothing is there twice, acknowledged or not, and nothing that nobody sent;
- what each reader has put together is the stream;
- every stream is closed, and those of earlier rounds still are, with what they held.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.server.streams.servers import RawAnswer, asked

from .plan import End
from .server import ServerProcess, ServerTrouble
from .streams_clients import Client, Cut, Kind, Line, Maker, Mode, PlainWriter, Reader, Violation, Writer

SETTLE_S_MAX = 60.0
"""How long after the last start all clients must be done."""

KINDS: tuple[Kind, ...] = ("application/json", "text/plain", "application/octet-stream")
MODES: tuple[Mode, ...] = ("sse", "long-poll", "catch-up")


@dataclass
class Held:
    """A stream of the run: who writes to it and reads it, and, once it is closed, what it is for ever."""

    path: str
    kind: Kind
    source: Held | None = None
    writers: list[Writer] = field(default_factory=list)
    plain: list[PlainWriter] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    digest: bytes = b""

    @property
    def authors(self) -> list[Writer | PlainWriter]:
        """All who write to it."""
        return [*self.writers, *self.plain]

    def settle(self, items: list[str], body: bytes) -> None:
        """Remember what it is, and let go of its clients."""
        self.items, self.digest = items, hashlib.sha256(body).digest()
        self.writers, self.plain, self.readers = [], [], []


@dataclass
class RoundResult:
    """What one round showed."""

    number: int
    ends: str = ""
    acked: int = 0
    retries: int = 0
    duplicates: int = 0
    readers: int = 0
    connects: int = 0
    lost: int = 0
    twice: int = 0
    reopened: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The round's line of the table."""
        result = "ok" if not self.violations else f"{len(self.violations)} violations"
        return (
            f"{self.number:>5}  {self.ends:<34}{self.acked:>7}{self.retries:>9}{self.duplicates:>12}{self.readers:>9}"
            f"{self.connects:>10}{self.lost:>6}{self.twice:>7}{self.reopened:>10}{self.seconds:>9.1f}  {result}"
        )


HEADER = (
    f"{'round':>5}  {'ends':<34}{'acked':>7}{'retries':>9}{'duplicates':>12}{'readers':>9}"
    f"{'connects':>10}{'lost':>6}{'twice':>7}{'reopened':>10}{'seconds':>9}  result"
)


def make_ends(chance: random.Random) -> list[End]:
    """When and how the server ends in a round; the first time it is a kill."""
    ends = [End("kill", chance.uniform(0.3, 1.5), early=False)]
    for _ in range(chance.choice((0, 1, 1, 2))):
        early = chance.random() < 0.3
        after_s = chance.uniform(0.05, 0.6) if early else chance.uniform(0.3, 1.5)
        ends.append(End("kill" if chance.random() < 0.8 else "term", after_s, early))
    return ends


def make_streams(
    chance: random.Random, number: int, count: int, port: int, older: Sequence[Held], stop: asyncio.Event
) -> list[Held]:
    """The streams of a round with their clients."""
    streams = []
    for at in range(count):
        source = chance.choice(older) if older and chance.random() < 0.3 else None
        kind = source.kind if source is not None else KINDS[at % 3]
        held = Held(f"round{number}/stream-{at}", kind, source)
        held.writers = [
            Writer(held.path, kind, port, chance, writer, stop) for writer in range(chance.choice((1, 2, 3)))
        ]
        closer = held.writers[-1]
        closer.close = chance.choice(("item", "numbers", "plain"))
        closer.others = held.writers[:-1]
        held.plain = [PlainWriter(held.path, kind, port, chance, stop) for _ in range(at % 2)]
        held.readers = [Reader(held.path, kind, port, chance, MODES[(at + reader) % 3]) for reader in range(2)]
        streams.append(held)
    return streams


async def run_round(
    number: int, count: int, server: ServerProcess, seed: int, older: Sequence[Held]
) -> tuple[RoundResult, list[Held]]:
    """One round on a running server; its result and its streams."""
    result, started = RoundResult(number), time.monotonic()
    chance = random.Random(f"{seed}/{number}")
    stop = asyncio.Event()
    streams = make_streams(chance, number, count, server.port, older, stop)
    makers = [
        Maker(held.path, held.kind, server.port, chance, None if held.source is None else held.source.path)
        for held in streams
    ]
    await asyncio.gather(*(maker.run() for maker in makers))
    clients: list[Client] = [client for held in streams for client in (*held.writers, *held.plain, *held.readers)]
    tasks = [asyncio.create_task(client.run(), name=client.name) for client in clients]
    try:
        for end in make_ends(chance):
            result.ends += await _end(server, end, chance) + " "
        await server.ready()
        await asyncio.sleep(chance.uniform(0.1, 0.5))
        stop.set()
        await _settle(tasks, result)
    except ServerTrouble as error:
        result.violations.append(str(error))
        return result, streams
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    _count(result, streams, clients)
    await _check(streams, older, server.port, result)
    result.seconds = time.monotonic() - started
    return result, streams


async def _end(server: ServerProcess, end: End, chance: random.Random) -> str:
    """Let the server work for a while, end it, start it again."""
    if not end.early:
        await server.ready()
    await asyncio.sleep(end.after_s)
    await server.end(signal.SIGKILL if end.kind == "kill" else signal.SIGTERM)
    # Both ways to the streams must find what the other has written.
    accelerated = chance.random() < 0.7
    os.environ["PERDURE_ACCELERATOR"] = "1" if accelerated else "0"
    server.start()
    return f"{'early ' if end.early else ''}{end.kind}@{end.after_s:.1f}"


async def _settle(tasks: list[asyncio.Task[None]], result: RoundResult) -> None:
    """Wait until every client is done."""
    await asyncio.wait(tasks, timeout=SETTLE_S_MAX, return_when=asyncio.FIRST_EXCEPTION)
    done, pending = await asyncio.wait(tasks, timeout=1)
    for task in done:
        if (error := task.exception()) is not None:
            if not isinstance(error, Violation):
                raise error
            result.violations.append(str(error))
    result.violations += [f"{task.get_name()}: did not come to its end" for task in pending]


def _count(result: RoundResult, streams: list[Held], clients: list[Client]) -> None:
    writers = [writer for held in streams for writer in held.writers]
    result.acked = sum(len(author.acked) for held in streams for author in held.authors)
    result.retries = sum(writer.retries for writer in writers)
    result.duplicates = sum(writer.duplicates for writer in writers)
    result.readers = sum(len(held.readers) for held in streams)
    result.connects = sum(client.line.connects for client in clients)


# --- checks


async def _check(streams: list[Held], older: Sequence[Held], port: int, result: RoundResult) -> None:
    """Hold what is stored against what everyone was told."""
    line = Line(port)
    try:
        for held in streams:
            items, body = await _whole(line, held, result)
            check_items(held, items, result)
            await _check_closed(line, held, len(items), result)
            held.settle(items, body)
        for held in older:
            _, body = await _whole(line, held, result)
            if hashlib.sha256(body).digest() != held.digest:
                result.violations.append(f"{held.path}: is not what it was when it was closed")
            await _check_closed(line, held, len(held.items), result)
    finally:
        await line.close()


async def _ask(line: Line, request: bytes, *, head: bool = False) -> RawAnswer:
    for _ in range(50):
        try:
            (answer,) = await line.ask(request, head=head)
            return answer
        except Cut:
            await asyncio.sleep(0.1)
    raise ServerTrouble("the server does not answer")


async def _whole(line: Line, held: Held, result: RoundResult) -> tuple[list[str], bytes]:
    """A stream's items and bytes, read in parts."""
    offset, bodies = "-1", []
    while True:
        answer = await _ask(line, asked("GET", f"{held.path}?offset={offset}"))
        if answer.status != 200:
            result.violations.append(f"{held.path}: a read at {offset} was answered {answer.status}")
            return [], b""
        bodies.append(answer.body)
        offset = answer.headers["stream-next-offset"]
        if "stream-up-to-date" in answer.headers:
            break
    if held.kind == "application/json":
        return [item for body in bodies for item in json.loads(body)], b"".join(bodies)
    return b"".join(bodies).decode().split(";")[:-1], b"".join(bodies)


def check_items(held: Held, items: list[str], result: RoundResult) -> None:
    """What was acknowledged is there once, where it was said to be; nothing else is but what may be."""
    shared = held.source.items if held.source is not None else []
    if items[: len(shared)] != shared:
        result.violations.append(f"{held.path}: does not begin with what {held.source} had")
    counts = Counter(items[len(shared) :])
    acked = {text: at for author in held.authors for text, at in author.acked.items()}
    unknown = {text for writer in held.plain for text in writer.unknown}
    lost = [text for text in acked if not counts[text]]
    twice = [text for text, number in counts.items() if number > 1]
    misplaced = [text for text, at in acked.items() if at is not None and items[at : at + 1] != [text]]
    strangers = [text for text in counts if text not in acked and text not in unknown]
    result.lost += len(lost)
    result.twice += len(twice)
    for what, texts in (("lost", lost), ("twice", twice), ("elsewhere", misplaced), ("from nobody", strangers)):
        if texts:
            result.violations.append(f"{held.path}: {len(texts)} items {what}, such as {texts[0][:60]!r}")
    for writer in held.writers:
        mine = [text for text in items[len(shared) :] if text.startswith(f"{writer.id}/")]
        if mine != [text for text in writer.sent if text in counts]:
            result.violations.append(f"{writer.name}: its items are not in their order")
    for reader in held.readers:
        if reader.seen != items:
            result.violations.append(f"{reader.name}: read {len(reader.seen)} items, stored are {len(items)} others")


async def _check_closed(line: Line, held: Held, length: int, result: RoundResult) -> None:
    """The stream is closed, and stays it when someone writes."""
    head = await _ask(line, asked("HEAD", held.path), head=True)
    closed = (head.headers.get("stream-closed"), head.headers.get("stream-next-offset")) == ("true", f"{length:016}")
    late = await _ask(line, asked("POST", held.path, b'"late"', f"content-type: {held.kind}"))
    if not closed or late.status != 409 or late.headers.get("stream-closed") != "true":
        result.reopened += 1
        result.violations.append(
            f"{held.path}: was closed at {length}, is {head.headers}; a late append: {late.status}"
        )


# --- the run


async def run(rounds: int, streams: int, seed: int, folder: Path) -> list[RoundResult]:
    """All rounds on one data folder; stops after a round with violations."""
    accelerator = os.environ.get("PERDURE_ACCELERATOR")
    server = ServerProcess(folder / "data", module="tests.soak.streams_app")
    results: list[RoundResult] = []
    older: list[Held] = []
    server.start()
    try:
        for number in range(1, rounds + 1):
            await server.ready()
            result, made = await run_round(number, streams, server, seed, older)
            results.append(result)
            print(result.row(), flush=True)
            if result.violations:
                break
            older += made
    finally:
        server.kill()
        os.environ.pop("PERDURE_ACCELERATOR", None)
        if accelerator is not None:
            os.environ["PERDURE_ACCELERATOR"] = accelerator
    return results


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--data", type=Path, default=None, help="default: a new folder, removed after success")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    folder = arguments.data or Path(tempfile.mkdtemp(prefix="perdure-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {arguments.streams} streams a round\n{HEADER}", flush=True)
    results = asyncio.run(run(arguments.rounds, arguments.streams, seed, folder))
    violations = [violation for result in results for violation in result.violations]
    if violations:
        print(*violations[:20], sep="\n")
        again = f"--rounds {arguments.rounds} --streams {arguments.streams} --seed {seed}"
        print(f"FAILED with {again}; everything is in {folder}")
        return 1
    acked, retries = (sum(getattr(result, name) for result in results) for name in ("acked", "retries"))
    duplicates = sum(result.duplicates for result in results)
    print(
        f"{len(results)} rounds, {acked:,} items acknowledged, {retries:,} sent again, {duplicates:,} of them "
        f"duplicates: 0 lost, 0 twice, 0 reopened"
    )
    if arguments.data is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
