"""Applications with subscriptions over real HTTP, on a clock that the test sets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
from tests.objects.disks import Disk
from tests.running import HURRIED, serving, until
from tests.server.clients import http

from perdure import App
from perdure.objects.instance import Instance
from perdure.objects.slot import Slot
from perdure.stream_hosts.directory import home_of
from perdure.stream_hosts.subscriptions import SubscriptionFeed, Subscriptions
from perdure.streams.subscription_state import SubscriptionState
from perdure.values import ObjectId
from perdure.values import format_offset as at

__all__ = ["NOON_MS", "Clock", "Site", "at", "paths_in", "site"]

NOON_MS = 1_700_000_000_000
TEXT = "text/plain"
JSON = "application/json"


def paths_in(number: int, count: int, prefix: str = "events/p") -> list[str]:
    """Paths of streams whose home has this number."""
    names = (f"{prefix}{serial}" for serial in range(100_000))
    return [name for name, _ in zip((name for name in names if home_of(name) == number), range(count), strict=False)]


class Clock:
    """The time, in Unix milliseconds. It stands until it is set."""

    def __init__(self, now_ms: int = NOON_MS) -> None:
        self.now_ms = now_ms
        self.apps: list[App] = []

    def pass_ms(self, duration_ms: float) -> None:
        """Let time go by; alarms that are due then ring."""
        self.now_ms += round(duration_ms)
        for app in self.apps:
            app.runtime.alarms._arm()

    def rule(self, app: App) -> None:
        """Have the application live by this clock. Before it starts."""
        self.apps.append(app)
        app.runtime.now_ms = app.runtime.alarms._now_ms = lambda: self.now_ms


class Site:
    """A running application and a client of it."""

    web: httpx2.AsyncClient

    def __init__(self, app: App) -> None:
        self.app = app

    # --- streams

    async def create(self, path: str, body: bytes = b"", content_type: str = TEXT, **headers: str) -> None:
        """PUT a stream; it must be new. ``stream_ttl="60"`` is the header ``stream-ttl``."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        answer = await self.web.put(
            f"/v1/stream/{path}", content=body, headers={"content-type": content_type, **named}
        )
        assert answer.status_code == 201, answer.text

    async def append(self, path: str, body: bytes = b"x", content_type: str = TEXT) -> str:
        """POST to a stream; where it ends then."""
        answer = await self.web.post(f"/v1/stream/{path}", content=body, headers={"content-type": content_type})
        assert answer.status_code == 204, answer.text
        return answer.headers["stream-next-offset"]

    async def delete(self, path: str) -> None:
        """DELETE a stream."""
        assert (await self.web.delete(f"/v1/stream/{path}")).status_code == 204

    async def read(self, path: str) -> list[dict[str, Any]]:
        """All messages of a JSON stream."""
        messages: list[dict[str, Any]] = (await self.web.get(f"/v1/stream/{path}?offset=-1")).json()
        return messages

    # --- subscriptions

    async def ask(
        self, method: str, path: str, body: Any = None, *, token: str | None = None, **headers: str
    ) -> httpx2.Response:
        """A request below ``__ds/``; its answer, whatever its status."""
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return await self.web.request(method, f"/v1/stream/__ds/{path}", json=body, headers=headers)

    async def subscribe(self, id: str, **fields: Any) -> dict[str, Any]:
        """PUT a subscription; it must be new."""
        answer = await self.ask("PUT", f"subscriptions/{quote(id, safe='')}", fields)
        assert answer.status_code == 201, answer.text
        document: dict[str, Any] = answer.json()
        return document

    async def hook(self, id: str, url: str, pattern: str = "events/*", **fields: Any) -> dict[str, Any]:
        """PUT a webhook subscription."""
        return await self.subscribe(id, type="webhook", pattern=pattern, webhook={"url": url}, **fields)

    async def pull(self, id: str, wake_stream: str = "wakes", pattern: str = "events/*", **fields: Any) -> None:
        """PUT a pull-wake subscription."""
        await self.subscribe(id, type="pull-wake", pattern=pattern, wake_stream=wake_stream, **fields)

    async def document(self, id: str) -> dict[str, Any]:
        """GET a subscription."""
        answer = await self.ask("GET", f"subscriptions/{quote(id, safe='')}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def acked(self, id: str) -> dict[str, str]:
        """By path: what is acknowledged of each stream that the subscription watches."""
        return {item["path"]: item["acked_offset"] for item in (await self.document(id))["streams"]}

    async def report(self, id: str, what: str, wake: dict[str, Any], **fields: Any) -> httpx2.Response:
        """POST a callback, an ack or a release for what a webhook or a claim said."""
        token = wake.get("token") or wake["callback_token"]
        body = {"wake_id": wake["wake_id"], "generation": wake["generation"], **fields}
        return await self.ask("POST", f"subscriptions/{quote(id, safe='')}/{what}", body, token=token)

    async def claim(self, id: str, worker: str = "w1") -> dict[str, Any]:
        """POST a claim, as soon as there is work."""
        answer = await self.ask("POST", f"subscriptions/{quote(id, safe='')}/claim", {"worker": worker})
        assert answer.status_code == 200, answer.text
        claim: dict[str, Any] = answer.json()
        return claim

    # --- the server's side

    @property
    def feed(self) -> SubscriptionFeed:
        """What tells subscriptions of streams."""
        assert self.app.stream_surface is not None
        return self.app.stream_surface.service.feed

    @property
    def instance(self) -> Instance | None:
        """The instance of the object that keeps subscriptions, while it is awake."""
        return self.app.runtime.slot(self.feed.object_id).instance

    @property
    def subscriptions(self) -> Subscriptions:
        """That object."""
        assert self.instance is not None
        assert isinstance(self.instance.object, Subscriptions)
        return self.instance.object

    def state(self, id: str) -> SubscriptionState:
        """What is kept of a subscription."""
        return self.subscriptions._all[id].state

    def phase(self, id: str) -> str | None:
        """That of the wake that is out."""
        wake = self.state(id).wake
        return None if wake is None else wake.phase

    async def settled(self, id: str) -> None:
        """Wait until no wake is out, durably."""
        await until(lambda: self.state(id).wake is None)
        await self.document(id)

    @contextmanager
    def news_held(self) -> Iterator[None]:
        """Inside, news of streams is gathered and not told yet."""
        feed = self.feed
        assert not feed._telling
        feed._telling = True
        yield
        feed._telling = bool(feed._news or feed._doubtful)
        if feed._telling:
            feed._deliver()

    def host(self, number: int) -> Slot:
        """The slot of one of the objects in which streams live."""
        return self.app.runtime.slot(ObjectId("StreamHost", f"{number:02}"))

    async def compared(self) -> None:
        """Wait until a start is over: all streams have been looked at."""
        await until(lambda: self.instance is not None and not self.subscriptions._surveys)


@asynccontextmanager
async def site(
    folder: Path,
    *,
    clock: Clock | None = None,
    disk: Disk | None = None,
    prepare: Callable[[Site], None] | None = None,
    **options: Any,
) -> AsyncIterator[Site]:
    """An application without rooms in ``folder``, served on a free port; its end is an orderly one.

    ``prepare`` is called before it starts.
    """
    app = App([], data=folder, **{"limits": HURRIED, "pages": False, **options})
    if disk is not None:
        app.runtime._files = disk.files
    if clock is not None:
        clock.rule(app)
    here = Site(app)
    if prepare is not None:
        prepare(here)
    try:
        async with serving(app) as address, http(address) as here.web:
            yield here
    finally:
        if clock is not None:
            clock.apps.remove(app)
