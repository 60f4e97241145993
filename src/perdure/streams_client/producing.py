"""A producer: items in, requests out, each item in the stream once and in order. Pure.

Items wait until they make a batch; a batch has the next sequence number of the epoch and keeps it
until it is acknowledged, however often it is sent::

            ┌────────── add ──────────┐
            ▼                         │
    items ──take──▶ DUE ──take──▶ SENT ──200, 204──▶ acknowledged
                     ▲              │
                     ├── lost, 5xx ─┤   after a while, with the same number
                     │              ▼
                     └─ is first ─ HELD    409, a batch before it is not there yet

Any other answer is a *failure*: the producer stops, because what comes behind a missing batch
would be out of order. `StreamUnreachable` is the one that `revive` takes back.

A shell asks `take` for what to send, tells `took` what came of it, and asks again after that, after
`add`, and at `wake_ms`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from ..errors import LimitExceeded, LocalProtocolError, PerdureError, RemoteProtocolError
from .answers import Lost, Request, Response, may_pass, refusal, says_closed, unreachable
from .content import DEFAULT_CONTENT_TYPE, body_bytes, body_of, encode_item
from .core import StreamCore, producer_headers
from .errors import EpochReused, ProducerFenced, ProducerStopped, SequenceGap
from .retry import Retry, retry_after_ms

EPOCH_LAST = 2**53 - 1


@dataclass(slots=True, eq=False)
class _Batch:
    seq: int
    items: list[bytes]
    retry: Retry
    closing: bool = False
    state: Literal["due", "sent", "held"] = "due"
    due_ms: float = 0
    sent_first: bool = False
    """When it was sent, everything before it was acknowledged."""
    repeated: bool = False
    """An earlier try may have reached the server, so that a duplicate may be our own."""
    unsure: bool = False
    """An earlier try may have been stored: it must not be sent under another number."""
    bytes: int = field(init=False)

    def __post_init__(self) -> None:
        self.bytes = sum(map(len, self.items))


class Outgoing(NamedTuple):
    """A request to send now; hand it back to `took` with its outcome."""

    request: Request
    batch: _Batch


class ProducerCore:
    """The producer's state.

    ``failure`` is what has stopped it, ``offset`` the greatest that the server has acknowledged with,
    ``closed`` whether the stream was closed by `end`. The stream's content type is known before the
    first item.

    Args:
        auto_claim: begin in an epoch above all before. That is the time in milliseconds: a small one might
            be an earlier run's, and a first batch whose answer was lost could not be told from that
            run's. Where the server has a higher one still, it is one more than that.
        batch_bytes_max: longest body, except of a batch of one item.
        linger_ms: how long an item waits for others; 0 sends at once.
        in_flight_max: batches that are sent and not acknowledged.
        buffer_bytes_max: bytes of all items that are not acknowledged.
    """

    def __init__(
        self,
        stream: StreamCore,
        producer_id: str,
        *,
        epoch: int = 0,
        auto_claim: bool = False,
        batch_bytes_max: int = 1_048_576,
        linger_ms: float = 5,
        in_flight_max: int = 5,
        buffer_bytes_max: int = 16_777_216,
    ) -> None:
        if not producer_id:
            raise LocalProtocolError("a producer's id must not be empty")
        if not 0 <= epoch <= EPOCH_LAST:
            raise LocalProtocolError("an epoch is in 0..2**53-1")
        if min(batch_bytes_max, in_flight_max, buffer_bytes_max) < 1 or linger_ms < 0:
            raise LocalProtocolError("a producer's limits must be positive")
        self.epoch = max(epoch, int(stream.around.unix_s() * 1000)) if auto_claim else epoch
        self.failure: Exception | None = None
        self.offset: str | None = None
        self.closed = False
        self.buffered_bytes = 0
        self.in_flight_max = in_flight_max
        self._stream = stream
        self._around = stream.around
        self._id = producer_id
        self._auto_claim = auto_claim
        self._batch_bytes_max = batch_bytes_max
        self._linger_ms = linger_ms
        self._buffer_bytes_max = buffer_bytes_max
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._waiting_since_ms = 0.0
        self._pushed = 0
        self._batches: deque[_Batch] = deque()
        self._next_seq = 0
        self._established = False
        self._ending: list[bytes] | None = None

    @property
    def _content_type(self) -> str:
        return self._stream.content_type or DEFAULT_CONTENT_TYPE

    # --- the application's side

    @property
    def idle(self) -> bool:
        """Whether all is acknowledged: the items and, after `end`, the closing."""
        return not self._waiting and not self._batches and (self._ending is None or self.closed)

    @property
    def ending(self) -> bool:
        """Whether `end` was called."""
        return self._ending is not None

    @property
    def unacknowledged(self) -> list[bytes]:
        """The items, encoded, that the server has not acknowledged, in order. The first of them may be stored."""
        items = [item for batch in self._batches for item in batch.items]
        if self._ending is not None and not any(batch.closing for batch in self._batches) and not self.closed:
            return [*items, *self._waiting, *self._ending]
        return [*items, *self._waiting]

    def encode(self, item: object) -> bytes:
        """The item as `add` takes it.

        Raises:
            LocalProtocolError: it cannot be sent to this stream.
        """
        return encode_item(item, self._content_type)

    def has_room(self, item: bytes) -> bool:
        """Whether the buffer takes the item now.

        Raises:
            LimitExceeded: it never will.
        """
        if len(item) > self._buffer_bytes_max:
            raise LimitExceeded("buffer_bytes_max", len(item), self._buffer_bytes_max)
        return self.buffered_bytes + len(item) <= self._buffer_bytes_max

    def add(self, item: bytes) -> None:
        """Take an item that there is room for.

        Raises:
            ProducerStopped: after `end`.
            Exception: the failure.
        """
        if self._ending is not None:
            raise ProducerStopped("the producer has closed its stream")
        if self.failure is not None:
            raise self.failure
        if not self._waiting:
            self._waiting_since_ms = self._around.clock_ms()
        self._waiting.append(item)
        self._waiting_bytes += len(item)
        self.buffered_bytes += len(item)

    def push(self) -> None:
        """What waits now lingers no longer."""
        self._pushed = len(self._waiting)

    def end(self, items: Iterable[object]) -> None:
        """Close the stream behind everything that was added, with these items as the last. Once.

        Raises:
            LocalProtocolError: one of them cannot be sent to this stream.
        """
        if self._ending is None:
            self._ending = [self.encode(item) for item in items]

    def revive(self) -> None:
        """Take back a failure that may pass; everything that is due is tried anew, for the full time."""
        if not (isinstance(self.failure, PerdureError) and self.failure.retryable):
            return
        self.failure = None
        for batch in self._batches:
            batch.retry = self._around.retry()
            if batch.state == "due":
                batch.due_ms = 0

    # --- the network's side

    def take(self) -> Outgoing | None:
        """What to send now, if there is anything."""
        if self.failure is not None:
            return None
        now_ms = self._around.clock_ms()
        for batch in self._batches:
            if batch.state == "due" and batch.due_ms <= now_ms:
                return self._sent(batch)
        if len(self._batches) < self._window():
            if self._is_ripe(now_ms):
                return self._sent(self._next_batch(self._take_items(now_ms)))
            if self._ending is not None and not self._batches and not self._waiting and not self.closed:
                return self._sent(self._next_batch(self._ending, closing=True))
        return None

    def wake_ms(self) -> float | None:
        """When, by the clock, `take` may have something although nothing else has happened."""
        if self.failure is not None:
            return None
        due = [batch.due_ms for batch in self._batches if batch.state == "due"]
        if self._waiting and len(self._batches) < self._window():
            due.append(self._waiting_since_ms + self._linger_ms)
        return min(due, default=None)

    def took(self, outgoing: Outgoing, outcome: Response | Lost) -> None:
        """What came of a request."""
        batch = outgoing.batch
        if batch not in self._batches:
            return
        batch.state = "due"
        if isinstance(outcome, Lost):
            batch.repeated |= outcome.arrived
            batch.unsure |= outcome.arrived
            self._again(outgoing, outcome)
        elif may_pass(outcome.status):
            batch.repeated = True
            batch.unsure |= outcome.status not in (429, 503)
            self._again(outgoing, outcome)
        elif outcome.status in (200, 204):
            self._acknowledged(batch, outcome)
        else:
            self._refused(outgoing, outcome)

    def fail(self, error: Exception) -> None:
        """Stop for a reason of the shell's."""
        self.failure = self.failure or error

    # --- batches

    def _window(self) -> int:
        """How many batches may be on their way: until an epoch is claimed, one."""
        return self.in_flight_max if self._established or not self._auto_claim else 1

    def _is_ripe(self, now_ms: float) -> bool:
        if not self._waiting:
            return False
        size = body_bytes(self._waiting_bytes, len(self._waiting), self._content_type)
        return self._pushed > 0 or size >= self._batch_bytes_max or now_ms >= self._waiting_since_ms + self._linger_ms

    def _take_items(self, now_ms: float) -> list[bytes]:
        items = [self._waiting.popleft()]
        size = len(items[0])
        while self._waiting:
            more = size + len(self._waiting[0])
            if body_bytes(more, len(items) + 1, self._content_type) > self._batch_bytes_max:
                break
            items.append(self._waiting.popleft())
            size = more
        self._waiting_bytes -= size
        self._waiting_since_ms = now_ms
        self._pushed = max(0, self._pushed - len(items))
        return items

    def _next_batch(self, items: list[bytes], *, closing: bool = False) -> _Batch:
        batch = _Batch(self._next_seq, items, self._around.retry(), closing)
        self._next_seq += 1
        self._batches.append(batch)
        return batch

    def _sent(self, batch: _Batch) -> Outgoing:
        batch.state = "sent"
        batch.sent_first = batch is self._batches[0]
        headers = producer_headers(self._id, self.epoch, batch.seq)
        if batch.items:
            headers["content-type"] = self._content_type
        if batch.closing:
            headers["stream-closed"] = "true"
        body = body_of(batch.items, self._content_type) if batch.items else None
        return Outgoing(Request("POST", self._stream.url, headers, body), batch)

    def _again(self, outgoing: Outgoing, outcome: Response | Lost) -> None:
        at_least_ms = 0.0
        if isinstance(outcome, Response):
            at_least_ms = retry_after_ms(outcome.headers, self._around.unix_s())
        now_ms = self._around.clock_ms()
        wait_ms = outgoing.batch.retry.next_wait_ms(now_ms, at_least_ms)
        if wait_ms is None:
            self.fail(unreachable(outgoing.request, outcome, at_least_ms))
        else:
            outgoing.batch.due_ms = now_ms + wait_ms

    # --- answers

    def _acknowledged(self, batch: _Batch, response: Response) -> None:
        if self._is_anothers(batch, response):
            self._taken(batch, self.epoch, EpochReused(_REUSED.format(id=self._id, epoch=self.epoch)))
            return
        offset = response.headers.get("stream-next-offset")
        if offset and (self.offset is None or offset > self.offset):
            self.offset = offset
        if batch.closing and not (offset and says_closed(response.headers)):
            self.fail(RemoteProtocolError("the server did not confirm that the stream has ended"))
            return
        self.closed |= batch.closing
        self._established = True
        self._batches.remove(batch)
        if not batch.closing:
            self.buffered_bytes -= batch.bytes
        if self._batches and self._batches[0].state == "held":
            self._batches[0].state = "due"
            self._batches[0].due_ms = 0

    def _is_anothers(self, batch: _Batch, response: Response) -> bool:
        """Whether the server took the batch for one that somebody else has sent in this epoch.

        It says 204 to a duplicate, with the highest number that it has. A batch that was never sent
        before cannot be one, nor can there be a number that we have not reached.
        """
        if response.status != 204:
            return False
        highest = _number(response.headers, "producer-seq")
        if highest is None:  # a server without producers
            return False
        return highest >= self._next_seq or (bool(batch.items) and not batch.repeated)

    def _refused(self, outgoing: Outgoing, response: Response) -> None:
        batch, headers = outgoing.batch, response.headers
        held = _number(headers, "producer-epoch")
        expected = _number(headers, "producer-expected-seq")
        if response.status == 403 and held is not None:
            self._taken(batch, held, ProducerFenced(held, self.epoch))
        elif response.status == 409 and expected is not None and not says_closed(headers):
            batch.repeated = True
            if batch is not self._batches[0]:
                batch.state = "held"
            elif batch.sent_first:
                self.fail(SequenceGap(expected, batch.seq))
            else:  # what was missing has come in the meantime
                batch.due_ms = 0
        else:
            self.fail(refusal(outgoing.request, response))

    def _taken(self, batch: _Batch, held: int, error: PerdureError) -> None:
        """The epoch is another's. Only a first batch that is surely not stored may go on in a higher one."""
        if not self._auto_claim or self._established or batch.unsure or held >= EPOCH_LAST:
            self.fail(error)
            return
        self.epoch = held + 1
        self._next_seq = 1
        batch.seq = 0
        batch.repeated = False
        batch.due_ms = 0


_REUSED = (
    "epoch {epoch} of producer {id!r} was used before, and what is sent in it now is taken for a repetition: "
    "use a higher epoch in each run, or auto_claim=True"
)


def _number(headers: Mapping[str, str], name: str) -> int | None:
    text = headers.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None
