"""Subscriptions and their workers, for the crash simulator: whom the server wakes, and what they make of it.

Workers are the world outside. What they saw and what they were done with goes into the history's
facts; `Subscribers.check` then finds work that nobody was woken for and nobody has done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from random import Random
from typing import Any, TypeVar

import msgspec

from ..errors import PerdureError
from ..stream_hosts.subscriptions import Subscriptions
from ..stream_hosts.webhook_delivery import DeliveryFailed
from ..streams.subscription import Subscription
from ..values import format_offset, parse_offset
from ..wire.subscriptions import BEFORE_FIRST_OFFSET, AckRequest, StreamInfo, SubscriptionConfig
from .crash_model import Lost
from .crash_server import Server
from .crash_streams_history import HOME_NUMBERS, SUBSCRIPTIONS, WAKES, Promise, StreamsHistory, Wake, paths_at
from .crash_streams_model import Hosts
from .disk import RecordingFiles

WAKE_STREAM = paths_at(HOME_NUMBERS[1], WAKES, 1)[0]
ROOT_URL = "http://localhost/v1/stream"
LEASE_MS = 10_000

NAMED = tuple(sorted(path for number in HOME_NUMBERS for path in paths_at(number, "events/", 2)))
"""Streams that are watched by name."""

CONFIGS = {
    "hook": SubscriptionConfig("webhook", pattern="events/*", webhook_url=f"{ROOT_URL}-hook", lease_ttl_ms=LEASE_MS),
    "pull": SubscriptionConfig("pull-wake", pattern="**", wake_stream=WAKE_STREAM, lease_ttl_ms=LEASE_MS),
    "named": SubscriptionConfig("pull-wake", streams=NAMED[:2], wake_stream=WAKE_STREAM, lease_ttl_ms=LEASE_MS),
}

IN_HAND = 4
"""Wakes that workers still report on: the newest."""

MANY_ROUNDS = 40
ROUND_MS = 75_000
"""Longer than any wait before a delivery is tried again, and than a lease."""

_Result = TypeVar("_Result")


class Subscribers:
    """Clients that subscribe, and workers."""

    def __init__(
        self,
        server: Server,
        files: RecordingFiles,
        random: Random,
        history: StreamsHistory,
        hosts: Hosts,
        promise: Callable[[Promise], None],
    ) -> None:
        self._server = server
        self._files = files
        self._random = random
        self._history = history
        self._hosts = hosts
        self._promise = promise
        self._tasks: set[asyncio.Task[None]] = set()
        self._diligent = False
        """Whether receivers do at once what they are asked for."""

    # --- what may happen

    def act(self) -> None:
        """One client or worker does something."""
        actions: tuple[tuple[Callable[[], Coroutine[Any, Any, None]], int], ...] = (
            (self._subscribe, 8),
            (self._unsubscribe, 1),
            (self._watch, 4),
            (self._claim, 14),
            (self._report, 20),
        )
        names, weights = zip(*actions, strict=True)
        (action,) = self._random.choices(names, weights)
        task = self._server.loop.create_task(action())
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    def end(self) -> None:
        """The process is over."""
        for task in self._tasks:
            task.cancel()
        self._server.loop.run()

    async def deliver(self, url: str, body: bytes, signature: str, *, timeout_s: float) -> bool:
        """A webhook comes. The receiver may be slow, may fail, and may be done at once or later."""
        told = msgspec.json.decode(body)
        streams = msgspec.convert(told["streams"], tuple[StreamInfo, ...])
        wake = Wake(told["subscription_id"], told["wake_id"], told["generation"], streams)
        how = "done" if self._diligent else self._random.choice(("done", "later", "lost", "refused", "slow"))
        if how == "slow":
            await asyncio.sleep(self._random.choice((0.5, 30.0)))
        if how == "refused":
            raise DeliveryFailed("it answered 500")
        self._saw(wake)
        if how == "lost":
            raise DeliveryFailed("it was there, but the answer got lost")
        if how != "done":
            return False
        for info in streams:
            if info.has_pending:
                self._finish(wake.id, info.path, info.tail_offset)
        return True

    # --- clients

    async def _subscribe(self) -> None:
        id = self._random.choice(list(CONFIGS))
        config = CONFIGS[id]

        async def create(subscriptions: Subscriptions) -> None:
            new, _ = await subscriptions.create(id, config, ROOT_URL)
            if new:
                subscription = subscriptions._all[id]
                self._excuse(subscription, self._hosts_paths(subscription.watches))

        await self._ask(create)

    async def _unsubscribe(self) -> None:
        id = self._random.choice(list(CONFIGS))
        self._history.facts.deleted.append((self._now, id))

        async def delete(subscriptions: Subscriptions) -> None:
            subscriptions.delete(id)

        await self._ask(delete)

    async def _watch(self) -> None:
        path = self._random.choice(NAMED)
        add = self._random.random() < 0.6

        async def watch(subscriptions: Subscriptions) -> None:
            subscription = subscriptions._all.get("named")
            if add:
                await subscriptions.add_streams("named", [path])
                assert subscription is not None
                self._excuse(subscription, [path])
            else:
                subscriptions.remove_stream("named", path)

        await self._ask(watch)

    # --- workers

    async def _claim(self) -> None:
        await self._claim_of(self._random.choice(("pull", "named")))

    async def _claim_of(self, id: str) -> Wake | None:
        async def claim(subscriptions: Subscriptions) -> bytes:
            return subscriptions.claim(id, f"worker {self._random.randrange(2)}")

        answer = await self._ask(claim)
        if answer is None:
            return None
        found = msgspec.json.decode(answer)
        streams = msgspec.convert(found["streams"], tuple[StreamInfo, ...])
        wake = Wake(id, found["wake_id"], found["generation"], streams)
        self._saw(wake)
        return wake

    async def _report(self) -> None:
        wakes = self._history.facts.wakes[-IN_HAND:]
        if not wakes:
            return
        _, wake = self._random.choice(wakes)
        pending = [info for info in wake.streams if info.has_pending]
        chosen = self._random.sample(pending, self._random.randint(0, len(pending)))
        acks = {info.path: self._up_to(info) for info in chosen}
        done = self._random.random() < 0.5
        if CONFIGS[wake.id].type == "pull-wake" and self._random.random() < 0.2:
            request = AckRequest(wake.wake_id, wake.generation)

            async def release(subscriptions: Subscriptions) -> None:
                subscriptions.release(wake.id, request, wake.generation)

            await self._ask(release)
        else:
            await self._acknowledge(wake, acks, done=done)

    def _up_to(self, info: StreamInfo) -> str:
        """An offset after what was acknowledged already."""
        first = 0 if info.acked_offset == BEFORE_FIRST_OFFSET else parse_offset(info.acked_offset)
        last = parse_offset(info.tail_offset)
        return format_offset(last if self._random.random() < 0.7 else self._random.randint(first, last))

    async def _acknowledge(self, wake: Wake, acks: dict[str, str], *, done: bool) -> None:
        for path, offset in acks.items():
            self._finish(wake.id, path, offset)
        request = AckRequest(wake.wake_id, wake.generation, acks, done)
        webhook = CONFIGS[wake.id].type == "webhook"

        async def acknowledge(subscriptions: Subscriptions) -> None:
            await subscriptions.acknowledge(wake.id, request, wake.generation, webhook=webhook)

        await self._ask(acknowledge)

    async def _ask(self, work: Callable[[Subscriptions], Coroutine[Any, Any, _Result]]) -> _Result | None:
        """Do something in the object; what is answered is a promise. None when it is refused."""
        promise = Promise()

        async def run(subscriptions: Subscriptions) -> _Result:
            result = await work(subscriptions)
            self._promise(promise)
            return result

        try:
            result = await self._server.service.feed.run(run)
        except PerdureError:
            return None
        self._history.keep(len(self._files.log), promise)
        return result

    # --- facts

    @property
    def _now(self) -> int:
        return len(self._files.log)

    def _saw(self, wake: Wake) -> None:
        subscription = self._all.get(wake.id)
        # Not another one that was made under the same id since: wake ids follow from the seed.
        if subscription is not None and f"w_{subscription._drawn('wake', wake.generation)}".startswith(wake.wake_id):
            self._history.facts.generations.append((self._now, subscription.state.seed, wake.generation))
            self._history.facts.wakes.append((self._now, wake))

    def _finish(self, id: str, path: str, offset: str) -> None:
        """A worker is done with the stream up to there."""
        subscription, found = self._all.get(id), self._hosts.find(path)
        if subscription is not None and found is not None:
            count = max(0, parse_offset(offset) - found.state.first)
            self._excuse_entries(subscription, found.state.entries[:count])

    def _excuse(self, subscription: Subscription, paths: Iterable[str]) -> None:
        """Nobody need be woken for what these streams hold: it was there before."""
        for path in paths:
            found = self._hosts.find(path)
            if found is not None:
                self._excuse_entries(subscription, found.state.entries)

    def _excuse_entries(self, subscription: Subscription, entries: Iterable[bytes]) -> None:
        self._history.facts.excused.append((self._now, subscription.state.seed, frozenset(entries)))

    def _hosts_paths(self, wanted: Callable[[str], bool]) -> list[str]:
        return [path for host in self._hosts.states.values() for path in host.streams if wanted(path)]

    @property
    def _all(self) -> dict[str, Subscription]:
        instance = self._server.instance(SUBSCRIPTIONS)
        if instance is None:
            return {}
        assert isinstance(instance.object, Subscriptions)
        return instance.object._all

    # --- checks

    def compared(self) -> bool:
        """Whether the start is over: all streams have been looked at."""
        instance = self._server.instance(SUBSCRIPTIONS)
        if instance is None:
            return True
        assert isinstance(instance.object, Subscriptions)
        return not instance.object._surveys

    def check(self) -> None:
        """All that is not done is known as work, and somebody is woken for it. When all is told and durable.

        Raises:
            Lost: some is not.
        """
        for id, subscription in self._all.items():
            excused = self._history.facts.excused_of(subscription.state.seed)
            for path in self._hosts_paths(subscription.watches):
                found = self._hosts.find(path)
                if found is None or found.state.hidden:
                    continue
                state, link = found.state, subscription.state.links.get(path)
                if link is None or link.tail != format_offset(state.position):
                    raise Lost(f"{id!r} takes {path!r} to end at {link and link.tail}, not {state.position}")
                done = 0 if link.acked == BEFORE_FIRST_OFFSET else parse_offset(link.acked)
                forgotten = [entry for entry in state.entries[: max(0, done - state.first)] if entry not in excused]
                if forgotten:
                    raise Lost(
                        f"{id!r} has {path!r} acknowledged up to {done}; nobody has seen {forgotten[0][:20]!r}"
                    )
            if subscription.has_work and subscription.state.wake is None:
                raise Lost(f"{id!r} has work, and nobody is woken for it")

    def work_off(self) -> None:
        """Workers do all that there is to do.

        Raises:
            Lost: they are not asked to.
        """
        self._diligent = True
        for _ in range(MANY_ROUNDS):
            for id in list(self._all):
                if CONFIGS[id].type == "pull-wake":
                    self._server.finish(self._work(id), f"the work of {id!r}")
            self._server.settle()
            if not any(item.has_work or item.state.wake is not None for item in self._all.values()):
                return
            self._server.advance(ROUND_MS)
            self._server.settle()
        left = {id: item.state.wake for id, item in self._all.items()}
        raise Lost(f"work is left that nobody is asked to do: {left}")

    async def _work(self, id: str) -> None:
        wake = await self._claim_of(id)
        if wake is not None:
            acks = {info.path: info.tail_offset for info in wake.streams if info.has_pending}
            await self._acknowledge(wake, acks, done=True)
