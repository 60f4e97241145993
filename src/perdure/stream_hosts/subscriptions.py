"""`Subscriptions`: the durable object that keeps all subscriptions and runs them.

Each is a state machine (`streams.subscription`); this stores its state, and carries out what it
asks for when that is durable: webhooks, wake events, timers. News of streams comes from the
`SubscriptionFeed` when it is durable; news that a crash swallowed is made up for at the start,
by comparing the streams' tails with what each subscription knows.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, ClassVar, TypeVar

import msgspec
import structlog

from ..errors import PerdureError
from ..objects.instance import Instance
from ..objects.object import AlarmInfo, Context, DurableObject
from ..objects.runtime import Runtime
from ..streams.subscription import Subscription
from ..streams.subscription_state import AppendWake, DeliverWebhook, Effect, Link, SetTimer, SubscriptionState
from ..values import ObjectId
from ..wire.subscriptions import (
    BEFORE_FIRST_OFFSET,
    AckRequest,
    SubscriptionConfig,
    SubscriptionError,
    ack_document,
    claim_document,
    config_hash,
    later_offset,
    subscription_document,
    wake_event,
    webhook_body,
)
from ..wire.webhooks import SEED_BYTES, TOKEN_TTL_S, Jwk, WebhookKey, jwks_document, wake_token
from .directory import StreamDirectory
from .host import StreamHost
from .webhook_delivery import deliver

log = structlog.get_logger("perdure.subscriptions")

NAMES_AT_ONCE = 1_000
"""Streams that are looked up together when a subscription is made or all of them start."""

_Result = TypeVar("_Result")
_STATE = msgspec.json.Decoder(SubscriptionState)
_LINK = msgspec.json.Decoder(Link)


class News(msgspec.Struct):
    """What became of a stream since the object was told last. ``before`` None: it was there already."""

    tail: str
    before: str | None = None
    removed: bool = False


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
        self._directory = StreamDirectory(context.runtime)
        self._all: dict[str, Subscription] = {}
        self._root_urls: dict[str, str] = {}
        self._timers: dict[str, int] = {}
        self._watched: dict[str, bool] = {}
        self._key: WebhookKey | None = None

    # --- life

    async def on_start(self) -> None:
        """Load everything; make up for what was missed, and ask again for what was under way."""
        links: dict[str, dict[str, Link]] = {}
        for row in self.storage.sql("SELECT subscription, path, link FROM links"):
            links.setdefault(row["subscription"], {})[row["path"]] = _LINK.decode(row["link"])
        for row in self.storage.sql("SELECT id, head, root_url FROM subscriptions"):
            state = _STATE.decode(row["head"])
            state.links = links.get(row["id"], {})
            self._all[row["id"]] = Subscription(state)
            self._root_urls[row["id"]] = row["root_url"]
        if self._all:
            self.background(self._catch_up(), name="catch up")

    async def _catch_up(self) -> None:
        tails = await self._tails_of({path for item in self._all.values() for path in item.state.links})
        found = await self._all_tails() if any(item.state.config.pattern for item in self._all.values()) else {}
        now_ms = self.now_ms()
        for id, subscription in list(self._all.items()):
            effects: list[Effect] = []
            for path in list(subscription.state.links):
                if path in tails:
                    effects += subscription.stream_appended(path, tails[path], now_ms)
                else:
                    effects += subscription.stream_deleted(path)
            for path, tail in found.items():  # made since; what was there before is linked
                effects += subscription.stream_appended(path, tail, now_ms)
            effects += subscription.resumed(now_ms)
            self._keep(id, subscription, effects)

    def watches(self, path: str) -> bool:
        """Whether news of this stream matters to anyone."""
        watched = self._watched.get(path)
        if watched is None:
            if len(self._watched) >= 100_000:
                self._watched.clear()
            watched = self._watched[path] = any(item.watches(path) for item in self._all.values())
        return watched

    # --- what clients ask for

    async def create(self, id: str, config: SubscriptionConfig, root_url: str) -> tuple[bool, bytes]:
        """Make a subscription, or confirm it; whether it is new, and its document.

        Raises:
            SubscriptionError: ``SUBSCRIPTION_ALREADY_EXISTS``: with another configuration.
        """
        if id not in self._all:
            tails = await self._tails_of(config.streams)
            if config.pattern is not None:
                tails |= await self._all_tails()
        subscription = self._all.get(id)  # another may have made it meanwhile
        if subscription is not None:
            if config_hash(subscription.state.config) != config_hash(config):
                raise SubscriptionError("SUBSCRIPTION_ALREADY_EXISTS", f"{id!r} exists with another configuration")
            return False, self.document(id)
        subscription = Subscription.create(id, config, tails, seed=secrets.token_bytes(16), now_ms=self.now_ms())
        self._all[id] = subscription
        self._root_urls[id] = root_url
        self._watched.clear()
        # Awake from now on, and after a restart from its start: else it would have to compare all tails again.
        self.context.hold_awake(True)
        self._keep(id, subscription, [])
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
            kid=self._signing_key().kid,
        )

    def delete(self, id: str) -> None:
        """Forget a subscription. Nothing happens when there is none."""
        if self._all.pop(id, None) is not None:
            del self._root_urls[id]
            self._timers.pop(id, None)
            self._watched.clear()
            self.storage.sql("DELETE FROM links WHERE subscription = ?", id)
            self.storage.sql("DELETE FROM subscriptions WHERE id = ?", id)
            self._set_timer()
            if not self._all:
                self.context.hold_awake(False)

    async def add_streams(self, id: str, paths: Iterable[str]) -> None:
        """Watch streams by name. Raises SubscriptionError, LimitExceeded."""
        self._get(id)
        tails = await self._tails_of(paths)
        subscription = self._get(id)
        tails = {path: tails.get(path, BEFORE_FIRST_OFFSET) for path in paths}
        self._watched.clear()
        self._keep(id, subscription, subscription.links_added(tails, self.now_ms()))

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
        subscription = self._get(id)
        ahead = subscription.past_tail(request)
        if ahead:  # the worker has read what we have not been told yet
            for path, tail in (await self._tails_of(ahead)).items():
                self._keep(id, subscription, subscription.stream_appended(path, tail, self.now_ms()))
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
        return jwks_document([self._signing_key().jwk, *self._old_keys()])

    @property
    def token_key(self) -> bytes:
        """What wake tokens are signed with."""
        return hmac.digest(self.context.runtime.secret, b"wake tokens", "sha256")

    # --- news of streams

    def on_news(self, news: dict[str, News]) -> None:
        """What became of streams; all of it is durable."""
        now_ms = self.now_ms()
        for id, subscription in list(self._all.items()):
            effects: list[Effect] = []
            for path, item in news.items():
                if not subscription.watches(path):
                    continue
                if item.removed:
                    effects += subscription.stream_deleted(path)
                elif item.before is None or item.tail > item.before:
                    before = BEFORE_FIRST_OFFSET if item.before is None else item.before
                    effects += subscription.stream_appended(path, item.tail, now_ms, before=before)
                else:
                    effects += subscription.stream_appeared(path, item.tail)
            self._keep(id, subscription, effects)

    async def on_alarm(self, info: AlarmInfo) -> None:
        """Some subscription's lease ended, or its next try is due."""
        now_ms = self.now_ms()
        for id, at_ms in list(self._timers.items()):
            if at_ms <= now_ms and id in self._all:
                del self._timers[id]
                self._keep(id, self._all[id], self._all[id].time_passed(now_ms))
        self._set_timer()

    # --- storing and carrying out

    def _keep(self, id: str, subscription: Subscription, effects: list[Effect]) -> None:
        """Store what has changed; carry the effects out when it is durable."""
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
            if isinstance(effect, SetTimer):
                if effect.at_ms is None:
                    self._timers.pop(id, None)
                else:
                    self._timers[id] = effect.at_ms
                self._set_timer()
            else:
                self.context.after_durable(self._carry_out, id, effect)

    def _set_timer(self) -> None:
        first = min(self._timers.values(), default=None)
        if first is None:
            self.delete_alarm()
        elif self.get_alarm() != first:
            self.set_alarm(max(1, first))

    def _carry_out(self, id: str, effect: Effect) -> None:
        if isinstance(effect, DeliverWebhook):
            self.background(self._post(id, effect), name="webhook")
        elif isinstance(effect, AppendWake):
            self.background(self._append_wake(id, effect), name="wake")

    async def _post(self, id: str, effect: DeliverWebhook) -> None:
        subscription = self._all.get(id)
        if subscription is None:
            return
        body = webhook_body(
            subscription_id=id,
            wake_id=effect.wake_id,
            generation=effect.generation,
            streams=effect.streams,
            root_url=self._root_urls[id],
            token=self._token(id, effect.generation),
        )
        signature = self._signing_key().sign(body, self.now_ms() // 1000)
        lease_ms = subscription.state.config.lease_ttl_ms
        try:
            done = await deliver(effect.url, body, signature, timeout_s=lease_ms / 1000)
        except PerdureError as error:
            log.info("webhook failed", subscription=id, error=str(error))
            self._report(id, lambda item: item.failed(effect.wake_id, self.now_ms()))
        else:
            self._report(id, lambda item: item.delivered(effect.wake_id, self.now_ms(), done=done))

    async def _append_wake(self, id: str, effect: AppendWake) -> None:
        event = wake_event(
            subscription_id=id, stream=effect.stream, generation=effect.generation, now_ms=self.now_ms()
        )

        def append(host: StreamHost) -> Instance:
            hosted = host.get(effect.wake_stream)
            hosted.check_type("application/json")
            hosted.append([event], None, None, close=False)
            return _instance(host)

        try:
            instance = await self._in_host(effect.wake_stream, append)
            await instance.sync()
        except PerdureError as error:
            log.warning("wake event failed", subscription=id, stream=effect.wake_stream, error=str(error))
            self._report(id, lambda item: item.failed(effect.wake_id, self.now_ms()))
        else:
            self._report(id, lambda item: item.delivered(effect.wake_id, self.now_ms()))

    def _report(self, id: str, tell: Callable[[Subscription], list[Effect]]) -> None:
        subscription = self._all.get(id)
        if subscription is not None:
            self._keep(id, subscription, tell(subscription))

    # --- keys

    def _signing_key(self) -> WebhookKey:
        if self._key is None:
            seed = self.storage.get("signing-seed")
            if not isinstance(seed, bytes):
                seed = secrets.token_bytes(SEED_BYTES)
                self.storage.put("signing-seed", seed)
            self._key = WebhookKey(seed)
        return self._key

    def rotate_key(self) -> str:
        """Sign with a new key from now on; the old ones stay published. Returns the new key's id."""
        old = [msgspec.to_builtins(self._signing_key().jwk), *(self.storage.get("old-keys") or [])]
        self.storage.put("old-keys", old)
        self.storage.put("signing-seed", secrets.token_bytes(SEED_BYTES))
        self._key = None
        return self._signing_key().kid

    def _old_keys(self) -> list[Jwk]:
        return msgspec.convert(self.storage.get("old-keys") or [], list[Jwk])

    def _token(self, id: str, generation: int) -> str:
        return wake_token(self.token_key, id, generation, expires_at_s=self.now_ms() // 1000 + TOKEN_TTL_S)

    # --- streams

    def _get(self, id: str) -> Subscription:
        subscription = self._all.get(id)
        if subscription is None:
            raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", f"there is no subscription {id!r}")
        return subscription

    def _in_host(self, path: str, work: Callable[[StreamHost], _Result]) -> asyncio.Future[_Result]:
        answer: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()

        def visit(host: StreamHost) -> None:
            try:
                answer.set_result(work(host))
            except Exception as error:
                answer.set_exception(error)

        self._directory.visit(path, visit, lambda error: None if answer.done() else answer.set_exception(error))
        return answer

    async def _tails_of(self, paths: Iterable[str]) -> dict[str, str]:
        """The durable tails of these streams, as far as there are such streams."""
        tails: dict[str, str] = {}
        for path in paths:
            try:
                tails[path] = await self._in_host(path, lambda host: host.get(path).stream.tail_batch.next_offset)  # noqa: B023
            except PerdureError:
                continue
        return tails

    async def _all_tails(self) -> dict[str, str]:
        """The durable tails of all streams."""
        tails: dict[str, str] = {}
        for number, _ in enumerate(self._directory.host_ids):
            after = ""
            while True:
                names = await self._list(number, after)
                tails |= names
                if len(names) < NAMES_AT_ONCE:
                    break
                after = max(names)
        return tails

    def _list(self, number: int, after: str) -> asyncio.Future[dict[str, str]]:
        answer: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()

        def visit(host: StreamHost) -> None:
            names = host.storage.stream_table.names_after(after, "", NAMES_AT_ONCE)
            found = {name: host.find(name) for name in names}
            answer.set_result(
                {name: item.stream.tail_batch.next_offset for name, item in found.items() if item is not None}
            )

        self._directory.enter(number, visit, lambda error: None if answer.done() else answer.set_exception(error))
        return answer


def _instance(host: StreamHost) -> Instance:
    assert isinstance(host.context, Instance)
    return host.context


class SubscriptionFeed:
    """Brings news of streams to the subscriptions, when it is durable and someone cares."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.object_id = ObjectId(Subscriptions.__name__, "all")
        self._active: bool | None = None
        self._news: dict[str, News] = {}

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
        if awake is not None and isinstance(awake.object, Subscriptions) and not awake.object.watches(path):
            return
        instance.gate.submit(True, self._tell, path, News(tail, before, removed))

    def _tell(self, path: str, news: News) -> None:
        known = self._news.get(path)
        if not self._news:
            self._runtime.loop.call_soon(self._deliver)
        if known is not None and not known.removed and not news.removed:
            news = News(later_offset(known.tail, news.tail), known.before)
        self._news[path] = news

    def _deliver(self) -> None:
        news, self._news = self._news, {}

        async def event(instance: Instance) -> None:
            assert isinstance(instance.object, Subscriptions)
            instance.object.on_news(news)

        try:
            self._runtime.deliver(self.object_id, event, "news", _lost)
        except PerdureError as error:
            _lost(error)

    async def run(self, work: Callable[[Subscriptions], Coroutine[Any, Any, _Result]]) -> _Result:
        """Do something in the object; the result comes when what it wrote is durable."""
        self._active = True

        async def call(instance: Instance) -> _Result:
            assert isinstance(instance.object, Subscriptions)
            return await work(instance.object)

        return await self._runtime.run_in(self.object_id, call)


def _lost(error: Exception) -> None:
    """The object compares all tails when it starts again; until then its workers see less."""
    log.warning("subscriptions could not be told of streams", error=str(error))
