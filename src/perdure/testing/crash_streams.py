"""The crash simulator's second workload: a server's streams, and what the world makes of them.

The server is the real one but for its loop (crash_server.py). `Hosts` says what each request
must be answered, and what each commit leaves of a host; each answer that somebody got is a promise of
the `StreamsHistory`. After a crash the server starts again: what its writers left open is ended,
producers try again what they got no answer to, and workers are woken for all that is not done.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

from structlog.testing import capture_logs

from ..objects import housekeeping as housekeeping_module
from ..storage import secret as secret_module
from ..storage.store import OpenObject, Store
from ..stream_hosts import subscriptions as subscriptions_module
from ..stream_hosts import webhook_delivery
from ..stream_hosts import webhook_keys as webhook_keys_module
from ..stream_hosts.directory import home_of
from ..stream_hosts.subscriptions import Subscriptions
from ..values import ObjectId
from ..wire.durable_streams import CreateRequest
from .crash_clients import Clients
from .crash_model import COMMITTED, Lost, difference
from .crash_server import Server
from .crash_streams_history import HOME_NUMBERS, SUBSCRIPTIONS, WAKES, Promise, StreamsHistory, host_id
from .crash_streams_model import JSON, LONG_MS, Hosts, HostState
from .crash_streams_stored import SubscriptionsState, read_host, read_pointers, read_stream, read_written, told
from .crash_subscribers import WAKE_STREAM, Subscribers
from .crash_writers import GENERATIONS, Writers, check_written
from .disk import RecordingFiles
from .patches import patched

OWN = (WAKES, GENERATIONS)
"""How the paths begin of streams that the server itself writes."""

STEP_MS = 7


class StreamsWorkload:
    """A server at work, from the state in which ``history`` begins. Its `run` is one seed's story."""

    def __init__(
        self,
        folder: Path,
        files: RecordingFiles,
        random: Random,
        history: StreamsHistory,
        make_store: type[Store] = Store,
    ) -> None:
        self.files = files
        self.random = random
        self.history = history
        self.hosts = Hosts(
            {number: history.at(host_id(number), COMMITTED).copy() for number in HOME_NUMBERS},
            itertools.count(1_000_000 * history.life),
        )
        self.server = Server(folder, files, self, make_store, history.times[-1][1])
        self.clients = Clients(self.server, files, random, history, self.hosts, self._promise)
        self.subscribers = Subscribers(
            self.server, files, random, history, self.hosts, lambda promise: self._promise(promise, SUBSCRIPTIONS)
        )
        self.writers: Writers
        self._starts = itertools.count()
        self._waiting: dict[ObjectId, list[Promise]] = {}

    # --- the story

    def run(self, steps: int) -> None:
        """Start, and do so many random things."""
        self.start()
        actions: tuple[tuple[Callable[[], None], int], ...] = (
            (self.clients.act, 400),
            (self.turn, 220),
            (self.server.pump, 160),
            (self.subscribers.act, 200),
            (self.write, 60),
            (self.wait, 30),
            (self.wait_long, 6),
            (self.check, 10),
            (self.restart, 8),
        )
        names, weights = zip(*actions, strict=True)
        for action in self.random.choices(names, weights, k=steps):
            self.server.advance(STEP_MS)
            action()
        if self.random.random() < 0.5:
            self.subscribers.work_off()

    def start(self) -> None:
        """The server starts, and brings what it finds in order."""
        self.server.start()
        name = f"{self.history.life}.{next(self._starts)}"
        self.writers = Writers(self.server, self.random, name, self._written)
        if self.random.random() < 0.7:
            self.check_order()
        if self.hosts.find(WAKE_STREAM) is None:
            self.clients.put(WAKE_STREAM, CreateRequest(JSON, None, None, False, None), ())
        self.clients.try_again()

    def close(self) -> None:
        """The server ends as one does that is told to."""
        self.server.stop()
        self.writers.end()
        self.subscribers.end()
        self.clients.check()
        assert not self.server.loop.errors, self.server.loop.errors

    def restart(self) -> None:
        """The server ends and starts again."""
        self.close()
        self.start()

    def abandon(self) -> None:
        """Something went wrong: end without another word."""
        loop = self.server.loop
        for _ in range(2):  # first, what was to begin begins: a coroutine that never does is a warning
            while loop.ready:
                with suppress(Exception):
                    loop.run()
            for task in asyncio.all_tasks(loop):
                task.cancel()
        while loop.ready:
            with suppress(Exception):
                loop.run()

    def turn(self) -> None:
        """Some of what can go on does."""
        self.server.loop.run(self.random.choice((1, 2, 3, 8, 10_000)))

    def wait(self) -> None:
        """Some time goes by: timers ring, idle objects hibernate."""
        self.server.advance(self.random.choice((1_100, 1_100, 12_000, 40_000)))
        self.server.loop.run()

    def wait_long(self) -> None:
        """So much time goes by that streams expire."""
        self.server.advance(LONG_MS)
        self.server.loop.run()

    def write(self) -> None:
        """A stream that the server writes itself goes on; now and then one that has ended is deleted."""
        path = self.writers.pick()
        if path in self.writers.at_work or self.random.random() < 0.7:
            self.writers.act(path)
        else:
            self._observe(self.server.awake(host_id(home_of(path))).opened)
            self.clients.delete(path)

    # --- what is believed

    def on_commit(self, opened: OpenObject, sequence: int, *, new: bool) -> None:
        """From the server: what is stored is what is believed, from this sequence number on."""
        object_id = opened.object_id
        for promise in self._waiting.pop(object_id, ()):
            promise.sequence = max(promise.sequence, sequence)
            promise.open_commits -= 1
        if not new:
            return
        self.files.mark(COMMITTED + sequence)
        if object_id == SUBSCRIPTIONS:
            self.history.add(object_id, sequence, self._subscriptions(opened))
        else:
            self.history.add(object_id, sequence, replace(self._observe(opened).copy(), exists=True))

    def on_time(self, now_ms: int) -> None:
        """From the server."""
        self.history.times.append((len(self.files.log), now_ms))

    def _subscriptions(self, opened: OpenObject) -> SubscriptionsState:
        """What is in memory of the subscriptions; their keys, which nothing keeps in memory, as they are stored."""
        instance = self.server.instance(SUBSCRIPTIONS)
        assert instance is not None
        assert isinstance(instance.object, Subscriptions)
        urls = instance.object._root_urls
        states = {id: told(item.state, urls[id]) for id, item in instance.object._all.items()}
        return SubscriptionsState(states, opened.storage.list(limit=1_000_000), exists=True)

    def _observe(self, opened: OpenObject) -> HostState:
        """Take over what the server does by itself: what it writes to its own streams, and pointers."""
        number = int(opened.object_id.name)
        names = [row[0] for row in opened.storage.database.execute("SELECT name FROM _perdure_streams")]
        streams = {
            path: stream for path, stream in self.hosts.states[number].streams.items() if not path.startswith(OWN)
        }
        streams |= {path: read_stream(opened, path) for path in names if path.startswith(OWN)}
        state = self.hosts.states[number] = HostState(streams, read_pointers(opened), read_written(opened))
        return state

    def _promise(self, promise: Promise, object_id: ObjectId) -> None:
        """The answer stands for everything that this object has written so far."""
        instance = self.server.instance(object_id)
        assert instance is not None
        if instance.storage.dirty:
            self._waiting.setdefault(object_id, []).append(promise)
            promise.open_commits += 1
        else:
            promise.sequence = max(promise.sequence, instance.opened.last_sequence)

    def _written(self, path: str) -> None:
        """A writer says that its stream has ended: from now on it has."""
        ended = None
        for commit in reversed(self.history.commits[host_id(home_of(path))]):
            stream = commit.state.streams.get(path)
            if stream is None or not stream.closed:
                break
            ended = commit.sequence
        if ended is None:
            raise Lost(f"{path!r} was written to its end, and is not closed")
        self.history.keep(len(self.files.log), Promise(ended))

    # --- checks

    def check_order(self) -> None:
        """After a start, once all is settled: dead writers' streams have ended, and no work is forgotten."""
        self.server.until(self.subscribers.compared, "the comparison of all streams")
        self.server.settle()
        self.clients.prepare()
        self.check()
        self.server.settle()
        self.subscribers.check()

    def check(self) -> None:
        """What is in memory is as it is believed."""
        for number in HOME_NUMBERS:
            opened = self.server.awake(host_id(number)).opened
            expected = self._observe(opened).copy()
            expected.expire(self.server.now_ms)
            found = read_host(opened, self.server.now_ms)
            if found != expected:
                raise Lost(f"host {number}: {difference(found, expected)}")
            for path, stream in found.streams.items():
                if path.startswith(GENERATIONS):
                    check_written(path, stream, at_work=path in self.writers.at_work)


@contextmanager
def streams_workload(
    folder: Path, files: RecordingFiles, random: Random, history: StreamsHistory, make_store: type[Store] = Store
) -> Iterator[StreamsWorkload]:
    """A workload, while the world outside of the server is a part of the story.

    Raises:
        Lost: the server has logged an error.
    """
    fate = SimpleNamespace(token_bytes=Random(random.random()).randbytes)
    workload = StreamsWorkload(folder, files, random, history, make_store)
    with (
        capture_logs() as logs,
        patched(
            (webhook_delivery, "deliver", workload.subscribers.deliver),
            (subscriptions_module, "secrets", fate),
            (webhook_keys_module, "secrets", fate),
            (secret_module, "secrets", fate),
            (housekeeping_module, "give_back", lambda: None),
        ),
    ):
        try:
            yield workload
        except BaseException:
            workload.abandon()
            raise
    for entry in logs:
        if entry["log_level"] == "error":
            raise Lost(f"the server logged an error: {entry}")
