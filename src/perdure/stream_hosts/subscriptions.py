"""`Subscriptions`: the durable object that keeps all subscriptions and runs them.

Each is a state machine (`streams.subscription`); this stores its state, and carries out what it
asks for when that is durable: webhooks, wake events, timers. News of streams comes from the
`SubscriptionFeed` when it is durable. News that a crash swallowed is made up for at the start, by
comparing the streams' tails with what each subscription knows.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any, ClassVar, TypeVar

import msgspec
import structlog

from ..errors import PerdureError
from ..objects.gate import Answer
from ..objects.instance import Instance
from ..objects.object import AlarmInfo, Context, DurableObject
from ..objects.runtime import Runtime
from ..streams.subscription import Subscription
from ..streams.subscription_state import AppendWake, DeliverWebhook, Effect, Link, SetTimer, SubscriptionState
from ..values import ObjectId
from ..wire.subscriptions import (
    AckRequest,
    SubscriptionConfig,
    SubscriptionError,
    ack_document,
    claim_document,
    config_hash,
    subscription_document,
    wake_event,
    webhook_body,
)
from ..wire.webhooks import TOKEN_TTL_S, read_wake_token, wake_token
from .directory import HOST_COUNT, StreamDirectory
from .host import StreamHost
from .stream_news import NOT_KNOWN, Known, News, Survey, tell
from .stream_tails import StreamTails, Tail, Tails, stream_id
from .webhook_keys import WebhookKeys

log = structlog.get_logger("perdure.subscriptions")

DELIVERIES_AT_ONCE = 256
"""Webhooks that are under way together; more of them wait. Each holds a socket for as long as its receiver likes."""

AGAIN_MS = 1_000
"""Wait before hosts are asked again that could not answer, and before news is told again that was not taken."""

WATCHED_CACHED = 100_000
"""Paths of which is kept whether anyone watches them."""

Search = Callable[[], AsyncIterator[Tails]]
"""Asks for the tails of some streams, page by page."""

_Result = TypeVar("_Result")
_STATE = msgspec.json.Decoder(SubscriptionState)
_LINK = msgspec.json.Decoder(Link)


class Subscriptions(DurableObject):
    """All subscriptions of a data folder."""

    internal = True
    migrations: ClassVar[tuple[str, ...]] = (
        "CREATE TABLE subscriptions(id TEXT PRIMARY KEY, head BLOB NOT NULL, root_url TEXT NOT NULL) WITHOUT ROWID",
        "CREATE TABLE links(subscription TEXT NOT NULL, path TEXT NOT NULL, link BLOB NOT NULL,"
        " PRIMARY KEY(subscription, path)) WITHOUT ROWID",
    )

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.keys = WebhookKeys(context.storage)
        self._tails = StreamTails(context.runtime)
        self._all: dict[str, Subscription] = {}
        self._root_urls: dict[str, str] = {}
        self._surveys: list[Survey] = []
        self._timers: dict[str, int] = {}
        self._alarm_ms: int | None = None  # as far as this instance has set it; the one before may have set another
        self._watched: dict[str, bool] = {}
        self._deliveries = asyncio.Semaphore(DELIVERIES_AT_ONCE)

    # --- life

    async def on_start(self) -> None:
        """Load everything, ask again for what was under way, and make up for what was missed."""
        links: dict[str, dict[str, Link]] = {}
        for row in self.storage.sql("SELECT subscription, path, link FROM links"):
            links.setdefault(row["subscription"], {})[row["path"]] = _LINK.decode(row["link"])
        for row in self.storage.sql("SELECT id, head, root_url FROM subscriptions"):
            state = _STATE.decode(row["head"])
            state.links = links.get(row["id"], {})
            self._all[row["id"]] = Subscription(state)
            self._root_urls[row["id"]] = row["root_url"]
        if self._all:
            self._look_again(None)
            now_ms = self.now_ms()
            for id, subscription in self._all.items():
                self._keep(id, subscription, subscription.resumed(now_ms))

    def _look_again(self, paths: Set[str] | None) -> None:
        """Compare streams (None: all) with what subscriptions know of them. From now on, in the background."""
        known = [Known(id, item, paths) for id, item in self._all.items()]
        if paths is None:
            hosts = range(HOST_COUNT)
            searches: list[Search] = [partial(self._tails.in_host, number, self.watches) for number in hosts]
        else:
            searches = [partial(self._tails.named, paths)]
        survey = Survey(lambda path: False)  # the subscriptions themselves say what they want
        self._surveys.append(survey)
        self.background(self._compare(known, searches, survey), name="compare")

    async def _compare(self, known: list[Known], searches: list[Search], survey: Survey) -> None:
        found: set[str] = set()
        try:
            while True:
                searches = [search for search in searches if not await self._search(search, known, survey, found)]
                if not searches:
                    break
                await asyncio.sleep(AGAIN_MS / 1000)
            for item in known:
                gone = {path: News(None, removed=True) for path in item.gone(found, survey)}
                self._keep(item.id, item.subscription, tell(item.subscription, gone, self.now_ms()))
                await asyncio.sleep(0)
        finally:
            self._surveys.remove(survey)

    async def _search(self, search: Search, known: list[Known], survey: Survey, found: set[str]) -> bool:
        """Tell subscriptions what they missed of the streams that this finds. False: a host cannot be asked now."""
        try:
            async for tails in search():
                found.update(tails)
                for item in known:
                    missed = item.missed(tails, survey)
                    self._keep(item.id, item.subscription, tell(item.subscription, missed, self.now_ms()))
                    await asyncio.sleep(0)
        except PerdureError as error:
            log.warning("streams are compared later", error=str(error))
            return False
        return True

    @property
    def busy(self) -> bool:
        """Whether there are subscriptions, or will be in a moment."""
        return bool(self._all or self._surveys)

    def watches(self, path: str) -> bool:
        """Whether news of this stream matters to anyone."""
        watched = self._watched.get(path)
        if watched is None:
            if len(self._watched) >= WATCHED_CACHED:
                self._watched.clear()
            watched = any(item.watches(path) for item in self._all.values())
            watched = watched or any(survey.wants(path) for survey in self._surveys)
            self._watched[path] = watched
        return watched

    @contextmanager
    def _survey(self, wants: Callable[[str], bool]) -> Iterator[Survey]:
        survey = Survey(wants)
        self._surveys.append(survey)
        self._watched.clear()
        try:
            yield survey
        finally:
            self._surveys.remove(survey)
            self._watched.clear()

    # --- what clients ask for

    async def create(self, id: str, config: SubscriptionConfig, root_url: str) -> tuple[bool, bytes]:
        """Make a subscription, or confirm it; whether it is new, and its document.

        Raises:
            SubscriptionError: ``SUBSCRIPTION_ALREADY_EXISTS``: with another configuration.
            PerdureError: the streams' hosts cannot be asked now; nothing has changed.
        """
        seed, tails = secrets.token_bytes(16), Tails()
        wants = Subscription.create(id, config, {}, seed=seed, now_ms=self.now_ms()).watches
        with self._survey(wants) as survey:
            if id not in self._all:
                tails = await self._tails.of(config.streams)
                if config.pattern is not None:
                    tails |= await self._tails.all(wants)
        existing = self._all.get(id)  # another may have made it meanwhile
        if existing is not None:
            if config_hash(existing.state.config) != config_hash(config):
                raise SubscriptionError("SUBSCRIPTION_ALREADY_EXISTS", f"{id!r} exists with another configuration")
            return False, self.document(id)
        now_ms = self.now_ms()
        ends = {path: tail.offset for path, tail in tails.items()}
        subscription = Subscription.create(id, config, ends, seed=seed, now_ms=now_ms)
        _identify(subscription, tails)
        self._all[id] = subscription
        self._root_urls[id] = root_url
        self._watched.clear()
        # Awake from now on, and after a restart from its start: else it would have to compare all tails again.
        self.context.hold_awake(True)
        self._keep(id, subscription, tell(subscription, survey.news, now_ms))
        return True, self.document(id)

    def document(self, id: str) -> bytes:
        """The subscription's document. Raises SubscriptionError (``SUBSCRIPTION_NOT_FOUND``)."""
        subscription = self._get(id)
        state = subscription.state
        return subscription_document(
            id,
            state.config,
            streams=subscription.streams(),
            created_at_ms=state.created_at_ms,
            status=state.status,
            root_url=self._root_urls[id],
            kid=self.keys.current.kid,
        )

    def delete(self, id: str) -> None:
        """Forget a subscription. Nothing happens when there is none."""
        if self._all.pop(id, None) is not None:
            del self._root_urls[id]
            self._timers.pop(id, None)
            self._watched.clear()
            self.storage.sql("DELETE FROM links WHERE subscription = ?", id)
            self.storage.sql("DELETE FROM subscriptions WHERE id = ?", id)
            if not self._all:
                self.context.hold_awake(False)

    async def add_streams(self, id: str, paths: Iterable[str]) -> None:
        """Watch streams by name.

        Raises:
            SubscriptionError, LimitExceeded.
            PerdureError: the streams' hosts cannot be asked now; nothing has changed.
        """
        wanted, links = frozenset(paths), self._get(id).state.links
        with self._survey(wanted.__contains__) as survey:
            tails = await self._tails.of(wanted - links.keys())
        subscription, now_ms = self._get(id), self.now_ms()
        links = subscription.state.links
        # What it watched already was told to it; the rest was told to the survey.
        missed = {path: item for path, item in survey.news.items() if path in wanted and path not in links}
        new = {path: tails.get(path, NOT_KNOWN) for path in wanted if path not in links}
        ends = {path: new[path].offset if path in new else links[path].tail for path in wanted}
        effects = subscription.links_added(ends, now_ms)
        _identify(subscription, new)
        self._watched.clear()
        self._keep(id, subscription, effects + tell(subscription, missed, now_ms))

    def remove_stream(self, id: str, path: str) -> None:
        """Watch a stream no longer by name. Raises SubscriptionError."""
        subscription = self._get(id)
        self._watched.clear()
        self._keep(id, subscription, subscription.link_removed(path))

    def claim(self, id: str, worker: str) -> bytes:
        """Give a worker the work there is. Raises SubscriptionError."""
        subscription = self._get(id)
        claim, effects = subscription.claim(worker, self.now_ms())
        self._keep(id, subscription, effects)
        return claim_document(
            wake_id=claim.wake_id,
            generation=claim.generation,
            token=self._token(id, claim.generation),
            streams=claim.streams,
            lease_ttl_ms=subscription.state.config.lease_ttl_ms,
        )

    async def acknowledge(self, id: str, request: AckRequest, generation: int, *, webhook: bool) -> bytes:
        """A callback (``webhook``) or an ack. Raises SubscriptionError."""
        ahead = self._get(id).past_tail(request)
        if ahead:  # the worker has read what we have not been told yet
            tails = await self._tails.of(ahead)
            subscription = self._get(id)
            for path in tails.keys() & subscription.state.links.keys():
                effects = subscription.stream_appended(path, tails[path].offset, self.now_ms())
                self._keep(id, subscription, effects)
        subscription = self._get(id)
        answer = subscription.callback if webhook else subscription.ack
        next_wake, effects = answer(request, generation, self.now_ms())
        self._keep(id, subscription, effects)
        return ack_document(next_wake)

    def release(self, id: str, request: AckRequest, generation: int) -> None:
        """A worker gives its claim back. Raises SubscriptionError."""
        subscription = self._get(id)
        self._keep(id, subscription, subscription.release(request, generation, self.now_ms()))

    def jwks(self) -> bytes:
        """The keys that webhooks' signatures can be checked with."""
        return self.keys.document()

    def rotate_key(self) -> str:
        """Sign with a new key from now on; the old ones stay published. Returns the new key's id."""
        return self.keys.rotate().kid

    def token_generation(self, id: str, authorization: str | None) -> int:
        """Which wake's token an ``Authorization`` header holds: its generation.

        Raises:
            SubscriptionError: ``SUBSCRIPTION_NOT_FOUND``; that comes first.
            TokenInvalid, TokenExpired.
        """
        self._get(id)
        return read_wake_token(authorization, self._token_key, id, now_s=self.now_ms() // 1000)

    # --- news of streams

    def on_news(self, news: Mapping[str, News], doubtful: Set[str] = frozenset()) -> None:
        """What became of streams; all of it is durable. ``doubtful``: of these nobody knows, their hosts failed."""
        if doubtful:
            self._look_again(doubtful)
        now_ms = self.now_ms()
        for survey in self._surveys:
            survey.note(news)
        for id, subscription in self._all.items():
            self._keep(id, subscription, tell(subscription, news, now_ms))

    async def on_alarm(self, info: AlarmInfo) -> None:
        """Some subscription's lease ended, or its next try is due."""
        now_ms = self.now_ms()
        self._alarm_ms = None
        for id in [id for id, at_ms in self._timers.items() if at_ms <= now_ms]:
            del self._timers[id]
            self._keep(id, self._all[id], self._all[id].time_passed(now_ms))
        if self._timers:
            self._ring_by(min(self._timers.values()))

    # --- storing and carrying out

    def _keep(self, id: str, subscription: Subscription, effects: list[Effect]) -> None:
        """Store what has changed; carry the effects out when it is durable."""
        if self._all.get(id) is not subscription:
            return  # it was deleted meanwhile
        changes = subscription.take_changes()
        state = subscription.state
        if changes.head:
            self.storage.sql(
                "INSERT OR REPLACE INTO subscriptions VALUES(?,?,?)",
                id,
                msgspec.json.encode(state.head()),
                self._root_urls[id],
            )
        for path in changes.links:
            link = state.links.get(path)
            if link is None:
                self.storage.sql("DELETE FROM links WHERE subscription = ? AND path = ?", id, path)
            else:
                self.storage.sql("INSERT OR REPLACE INTO links VALUES(?,?,?)", id, path, msgspec.json.encode(link))
        for effect in effects:
            if not isinstance(effect, SetTimer):
                self.context.after_durable(self._carry_out, id, effect)
            elif effect.at_ms is None:
                self._timers.pop(id, None)
            else:
                self._timers[id] = effect.at_ms
                self._ring_by(effect.at_ms)

    def _ring_by(self, at_ms: int) -> None:
        """Have `on_alarm` called by then. It may ring too early: for a timer that is not needed any more."""
        if self._alarm_ms is None or at_ms < self._alarm_ms:
            self._alarm_ms = at_ms
            self.set_alarm(max(1, at_ms))

    def _carry_out(self, id: str, effect: Effect) -> None:
        if isinstance(effect, DeliverWebhook):
            self.background(self._post(id, effect), name="webhook")
        elif isinstance(effect, AppendWake):
            self.background(self._append_wake(id, effect), name="wake")

    async def _post(self, id: str, effect: DeliverWebhook) -> None:
        async with self._deliveries:
            subscription = self._all.get(id)
            wake = None if subscription is None else subscription.state.wake
            if subscription is None or wake is None or wake.wake_id != effect.wake_id:
                return  # over, before it was this one's turn
            body = webhook_body(
                subscription_id=id,
                wake_id=effect.wake_id,
                generation=effect.generation,
                streams=effect.streams,
                root_url=self._root_urls[id],
                token=self._token(id, effect.generation),
            )
            signature = self.keys.current.sign(body, self.now_ms() // 1000)
            lease_ms = subscription.state.config.lease_ttl_ms
            try:
                if (name := f"{__package__}.webhook_delivery") not in sys.modules:
                    # The HTTP client takes a fifth of a second to load: with the first delivery, beside the loop.
                    await asyncio.to_thread(import_module, name)
                from .webhook_delivery import deliver

                done = await deliver(effect.url, body, signature, timeout_s=lease_ms / 1000)
            except PerdureError as error:
                log.info("webhook failed", subscription=id, error=str(error))
                self._keep(id, subscription, subscription.failed(effect.wake_id, self.now_ms()))
            else:
                self._keep(id, subscription, subscription.delivered(effect.wake_id, self.now_ms(), done=done))

    async def _append_wake(self, id: str, effect: AppendWake) -> None:
        subscription = self._all.get(id)
        if subscription is None:
            return
        event = wake_event(
            subscription_id=id, stream=effect.stream, generation=effect.generation, now_ms=self.now_ms()
        )

        def append(host: StreamHost) -> None:
            hosted = host.get(effect.wake_stream)
            hosted.check_type("application/json")
            hosted.append([event], None, None, close=False)
            host.renew(hosted)

        try:
            await StreamDirectory(self.context.runtime).run(effect.wake_stream, append)
        except PerdureError as error:
            if self.context.runtime.draining:
                return  # it was not the wake stream's fault; the next start asks for it again
            log.warning("wake event failed", subscription=id, stream=effect.wake_stream, error=str(error))
            self._keep(id, subscription, subscription.failed(effect.wake_id, self.now_ms()))
        else:
            self._keep(id, subscription, subscription.delivered(effect.wake_id, self.now_ms()))

    # --- tokens

    @property
    def _token_key(self) -> bytes:
        return hmac.digest(self.context.runtime.secret, b"wake tokens", "sha256")

    def _token(self, id: str, generation: int) -> str:
        return wake_token(self._token_key, id, generation, expires_at_s=self.now_ms() // 1000 + TOKEN_TTL_S)

    def _get(self, id: str) -> Subscription:
        subscription = self._all.get(id)
        if subscription is None:
            raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", f"there is no subscription {id!r}")
        return subscription


class SubscriptionFeed:
    """Brings news of streams to the subscriptions, when it is durable and someone cares.

    One delivery is under way at a time; what comes meanwhile goes together in the next. News that
    is lost with the object's instance is not told again: the next instance looks at all streams.
    When a stream's host is reset what it wrote last may be durable or not: then it is looked at.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.object_id = ObjectId(Subscriptions.__name__, "all")
        self._active: bool | None = None
        self._news: dict[str, News] = {}
        self._doubtful: set[str] = set()
        self._telling = False
        self._running = 0

    @property
    def active(self) -> bool:
        """Whether there may be subscriptions."""
        if self._active is None:
            self._active = self._runtime.exists(self.object_id)
        return self._active

    def changed(self, instance: Instance, path: str, tail: str, before: str | None, *, removed: bool = False) -> None:
        """A stream was made (``before``: where it began), appended to, or removed, in this turn of its host."""
        if not self.active:
            return
        awake = self._runtime.enter(self.object_id)
        if awake is not None and not _subscriptions(awake).watches(path):
            return
        if removed:
            news = News(None, removed=True)
        else:
            stream = stream_id(instance.object_id.name, instance.streams.get(path))
            news = News(tail, before, stream=stream)
        instance.gate.submit(True, _Change(self, path, news))

    def note(self, path: str, news: News) -> None:
        """This is durable."""
        known = self._news.get(path)
        self._news[path] = news if known is None else known.then(news)
        self._begin_telling()

    def doubt(self, path: str) -> None:
        """Something was written, and may be durable or not."""
        self._doubtful.add(path)
        self._begin_telling()

    def _begin_telling(self) -> None:
        if not self._telling:
            self._telling = True
            self._runtime.loop.call_soon(self._deliver)

    def _deliver(self) -> None:
        try:
            self._runtime.deliver(self.object_id, self._event, "news", self._refused)
        except PerdureError as error:
            self._refused(error)

    def _refused(self, error: Exception) -> None:
        if not self._runtime.draining:  # else the next start looks at all streams
            log.warning("subscriptions are told of streams later", error=str(error))
            self._runtime.loop.call_later(AGAIN_MS / 1000, self._deliver)

    async def _event(self, instance: Instance) -> None:
        try:
            self._hand_over(instance)
            await instance.sync()
        finally:
            self._telling = bool(self._news or self._doubtful)
            if self._telling:
                self._runtime.loop.call_soon(self._deliver)
        self._rest()

    def _hand_over(self, instance: Instance) -> None:
        if self._news or self._doubtful:
            news, self._news = self._news, {}
            doubtful, self._doubtful = self._doubtful, set()
            _subscriptions(instance).on_news(news, doubtful)

    async def run(self, work: Callable[[Subscriptions], Coroutine[Any, Any, _Result]]) -> _Result:
        """Do something in the object, after all news so far; the result comes when what it wrote is durable."""

        async def call(instance: Instance) -> _Result:
            self._active = True
            self._hand_over(instance)
            return await work(_subscriptions(instance))

        self._running += 1
        try:
            result = await self._runtime.run_in(self.object_id, call)
        except BaseException:
            self._active = True  # who knows what came of it
            raise
        finally:
            self._running -= 1
        self._rest()
        return result

    def _rest(self) -> None:
        """Once there is no subscription, and durably so, streams need not tell."""
        instance = self._runtime.enter(self.object_id)
        if instance is not None and not self._running and not _subscriptions(instance).busy:
            self._active = False


class _Change(Answer):
    """News of a stream that waits until it is durable."""

    __slots__ = ("_feed", "_news", "_path")

    def __init__(self, feed: SubscriptionFeed, path: str, news: News) -> None:
        self._feed = feed
        self._path = path
        self._news = news

    def __call__(self) -> None:
        self._feed.note(self._path, self._news)

    def fail(self, error: Exception) -> None:
        self._feed.doubt(self._path)


def _identify(subscription: Subscription, tails: Mapping[str, Tail]) -> None:
    for path, tail in tails.items():
        subscription.stream_is(path, tail.stream)


def _subscriptions(instance: Instance) -> Subscriptions:
    assert isinstance(instance.object, Subscriptions)
    return instance.object
