"""What came of a load on streams, looked at afterwards: nothing lost, doubled, damaged or out of order; and how late.

The stream as catch-up reads it back is the truth about its order; the writers know what was acknowledged and when
it was sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from .load import Unexpected
from .stream_http import HEAD_END, StreamClient, parse_head
from .stream_load import FILLING, MESSAGE_BYTES, Reader, Window, Writer

Mark = tuple[int, int]
"""A message: its writer's number, and how many that one had written before."""


def marks(content: bytes) -> list[Mark | None]:
    """The messages of a stream, in order; None for a hundred bytes that are no message."""
    found: list[Mark | None] = []
    for start in range(0, len(content), MESSAGE_BYTES):
        message = content[start : start + MESSAGE_BYTES]
        whole = message[14:] == FILLING and message[:14].isdigit()
        found.append((int(message[:2]), int(message[2:14])) if whole else None)
    return found


def count_append_faults(port: int, writers: Sequence[Writer]) -> int:
    """Read all streams back: messages that are missing, doubled, damaged, or behind a later one of their writer."""
    expected: dict[str, list[Mark]] = {path: [] for writer in writers for path in writer.paths}
    for writer in writers:
        for count in range(len(writer.answered_at)):
            expected[writer.path_of(count)].append((writer.number, count))
    with StreamClient(port) as client:
        return sum(_count_faults(marks(client.read_all(path)), sent) for path, sent in expected.items())


def _count_faults(
    stored: Sequence[Mark | None], expected: Sequence[Mark], repeated: Counter[Mark | None] | None = None
) -> int:
    """``repeated`` are those that may be stored so many times more."""
    repeated = repeated or Counter()
    stored_counts: Counter[Mark | None] = Counter(stored)
    expected_counts: Counter[Mark | None] = Counter(expected)
    wrong = (stored_counts - expected_counts - repeated).total() + (expected_counts - stored_counts).total()
    last: dict[int, int] = {}
    for mark in stored:
        if mark is not None and mark not in repeated:
            wrong += mark[1] <= last.get(mark[0], -1)
            last[mark[0]] = mark[1]
    return wrong


def latencies_ms(writers: Sequence[Writer], window: Window) -> list[float]:
    """From each append's leaving to its acknowledgement, where that came within the window."""
    return [
        (answered - sent) * 1000
        for writer in writers
        for sent, answered in zip(writer.sent_at, writer.answered_at, strict=False)
        if answered in window
    ]


@dataclass
class Deliveries:
    """What readers got. A delivery is one message to one reader."""

    count: int = 0
    """Within the window."""

    latencies: Counter[int] = field(default_factory=Counter)
    """Deliveries of the window by latency, in steps of 10 us: there are millions."""

    fault_count: int = 0
    """Deliveries that never came or came twice, and kept streams that are unlike what was stored."""
    cut_off_count: int = 0

    def read(self, reader: Reader, order: Sequence[float], window: Window) -> None:
        """Take a reader's arrivals in; ``order`` has the times at which the stream's messages were sent."""
        self.cut_off_count += reader.closed
        self.fault_count += abs(reader.total - len(order))
        before = 0
        for arrival, total in zip(reader.arrivals, reader.totals, strict=True):
            if arrival in window:
                self.count += total - before
                for sent in order[before:total]:
                    self.latencies[int((arrival - sent) * 1e5)] += 1
            before = total

    def percentile_ms(self, percent: float) -> float:
        """Nearest rank, the end of its step. There must be a delivery."""
        rank = -(-self.latencies.total() * percent // 100)
        seen = 0
        for step in sorted(self.latencies):
            seen += self.latencies[step]
            if seen >= rank:
                break
        return (step + 1) / 100


def deliveries_of(readers: Sequence[Reader], writers: Sequence[Writer], stored: bytes, window: Window) -> Deliveries:
    """Compare what the readers got with ``stored``, what was appended to the stream since they joined."""
    stored_marks = marks(stored)
    deliveries = Deliveries()
    appended = [(writer.number, count) for writer in writers for count in range(len(writer.answered_at))]
    repeated: Counter[Mark | None] = Counter()
    for writer in writers:
        repeated.update({(writer.number, count): times for count, times in writer.repeated.items()})
    deliveries.fault_count += _count_faults(stored_marks, appended, repeated)
    by_number = {writer.number: writer for writer in writers}
    known = set(appended)
    order = [by_number[mark[0]].sent_at[mark[1]] for mark in stored_marks if mark in known]
    for reader in readers:
        deliveries.read(reader, order, window)
        if reader.kept is not None and not reader.closed:
            deliveries.fault_count += read_events(bytes(reader.kept)) != stored
    return deliveries


def read_events(answer: bytes) -> bytes:
    """The data of an event stream of text, whole as it came over the wire."""
    head, _, body = answer.partition(HEAD_END)
    if parse_head(head).chunked:
        body = _join_chunks(body)
    data = []
    for event in body.split(b"\n\n"):
        lines = event.split(b"\n")
        if any(line in {b"event: data", b"event:data"} for line in lines):
            data += [line[5:].removeprefix(b" ") for line in lines if line.startswith(b"data:")]
    return b"".join(data)


def _join_chunks(body: bytes) -> bytes:
    pieces = []
    at = 0
    while at < len(body):
        line_end = body.index(b"\r\n", at)
        size = int(body[at:line_end], 16)
        piece = body[line_end + 2 : line_end + 2 + size]
        if len(piece) != size:
            raise Unexpected("the event stream stops within a chunk")
        pieces.append(piece)
        at = line_end + 2 + size + 2
    return b"".join(pieces)
