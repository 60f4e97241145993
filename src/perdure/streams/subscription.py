"""How a subscription lives: appends cause wakes, workers answer them.

There is one wake at most; more appends meanwhile only make more work for it::

                work comes                     delivered, a claim, an ack
      no wake ────────────► sending ──────────────────────► sent
         ▲    └──► waiting ◄─ failed ┘                       │
         │           └─ time ─► sending                      │
         └──────── done, released, the lease ended ──────────┘  and again, if work is left

Each wake has a new generation, and only the newest can acknowledge: a worker that was too slow is
fenced. A wake that cannot be delivered keeps its generation over all tries.

Pure: events come as method calls, times as ``now_ms`` (milliseconds since 1970), and each method
returns the effects to carry out. Store the state first, then carry them out; after a crash
between the two `resumed` asks for them again. A method that raises has changed nothing.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from ..errors import LimitExceeded
from ..wire.subscriptions import (
    BEFORE_FIRST_OFFSET,
    EXPLICIT_STREAMS_MAX,
    AckRequest,
    StreamInfo,
    StreamPattern,
    SubscriptionConfig,
    SubscriptionError,
    SubscriptionType,
    is_after,
    later_offset,
)
from .subscription_state import (
    AppendWake,
    Changes,
    DeliverWebhook,
    Effect,
    Link,
    SetTimer,
    SubscriptionState,
    Wake,
)

RETRY_MS = 1_000
"""Before the first retry of a delivery; doubles with each."""

RETRY_MS_MAX = 60_000
RETRY_JITTER = 0.2
"""The part of that time by which a retry comes earlier or later."""

WAKE_STREAMS_MAX = 1_000
"""Streams that one wake or claim lists: those with work first. What is left comes with the next one."""


class Claim(NamedTuple):
    """What a worker gets: the right to acknowledge in this generation, and the streams to read."""

    wake_id: str
    generation: int
    streams: tuple[StreamInfo, ...]


class Subscription:
    """One subscription. Make it with `create`, or from a stored state and call `resumed` then."""

    def __init__(self, state: SubscriptionState) -> None:
        self.state = state
        self._pattern = StreamPattern(state.config.pattern) if state.config.pattern is not None else None
        self._pending = {path for path, link in state.links.items() if link.pending}
        self._explicit_count = sum(link.explicit for link in state.links.values())
        self._effects: list[Effect] = []
        self._timer_at_ms: int | None = None
        self._head_changed = False
        self._links_changed: set[str] = set()

    @classmethod
    def create(
        cls, id: str, config: SubscriptionConfig, tails: Mapping[str, str], *, seed: bytes, now_ms: int
    ) -> Subscription:
        """A new subscription.

        ``tails`` has the tails of existing streams by path: those named in ``config.streams`` and
        those that the pattern covers (others are left out here). They are linked at their tail,
        so that what they hold already wakes nobody. ``seed``: 16 random bytes or more.
        """
        if len(seed) < 16:
            raise ValueError("a seed has 16 random bytes or more")
        subscription = cls(SubscriptionState(id, config, now_ms, seed.hex()))
        subscription._head_changed = True
        for path in config.streams:
            subscription._link(path, tails.get(path, BEFORE_FIRST_OFFSET)).explicit = True
            subscription._explicit_count += 1
        subscription.streams_found(tails, now_ms)
        return subscription

    # --- what it looks like

    def streams(self) -> Iterator[StreamInfo]:
        """All that it watches."""
        return (link.info(path) for path, link in self.state.links.items())

    @property
    def has_work(self) -> bool:
        """Whether any stream has something that is not acknowledged."""
        return bool(self._pending)

    @property
    def timer_at_ms(self) -> int | None:
        """When `time_passed` has to be called, if nothing happens before."""
        wake = self.state.wake
        if wake is None:
            return None
        return self.state.not_before_ms if wake.phase == "waiting" else wake.lease_deadline_ms

    def watches(self, path: str) -> bool:
        """Whether appends to this stream matter, so far as is known."""
        return path in self.state.links or self._covers(path)

    def past_tail(self, request: AckRequest) -> list[str]:
        """The streams of which the request acknowledges more than is known here.

        Ask for their tails and tell them by `stream_appended` before the request is judged: the
        worker may have read what has not been told yet.
        """
        links = self.state.links
        return [path for path, offset in request.acks.items() if path in links and is_after(offset, links[path].tail)]

    def take_changes(self) -> Changes:
        """What has to be stored since the last time this was asked."""
        changes = Changes(self._head_changed, frozenset(self._links_changed))
        self._head_changed, self._links_changed = False, set()
        return changes

    # --- streams

    def streams_found(self, tails: Mapping[str, str], now_ms: int) -> list[Effect]:
        """Streams that existed before the subscription; those that the pattern covers are linked at their tail."""
        for path, tail in tails.items():
            if path in self.state.links:
                self._raise_tail(path, tail)
            elif self._covers(path):
                self._link(path, tail)
        return self._wake_if_work(now_ms)

    def stream_appeared(self, path: str, tail: str = BEFORE_FIRST_OFFSET) -> list[Effect]:
        """A stream was created, empty; ``tail`` is where it starts. It is linked there, before all to come."""
        link = self.state.links.get(path)
        if link is None and self._covers(path):
            self._link(path, tail)
        elif link is not None and link.tail == BEFORE_FIRST_OFFSET:  # it was awaited
            link.acked = link.tail = tail
            self._links_changed.add(path)
        return self._done()

    def stream_appended(
        self, path: str, tail: str, now_ms: int, *, before: str = BEFORE_FIRST_OFFSET
    ) -> list[Effect]:
        """A stream has grown, its first content counted; its tail is now ``tail``, and was ``before``.

        ``before`` is where it is linked if it was not known. Repeated and late news does no harm.
        """
        if path not in self.state.links:
            if not self._covers(path):
                return []
            self._link(path, before)
        self._raise_tail(path, tail)
        return self._wake_if_work(now_ms, path)

    def stream_deleted(self, path: str) -> list[Effect]:
        """A stream is gone, and its work with it. One that is watched by name is awaited anew."""
        link = self.state.links.get(path)
        if link is not None:
            if link.explicit:
                self._forget_work(path)
                link.acked = link.tail = BEFORE_FIRST_OFFSET
            else:
                self._unlink(path)
            self._drop_wake_without_work()
        return self._done()

    def stream_is(self, path: str, stream: str) -> None:
        """Keep with the link which stream of that path it is to. Nothing happens when it is not watched."""
        link = self.state.links.get(path)
        if link is not None and link.stream != stream:
            link.stream = stream
            self._links_changed.add(path)

    def links_added(self, tails: Mapping[str, str], now_ms: int) -> list[Effect]:
        """Watch streams by name: their tails by path, "-1" for one that does not exist. Idempotent.

        Raises:
            SubscriptionError: ``INVALID_REQUEST``: the own wake stream.
            LimitExceeded: ``explicit_streams_max``.
        """
        links = self.state.links
        if self.state.config.wake_stream in tails:
            raise SubscriptionError("INVALID_REQUEST", "a subscription cannot watch its own wake_stream")
        count = self._explicit_count + sum(path not in links or not links[path].explicit for path in tails)
        if count > EXPLICIT_STREAMS_MAX:
            raise LimitExceeded("explicit_streams_max", count, EXPLICIT_STREAMS_MAX)
        for path, tail in tails.items():
            if path in links:
                self._raise_tail(path, tail)
            else:
                self._link(path, tail)
            links[path].explicit = True
            self._links_changed.add(path)
        self._explicit_count = count
        return self._wake_if_work(now_ms)

    def link_removed(self, path: str) -> list[Effect]:
        """Watch a stream no longer by name; a pattern that covers it goes on to. Idempotent."""
        link = self.state.links.get(path)
        if link is not None and link.explicit:
            link.explicit = False
            self._explicit_count -= 1
            self._links_changed.add(path)
            if not link.glob or link.tail == BEFORE_FIRST_OFFSET:
                self._unlink(path)
            self._drop_wake_without_work()
        return self._done()

    # --- deliveries

    def delivered(self, wake_id: str, now_ms: int, *, done: bool = False) -> list[Effect]:
        """A webhook was answered with 2xx, or a wake event appended. ``done``: the reply said so.

        News of another wake than the current one is ignored.
        """
        state, wake = self.state, self.state.wake
        if wake is None or wake.wake_id != wake_id:
            return []
        self._reached(wake)
        if state.config.type == "pull-wake":
            if wake.holder is None:
                wake.lease_deadline_ms = None  # from now on it waits for a claim
        elif done:
            for path, tail in wake.snapshot.items():
                self._ack(path, later_offset(tail, state.links[path].acked))
            self._end_wake()
            return self._wake_if_work(now_ms)
        elif wake.lease_deadline_ms is None:  # it had been given up already
            wake.lease_deadline_ms = now_ms + state.config.lease_ttl_ms
        return self._done()

    def failed(self, wake_id: str, now_ms: int) -> list[Effect]:
        """A delivery did not work; it is tried again later, the same wake.

        Ignored for another wake than the current one, and for one that a worker has answered
        meanwhile: it did arrive.
        """
        wake = self.state.wake
        if wake is None or wake.wake_id != wake_id or wake.phase != "sending":
            return []
        self._count_failure(now_ms)
        wake.phase, wake.lease_deadline_ms = "waiting", None
        self._drop_wake_without_work()
        return self._done()

    def time_passed(self, now_ms: int) -> list[Effect]:
        """The timer rang. Too early or too often does no harm."""
        state, wake = self.state, self.state.wake
        if wake is None:
            return self._done()
        if wake.phase == "waiting":
            if state.not_before_ms is None or now_ms >= state.not_before_ms:
                self._send(wake, now_ms)
        elif wake.lease_deadline_ms is not None and now_ms >= wake.lease_deadline_ms:
            if wake.phase == "sending":
                self._count_failure(now_ms)  # no outcome in the lease's time is a bad one
            self._end_wake()
            return self._wake_if_work(now_ms)
        return self._done()

    def resumed(self, now_ms: int) -> list[Effect]:
        """The state was restored: ask again for what is under way.

        A delivery without an outcome is made again, at once. Leases and retries keep their times,
        except where the clock was set back and they would take longer than they ever may.
        """
        state, wake = self.state, self.state.wake
        latest_retry_ms = now_ms + int(RETRY_MS_MAX * (1 + RETRY_JITTER))
        if state.not_before_ms is not None and state.not_before_ms > latest_retry_ms:
            state.not_before_ms, self._head_changed = latest_retry_ms, True
        if wake is not None and wake.lease_deadline_ms is not None:
            latest_ms = now_ms + state.config.lease_ttl_ms
            if wake.lease_deadline_ms > latest_ms:
                wake.lease_deadline_ms, self._head_changed = latest_ms, True
        if wake is None or wake.phase != "sending":
            return self.time_passed(now_ms)
        if self._pending:
            self._send(wake, now_ms)
        else:  # its streams were deleted
            self._end_wake()
        return self._done()

    # --- workers

    def claim(self, worker: str, now_ms: int) -> tuple[Claim, list[Effect]]:
        """A worker wants the work of a pull-wake subscription; its lease begins.

        Raises:
            SubscriptionError: ``ALREADY_CLAIMED``, ``NO_PENDING_WORK``; ``INVALID_REQUEST``: the wrong kind
                of subscription.
        """
        state, wake = self.state, self.state.wake
        self._require("pull-wake")
        if wake is not None and wake.holder is not None and now_ms < (wake.lease_deadline_ms or 0):
            raise SubscriptionError(
                "ALREADY_CLAIMED",
                f"{wake.holder!r} has claimed generation {state.generation}",
                current_holder=wake.holder,
                generation=state.generation,
            )
        if wake is None or not self._pending:
            raise SubscriptionError("NO_PENDING_WORK", "there is nothing to do")
        if wake.holder is not None:  # its lease has ended; the timer is late
            self._end_wake()
            wake = self._new_wake(min(self._pending))
        wake.holder, wake.phase = worker, "sent"
        wake.lease_deadline_ms = now_ms + state.config.lease_ttl_ms
        claim = Claim(wake.wake_id, state.generation, self._listed())
        self._head_changed = True
        return claim, self._done()

    def callback(self, request: AckRequest, token_generation: int, now_ms: int) -> tuple[bool, list[Effect]]:
        """A webhook's receiver reports; see `ack`."""
        self._require("webhook")
        return self._answer(request, token_generation, now_ms)

    def ack(self, request: AckRequest, token_generation: int, now_ms: int) -> tuple[bool, list[Effect]]:
        """A worker reports: acknowledges (all or nothing), keeps its lease alive, or ends it when ``done``.

        ``token_generation`` is what its token says. Returns whether a new wake follows at once,
        because work is left.

        Raises:
            SubscriptionError: ``FENCED``: the wake is not the current one; ``INVALID_OFFSET``: a stream
                that is not watched, less than was acknowledged, or more than there is;
                ``INVALID_REQUEST``: the wrong kind of subscription.
        """
        self._require("pull-wake")
        return self._answer(request, token_generation, now_ms)

    def release(self, request: AckRequest, token_generation: int, now_ms: int) -> list[Effect]:
        """A worker gives its claim back; work that is left causes a new wake.

        Raises:
            SubscriptionError: ``FENCED``; ``INVALID_REQUEST``: the wrong kind of subscription, or acks.
        """
        self._require("pull-wake")
        if request.acks:
            raise SubscriptionError("INVALID_REQUEST", "a release acknowledges nothing; use ack with done")
        self._fence(request, token_generation)
        self._end_wake()
        return self._wake_if_work(now_ms)

    def _answer(self, request: AckRequest, token_generation: int, now_ms: int) -> tuple[bool, list[Effect]]:
        state = self.state
        wake = self._fence(request, token_generation)
        self._check_acks(request.acks)
        for path, offset in request.acks.items():
            self._ack(path, offset)
        if state.config.type == "webhook":
            self._reached(wake)
        self._head_changed = True
        if not request.done:
            wake.lease_deadline_ms = now_ms + state.config.lease_ttl_ms
            return False, self._done()
        self._end_wake()
        effects = self._wake_if_work(now_ms)
        return state.wake is not None, effects

    def _require(self, kind: SubscriptionType) -> None:
        if self.state.config.type != kind:
            raise SubscriptionError("INVALID_REQUEST", f"this is not a {kind} subscription")

    def _fence(self, request: AckRequest, token_generation: int) -> Wake:
        """The current wake, if the request is about it."""
        generation, wake = self.state.generation, self.state.wake
        current = token_generation == generation and request.generation == generation
        if not current or wake is None or wake.wake_id != request.wake_id:
            raise SubscriptionError("FENCED", "this wake is over", generation=generation)
        return wake

    def _check_acks(self, acks: Mapping[str, str]) -> None:
        for path, offset in acks.items():
            link = self.state.links.get(path)
            if link is None:
                raise SubscriptionError("INVALID_OFFSET", f"the subscription does not watch {path[:80]!r}")
            if is_after(link.acked, offset):
                raise SubscriptionError("INVALID_OFFSET", f"{path[:80]!r} is acknowledged up to {link.acked} already")
            if is_after(offset, link.tail):
                raise SubscriptionError("INVALID_OFFSET", f"{path[:80]!r} ends at {link.tail}")

    # --- links and work

    def _covers(self, path: str) -> bool:
        """Whether the pattern does. Never the own wake stream: it would wake itself for ever."""
        return self._pattern is not None and path != self.state.config.wake_stream and self._pattern.matches(path)

    def _link(self, path: str, at: str) -> Link:
        link = self.state.links[path] = Link(glob=self._covers(path), acked=at, tail=at)
        self._links_changed.add(path)
        return link

    def _unlink(self, path: str) -> None:
        self._forget_work(path)
        del self.state.links[path]

    def _forget_work(self, path: str) -> None:
        self._pending.discard(path)
        self._links_changed.add(path)
        wake = self.state.wake
        if wake is not None and wake.snapshot.pop(path, None) is not None:
            self._head_changed = True

    def _raise_tail(self, path: str, tail: str) -> None:
        link = self.state.links[path]
        if is_after(tail, link.tail):
            link.tail = tail  # never before `acked`, so there is work now
            self._links_changed.add(path)
            self._pending.add(path)

    def _ack(self, path: str, offset: str) -> None:
        link = self.state.links[path]
        link.acked = offset
        self._links_changed.add(path)
        if not link.pending:
            self._pending.discard(path)

    def _listed(self) -> tuple[StreamInfo, ...]:
        """The streams that a worker is shown: those with work, in turn if they are too many; then others."""
        state, pending = self.state, self._pending
        if len(pending) > WAKE_STREAMS_MAX:
            paths = heapq.nsmallest(WAKE_STREAMS_MAX, (path for path in pending if path > state.last_listed))
            left = WAKE_STREAMS_MAX - len(paths)
            paths += heapq.nsmallest(left, (path for path in pending if path <= state.last_listed))
            state.last_listed = paths[-1]
        else:
            paths = sorted(pending)
            others: Iterable[str] = (path for path in state.links if path not in pending)
            paths += islice(others, WAKE_STREAMS_MAX - len(paths))
        return tuple(state.links[path].info(path) for path in paths)

    # --- wakes

    def _wake_if_work(self, now_ms: int, stream: str | None = None) -> list[Effect]:
        if self.state.wake is None and self._pending:
            wake = self._new_wake(stream or min(self._pending))
            if self.state.not_before_ms is None or now_ms >= self.state.not_before_ms:
                self._send(wake, now_ms)
        return self._done()

    def _new_wake(self, stream: str) -> Wake:
        state = self.state
        state.generation += 1
        state.wake = Wake("w_" + self._drawn("wake", state.generation)[:24], stream)
        self._head_changed = True
        return state.wake

    def _send(self, wake: Wake, now_ms: int) -> None:
        state, config = self.state, self.state.config
        if wake.stream not in self._pending:  # deleted since
            wake.stream = min(self._pending)
        wake.phase, state.not_before_ms = "sending", None
        wake.lease_deadline_ms = now_ms + config.lease_ttl_ms
        self._head_changed = True
        if config.webhook_url is not None:
            streams = self._listed()
            wake.snapshot = {info.path: info.tail_offset for info in streams if info.has_pending}
            self._effects.append(DeliverWebhook(config.webhook_url, wake.wake_id, state.generation, streams))
        elif config.wake_stream is not None:
            self._effects.append(AppendWake(config.wake_stream, wake.wake_id, state.generation, wake.stream))

    def _reached(self, wake: Wake) -> None:
        """The delivery has arrived, by its own result or because its receiver answers."""
        wake.phase = "sent"
        self.state.retry_count, self.state.not_before_ms, self.state.status = 0, None, "active"
        self._head_changed = True

    def _count_failure(self, now_ms: int) -> None:
        state = self.state
        state.retry_count += 1
        state.status = "failed"
        delay_ms = min(RETRY_MS << min(state.retry_count - 1, 16), RETRY_MS_MAX)
        chance = int(self._drawn("retry", state.generation, state.retry_count)[:8], 16) / 0xFFFF_FFFF
        state.not_before_ms = now_ms + round(delay_ms * (1 + RETRY_JITTER * (2 * chance - 1)))
        self._head_changed = True

    def _drawn(self, *what: object) -> str:
        """Hexadecimal digits that nobody else can know, the same for the same things."""
        return hashlib.sha256(":".join(map(str, (self.state.seed, *what))).encode()).hexdigest()

    def _end_wake(self) -> None:
        self.state.wake = None
        self._head_changed = True

    def _drop_wake_without_work(self) -> None:
        """After links were lost: a wake that nobody is at would keep the next one from being sent."""
        wake = self.state.wake
        if wake is None or self._pending:
            return
        at_work = wake.holder is not None if self.state.config.type == "pull-wake" else wake.phase != "waiting"
        if not at_work:
            self._end_wake()

    def _done(self) -> list[Effect]:
        if self.timer_at_ms != self._timer_at_ms:
            self._timer_at_ms = self.timer_at_ms
            self._effects.append(SetTimer(self._timer_at_ms))
        effects, self._effects = self._effects, []
        return effects
