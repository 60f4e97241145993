"""What happened to streams and subscriptions, for the crash simulator: states, promises, and facts.

A *promise* is an answer that somebody got: from then on no crash may undo what it was the answer
to, which is more than the journal's own word that a commit is durable. The *facts* are what
the world outside knows: which appends were tried, which wakes were seen, what workers were done with.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple

import msgspec

from ..storage.store import OpenObject, Store
from ..stream_hosts.directory import home_of
from ..stream_hosts.host import StreamHost
from ..stream_hosts.subscriptions import Subscriptions
from ..values import ObjectId
from ..wire.durable_streams import Producer
from ..wire.subscriptions import StreamInfo
from .crash_model import History, Lost, read_store
from .crash_streams_model import HostState
from .crash_streams_stored import SubscriptionsState, read_host, read_subscriptions
from .disk import Operation

START_MS = 1_790_000_000_000

SUBSCRIPTIONS = ObjectId(Subscriptions.__name__, "all")

WAKES = "wakes/"
"""How the paths of wake streams begin."""

HOME_NUMBERS = (3, 8)
"""The hosts that the simulator's streams have for homes: two, so that forks live away from theirs."""


def host_id(number: int) -> ObjectId:
    """The host's object id."""
    return ObjectId(StreamHost.__name__, f"{number:02}")


def paths_at(number: int, prefix: str, count: int) -> list[str]:
    """So many paths that begin with ``prefix`` and have this home."""
    paths: list[str] = []
    at = 0
    while len(paths) < count:
        if home_of(f"{prefix}{at}") == number:
            paths.append(f"{prefix}{at}")
        at += 1
    return paths


@dataclass(eq=False)
class Promise:
    """An answer, given or not: what it answers was committed by ``sequence``, once ``open_commits`` are made."""

    sequence: int = 0
    open_commits: int = 0


@dataclass
class Attempt:
    """An append of a producer that was its next. ``born`` tells its stream from others of that path.

    ``begun`` and ``answered`` are places in the log of operations.
    """

    path: str
    born: int
    producer: Producer
    content_type: str
    entries: tuple[bytes, ...]
    close: bool
    begun: int
    answered: int | None = None


class Wake(NamedTuple):
    """What a worker was told when it was woken, or claimed its work."""

    id: str
    wake_id: str
    generation: int
    streams: tuple[StreamInfo, ...]


@dataclass
class Facts:
    """What is known outside, each with its place in the log of operations."""

    attempts: list[Attempt] = field(default_factory=list)
    generations: list[tuple[int, str, int]] = field(default_factory=list)
    """Wakes that were seen: by the subscription's seed, which no other has."""

    excused: list[tuple[int, str, frozenset[bytes]]] = field(default_factory=list)
    """Entries that a subscription need not wake anyone for: older than it, or done with."""

    wakes: list[tuple[int, Wake]] = field(default_factory=list)
    """Those that workers may still report on."""

    deleted: list[tuple[int, str]] = field(default_factory=list)
    """Subscriptions that somebody asked to delete, by id."""

    def before(self, cut: int) -> Facts:
        """What was known when the log was cut there, for a log that begins anew."""
        attempts = [
            replace(item, begun=0, answered=0 if item.answered is not None and item.answered <= cut else None)
            for item in self.attempts
            if item.begun <= cut
        ]
        return Facts(
            attempts,
            [(0, seed, generation) for at, seed, generation in self.generations if at <= cut],
            [(0, seed, entries) for at, seed, entries in self.excused if at <= cut],
            [(0, wake) for at, wake in self.wakes if at <= cut],
            [(0, id) for at, id in self.deleted if at <= cut],
        )

    def seen(self, seed: str) -> int:
        """The newest generation of the subscription that anyone has seen."""
        return max((generation for _, known, generation in self.generations if known == seed), default=0)

    def excused_of(self, seed: str) -> set[bytes]:
        """All entries that this subscription need not wake anyone for."""
        return {entry for _, known, entries in self.excused if known == seed for entry in entries}


class StreamsHistory(History):
    """The states of two hosts and of the object that keeps subscriptions, and all that was promised of them."""

    migrations: ClassVar[Mapping[str, tuple[str, ...]]] = {
        item.__name__: item.migrations for item in (StreamHost, Subscriptions)
    }

    def __init__(
        self,
        first: dict[ObjectId, Any] | None = None,
        now_ms: int = START_MS,
        facts: Facts | None = None,
        life: int = 0,
    ) -> None:
        super().__init__(first)
        self.life = life
        """How many crashes came before."""
        self.facts = facts or Facts()
        self.times = [(0, now_ms)]
        """What time it was, from which place in the log on."""
        self.promises: list[tuple[int, Promise]] = []
        """Answers that were given, each with its place in the log."""

    def nothing(self, object_id: ObjectId) -> HostState | SubscriptionsState:
        return SubscriptionsState() if object_id == SUBSCRIPTIONS else HostState()

    def keep(self, at: int, promise: Promise) -> None:
        """Somebody got an answer, at that place in the log."""
        self.promises.append((at, promise))

    def now_ms(self, cut: int) -> int:
        """What time it was when the log was that long."""
        return self.times[bisect.bisect_right(self.times, (cut, 1 << 60)) - 1][1]

    def bounds(self, log: list[Operation], cut: int) -> tuple[int, int]:
        durable, last = super().bounds(log, cut)
        for at, promise in self.promises:
            if at <= cut:
                if promise.open_commits:
                    raise Lost("somebody was answered, and what it was the answer to was never committed")
                durable = max(durable, promise.sequence)
        return durable, last

    def expected(self, sequence: int, cut: int) -> dict[ObjectId, Any]:
        return {key: _settled(state, self.now_ms(cut)) for key, state in super().expected(sequence, cut).items()}

    def read(self, store: Store, log: list[Operation], cut: int) -> dict[ObjectId, Any]:
        return read_store(store, list(self.commits), self.migrations, partial(_read, self.now_ms(cut)))

    def match(self, found: dict[ObjectId, Any], log: list[Operation], cut: int) -> dict[ObjectId, Any]:
        expected = super().match(found, log, cut)
        hosts = {number: expected.get(host_id(number), HostState()) for number in HOME_NUMBERS}
        check_pointers(hosts)
        self._check_generations(found, hosts, cut)
        return expected

    def after(self, expected: dict[ObjectId, Any], log: list[Operation], cut: int) -> StreamsHistory:
        return StreamsHistory(expected, self.now_ms(cut), self.facts.before(cut), self.life + 1)

    def _check_generations(self, found: dict[ObjectId, Any], hosts: dict[int, HostState], cut: int) -> None:
        """Generations never go back: none that anyone has seen is newer than the one that is stored."""
        facts = self.facts.before(cut)
        subscriptions = found.get(SUBSCRIPTIONS, SubscriptionsState()).subscriptions
        for id, state in subscriptions.items():
            seen = facts.seen(state["seed"])
            if all(known != id for _, known in facts.deleted):
                seen = max([seen, *(event["generation"] for event in wake_events(hosts, id))])
            if seen > state.get("generation", 0):
                raise Lost(f"{id!r} is at generation {state.get('generation', 0)}, but {seen} was seen")


def check_pointers(hosts: dict[int, HostState]) -> None:
    """Raises Lost where a stream lives that no request would find."""
    for number, host in hosts.items():
        for path in host.streams:
            home = hosts[home_of(path)]
            if home is host:
                continue
            if home.pointers.get(path) != number:
                raise Lost(f"{path!r} lives in host {number}; its home points to {home.pointers.get(path)}")
            if path in home.streams:
                raise Lost(f"{path!r} lives in host {number}, and in its home")


def wake_events(hosts: dict[int, HostState], id: str) -> Iterable[dict[str, Any]]:
    """All that the wake streams say to a subscription's workers."""
    for host in hosts.values():
        for path, stream in host.streams.items():
            if path.startswith(WAKES):
                events = (msgspec.json.decode(entry) for entry in stream.entries)
                yield from (event for event in events if event["subscription_id"] == id)


def _read(now_ms: int, opened: OpenObject) -> HostState | SubscriptionsState:
    return read_subscriptions(opened) if opened.object_id == SUBSCRIPTIONS else read_host(opened, now_ms)


def _settled(state: Any, now_ms: int) -> Any:
    if isinstance(state, HostState):
        state = state.copy()
        state.expire(now_ms)
    return state
