"""The load: WebSocket clients on picows that keep every frame, and the check of what they got.

A client does as little as it can while it is measured (a clock, a copy, a look at the frame's beginning);
frames are read afterwards. So the load's core is not what limits a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from time import monotonic, process_time

import msgspec
import picows

from .harness import Server
from .script import CHUNK_BYTES, parse_chunk

# How the frames begin: a frame's type is its first field.
INIT = b'{"type":"init"'
MESSAGE = b'{"type":"message"'
DELTA = b'{"type":"delta"'
COMPLETE = b'{"type":"complete"'
ERROR = b'{"type":"error"'


class Frame(msgspec.Struct):
    """The fields of server frames that are read here."""

    type: str
    delta: str = ""
    content: str = ""
    messages: list[msgspec.Raw] = []  # msgspec copies a default list


read_frame = msgspec.json.Decoder(Frame).decode
write_frame = msgspec.json.Encoder().encode


class Unexpected(Exception):
    """The server did what no measurement can go on from."""


class Client(picows.WSListener):
    """One connection to a room."""

    def __init__(self) -> None:
        self.arrivals: list[float] = []
        self.payloads: list[bytes] = []
        self.beginning = INIT
        self.waiter: asyncio.Future[float] | None = None

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        now = monotonic()
        payload = frame.get_payload_as_bytes()
        self.arrivals.append(now)
        self.payloads.append(payload)
        if self.waiter is not None:
            if payload.startswith(self.beginning):
                self.waiter.set_result(now)
                self.waiter = None
            elif payload.startswith(ERROR):
                self.fail(payload.decode())

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self.fail("the server closed the connection")

    def fail(self, reason: str) -> None:
        if self.waiter is not None:
            self.waiter.set_exception(Unexpected(reason))
            self.waiter = None

    def expect(self, beginning: bytes) -> asyncio.Future[float]:
        """The time of arrival of the next frame that begins so. One at a time."""
        self.beginning = beginning
        self.waiter = asyncio.get_running_loop().create_future()
        return self.waiter

    def say(self, text: str) -> float:
        """Send a message; returns the time at which it left."""
        payload = write_frame({"type": "message", "content": text})
        now = monotonic()
        self.transport.send(picows.WSMsgType.TEXT, payload)
        return now

    async def ask(self, text: str, answer: bytes) -> float:
        """Send a message and return the seconds until the frame that begins so has come."""
        arrival = self.expect(answer)
        sent = self.say(text)
        return await asyncio.wait_for(arrival, 30) - sent

    def forget(self) -> None:
        """Drop the frames that were kept."""
        self.arrivals.clear()
        self.payloads.clear()


async def connect(port: int, room: str, query: str = "delta=1") -> tuple[Client, float]:
    """Join a room; returns the client and the seconds from the start of the connect to its init frame."""
    client = Client()
    started = monotonic()
    arrival = client.expect(INIT)
    await picows.ws_connect(lambda: client, f"ws://127.0.0.1:{port}/ws/{room}?{query}")
    return client, await asyncio.wait_for(arrival, 30) - started


async def close(clients: Iterable[Client]) -> None:
    """Leave all rooms."""
    clients = list(clients)
    for client in clients:
        client.waiter = None
        client.transport.send_close(picows.WSCloseCode.OK)
        client.transport.disconnect()
    await asyncio.wait_for(asyncio.gather(*(c.transport.wait_disconnected() for c in clients)), 30)


@dataclass
class CpuMeter:
    """CPU time of the server and of this load, while it runs. At 90 % of a core, that side is the limit."""

    server: Server
    server_s: float = 0.0
    load_s: float = 0.0
    wall_s: float = 0.0

    def start(self) -> None:
        self._sign(-1)

    def stop(self) -> None:
        self._sign(1)

    def _sign(self, sign: int) -> None:
        self.server_s += sign * self.server.cpu_seconds()
        self.load_s += sign * process_time()
        self.wall_s += sign * monotonic()

    @property
    def server_percent(self) -> float:
        return self.server_s / self.wall_s * 100

    @property
    def load_percent(self) -> float:
        return self.load_s / self.wall_s * 100


@dataclass
class Deliveries:
    """What clients got of the scripted answers: one latency a chunk, from its creation to its arrival."""

    measured_from: float = 0.0
    measured_to: float = float("inf")
    """Arrivals between these (seconds of the monotonic clock) are counted; what is wrong with others is, too."""

    latencies_ms: list[float] = field(default_factory=list)
    frame_count: int = 0
    fault_count: int = 0
    """Chunks that were dropped, doubled, reordered or damaged, and final texts unlike the deltas."""
    first_created: float = float("inf")
    last_arrival: float = 0.0

    @property
    def chunk_count(self) -> int:
        return len(self.latencies_ms)

    @property
    def elapsed_s(self) -> float:
        return self.last_arrival - self.first_created

    def read(self, client: Client, chunks_per_answer: int) -> None:
        """Take a client's frames in: whole answers of so many chunks each."""
        text, number = "", 0
        for arrival, payload in zip(client.arrivals, client.payloads, strict=True):
            if payload.startswith(DELTA):
                self.frame_count += self.measured_from <= arrival < self.measured_to
                text += read_frame(payload).delta
                number = self._read_chunks(text, number, arrival)
            elif payload.startswith(COMPLETE):
                whole = number == chunks_per_answer and len(text) == number * CHUNK_BYTES
                if not whole or read_frame(payload).content != text:
                    self.fault_count += max(1, abs(chunks_per_answer - number))
                text, number = "", 0
        if text:
            self.fault_count += 1  # an answer without its end

    def _read_chunks(self, text: str, number: int, arrival: float) -> int:
        """Check the chunks of ``text`` from ``number`` on that are whole; returns the next number."""
        while len(text) >= (number + 1) * CHUNK_BYTES:
            try:
                said, created = parse_chunk(text[number * CHUNK_BYTES : (number + 1) * CHUNK_BYTES])
            except ValueError:
                said, created = -1, arrival
            if said != number:
                self.fault_count += 1
            if self.measured_from <= arrival < self.measured_to:
                self.first_created = min(self.first_created, created)
                self.last_arrival = max(self.last_arrival, arrival)
                self.latencies_ms.append((arrival - created) * 1000)
            number += 1
        return number


def percentile(values: list[float], percent: float) -> float:
    """The smallest value that so many percent of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)  # rounded up
    return ordered[max(0, int(rank) - 1)]
