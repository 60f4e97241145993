"""`App.durable_response`: an application's own generator, as a stream that ends whatever happens to its request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import msgspec
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from tests.chat.rooms import Echo
from tests.running import HURRIED, eventually, serving, until
from tests.server.apps import set_clock
from tests.server.clients import http

from perdure import App, User
from perdure.errors import ConfigError, StreamConflict

pytestmark = pytest.mark.anyio

ANN = {"authorization": "ann"}


class Source:
    """A generator that goes on by what the test gives it; None ends it."""

    def __init__(self, *items: Any) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = False
        self.give(*items)

    def give(self, *items: Any) -> None:
        """Let it go on by these; exceptions are raised."""
        for item in items:
            self.items.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[Any]:
        try:
            while (item := await self.items.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


class Site:
    """An application with one route of its own, ``POST /generate``, that answers with ``source``."""

    def __init__(self, folder: Path, source: Source, *, prefix: str = "", **options: Any) -> None:
        self.source = source
        self.client: httpx2.AsyncClient
        self.app = App([], data=folder, limits=HURRIED, pages=False, **options)
        self.outer = FastAPI(lifespan=self.app.lifespan)
        self.answer: dict[str, Any] = {}
        self.prefix = prefix

        @self.outer.post("/generate")
        async def generate(request: Request) -> Response:
            try:
                return await self.app.durable_response(self.source, **self.answer)
            except StreamConflict as error:
                return PlainTextResponse(str(error), 409)

        self.outer.mount(prefix or "/", self.app)

    async def generate(self, source: Source | None = None, **answer: Any) -> httpx2.Response:
        """Ask for it; ``answer`` is what `App.durable_response` is called with."""
        self.source = source or self.source
        self.answer = {"stream": "own/s", **answer}
        return await self.client.post("/generate")

    async def read(self, url: str = "/v1/stream/own/s", **headers: str) -> tuple[bytes, bool]:
        """What is there now, and whether that is all."""
        response = await self.client.get(url, headers=headers)
        assert response.status_code == 200, response.text
        return response.content, response.headers.get("stream-closed") == "true"

    async def whole(self, url: str = "/v1/stream/own/s", **headers: str) -> bytes:
        """Everything, when it has ended."""
        async with asyncio.timeout(10):
            while True:
                content, closed = await self.read(url, **headers)
                if closed:
                    return content
                await asyncio.sleep(0.005)

    async def has(self, content: bytes) -> None:
        """Wait until that is there, and more may come."""
        async with asyncio.timeout(10):
            while await self.read() != (content, False):  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@asynccontextmanager
async def site(folder: Path, *items: Any, **options: Any) -> AsyncIterator[Site]:
    """The application, served."""
    made = Site(folder, Source(*items), **options)
    async with serving(made.outer) as address, http(address) as client:
        made.client = client
        yield made


# --- the answer


async def test_immediate(tmp_path: Path) -> None:
    """201 and the addresses, while the source has hardly begun; the stream goes on, and ends with the source."""
    async with site(tmp_path, {"type": "start"}) as made:
        response = await made.generate()
        assert response.status_code == 201
        assert {name: response.headers[name] for name in ("location", "cache-control")} == {
            "location": "/v1/stream/own/s",
            "cache-control": "no-store",
        }
        assert response.headers["access-control-expose-headers"] == "Location"
        assert response.json() == {"streamUrl": "/v1/stream/own/s", "stopUrl": "/v1/stream/__ds/stop/own/s"}
        await made.has(b'[{"type":"start"}]')
        made.source.give({"type": "finish"}, None)
        assert await made.whole() == b'[{"type":"start"},{"type":"finish"}]'


async def test_await(tmp_path: Path) -> None:
    """200 when the stream has ended, and where."""
    async with site(tmp_path, {"type": "start"}) as made:
        waiting = asyncio.create_task(made.generate(mode="await"))
        await until(lambda: made.source.items.empty())
        await made.has(b'[{"type":"start"}]')
        assert not waiting.done()
        made.source.give(None)
        response = await waiting
        assert response.status_code == 200
        assert response.json()["finalOffset"] == "0000000000000001"
        assert await made.read() == (b'[{"type":"start"}]', True)


async def test_a_path_is_made_up(tmp_path: Path) -> None:
    """One that nobody can guess, each time another."""
    async with site(tmp_path) as made:
        urls = [(await made.generate(Source(None), stream=None)).headers["location"] for _ in range(2)]
        assert urls[0] != urls[1]
        assert all(url.startswith("/v1/stream/generations/") and len(url) == 23 + 32 for url in urls)
        assert await made.whole(urls[0]) == b"[]"


async def test_a_path_that_is_taken(tmp_path: Path) -> None:
    """Is an error for the application; the stream goes on that was there first."""
    async with site(tmp_path, "a") as made:
        first = made.source
        await made.generate()
        assert (await made.generate(Source("b", None))).status_code == 409
        assert made.app.stop_stream("own/s")
        assert await made.whole() == b'["a",{"type":"abort"}]'
        assert first.closed


async def test_a_path_may_hold_anything(tmp_path: Path) -> None:
    """Both addresses are encoded, and lead there."""
    async with site(tmp_path, "a") as made:
        body = (await made.generate(stream="täg/ä b?#")).json()
        assert body["streamUrl"].isascii()
        assert unquote(body["streamUrl"]) == "/v1/stream/täg/ä b?#"
        assert (await made.client.post(body["stopUrl"])).json() == {"success": True, "stopped": True}
        assert await made.whole(body["streamUrl"]) == b'["a",{"type":"abort"}]'


async def test_without_streams_there_is_no_such_answer(tmp_path: Path) -> None:
    """The application is told what to switch on."""
    app = App([Echo], data=tmp_path, limits=HURRIED, streams=False)
    async with app.lifespan():
        with pytest.raises(ConfigError, match="streams=True"):
            await app.durable_response(Source())


# --- what is written


class Point(msgspec.Struct):
    x: int


async def test_json_values(tmp_path: Path) -> None:
    """Dicts, lists, texts, Structs, and bytes that are JSON already: one message each, lists too."""
    async with site(tmp_path, {"a": 1}, [1, 2], "text", Point(3), b' {"raw": true}', None) as made:
        await made.generate()
        assert msgspec.json.decode(await made.whole()) == [{"a": 1}, [1, 2], "text", {"x": 3}, {"raw": True}]


@pytest.mark.parametrize("bad", [b"{", b"1,2", b"", object()])
async def test_what_is_no_json_is_a_failure(tmp_path: Path, bad: Any) -> None:
    """Of the source: it is closed, the stream says so and ends."""
    async with site(tmp_path, "a", bad) as made:
        await made.generate()
        first, last = msgspec.json.decode(await made.whole())
        assert (first, last["type"]) == ("a", "error")
        assert made.source.closed


async def test_text_and_bytes(tmp_path: Path) -> None:
    """Under another content type; a failure just ends it."""
    async with site(tmp_path, "Grüße, ", b"Welt", "", ValueError("oops")) as made:
        await made.generate(content_type="text/plain; charset=utf-8")
        assert await made.whole() == "Grüße, Welt".encode()
        response = await made.client.get("/v1/stream/own/s")
        assert response.headers["content-type"] == "text/plain; charset=utf-8"


# --- how it ends


FAILURES: dict[str | None, dict[str, Any]] = {
    "ui": {"type": "error", "errorText": "ValueError: oops"},
    "agui": {"type": "RUN_ERROR", "message": "ValueError: oops"},
}
STOPS: dict[str | None, dict[str, Any]] = {
    "ui": {"type": "abort"},
    "agui": {"type": "RUN_ERROR", "message": "stopped", "code": "aborted"},
}
LOSSES: dict[str | None, dict[str, Any]] = {
    "ui": {"type": "error", "errorText": "the server stopped while this was written"},
    "agui": {"type": "RUN_ERROR", "message": "the server stopped while this was written"},
}
protocols = pytest.mark.parametrize("protocol", ["ui", "agui", None])


def ends_with(last: dict[str | None, dict[str, Any]], protocol: str | None) -> list[Any]:
    """What a stream of that protocol holds that had said one thing; without a protocol nothing is added."""
    return ["a", last[protocol]] if protocol in last else ["a"]


@protocols
async def test_a_source_that_fails(tmp_path: Path, protocol: Any) -> None:
    """The stream's last entry says so, in the words of its readers."""
    async with site(tmp_path, "a", ValueError("oops")) as made:
        assert (await made.generate(protocol=protocol)).status_code == 201
        assert msgspec.json.decode(await made.whole()) == ends_with(FAILURES, protocol)


async def test_awaited_a_failure_is_the_applications(tmp_path: Path) -> None:
    """It is raised once the stream has its end."""
    app = App([], data=tmp_path, limits=HURRIED, pages=False)
    async with app.lifespan():
        with pytest.raises(ValueError, match="oops"):
            await app.durable_response(Source("a", ValueError("oops")), stream="s", mode="await")
        with pytest.raises(StreamConflict):
            await app.durable_response(Source(), stream="s")
        assert not app.stop_stream("s")


@protocols
async def test_stop_by_address(tmp_path: Path, protocol: Any) -> None:
    """The source is closed at once; a second stop finds nothing to do."""
    async with site(tmp_path, "a") as made:
        url = (await made.generate(protocol=protocol)).json()["stopUrl"]
        await made.has(b'["a"]')
        assert (await made.client.get(url)).status_code == 405
        assert (await made.client.post(url)).json() == {"success": True, "stopped": True}
        assert msgspec.json.decode(await made.whole()) == ends_with(STOPS, protocol)
        assert made.source.closed
        assert (await made.client.post(url)).json() == {"success": True, "stopped": False}
        unknown = await made.client.post("/v1/stream/__ds/stop/unknown")
        assert unknown.json() == {"success": True, "stopped": False}


async def test_stop_by_the_application(tmp_path: Path) -> None:
    """And the awaiting request is answered: it has ended."""
    async with site(tmp_path, "a") as made:
        waiting = asyncio.create_task(made.generate(mode="await"))
        await until(lambda: made.app.stop_stream("own/s"))
        assert (await waiting).json()["finalOffset"] in ("0000000000000001", "0000000000000002")
        assert (await made.whole()).endswith(b'{"type":"abort"}]')
        assert not made.app.stop_stream("own/s")


async def test_a_client_that_leaves_stops_nothing(tmp_path: Path) -> None:
    """Not even where its request waits for the end."""
    async with site(tmp_path, "a") as made:
        waiting = asyncio.create_task(made.generate(mode="await"))
        await until(lambda: made.source.items.empty())
        await made.has(b'["a"]')
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        made.source.give("b", None)
        assert await made.whole() == b'["a","b"]'


async def test_a_handler_that_is_cancelled_stops_nothing(tmp_path: Path) -> None:
    """As middleware does with handlers that take too long."""
    app = App([], data=tmp_path, limits=HURRIED, pages=False)
    source = Source("a")
    async with app.lifespan():
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await app.durable_response(source, stream="s", mode="await")
        assert not source.closed
        assert app.stop_stream("s")
        await until(lambda: source.closed)


@protocols
async def test_a_planned_stop_of_the_server(tmp_path: Path, protocol: Any) -> None:
    """Readers are let go; after the restart the stream ends by itself, with an entry that says why."""
    async with site(tmp_path, "a") as made:
        await made.generate(protocol=protocol)
        await made.has(b'["a"]')
        reading = asyncio.create_task(made.client.get("/v1/stream/own/s?offset=0000000000000001&live=sse"))
        await asyncio.sleep(0.05)
        await made.app.stop()
        async with asyncio.timeout(5):
            await asyncio.gather(reading, return_exceptions=True)
    async with site(tmp_path) as made:
        assert msgspec.json.decode((await made.read())[0]) == ends_with(LOSSES, protocol)
        assert (await made.read())[1]


async def test_subscriptions_are_told(tmp_path: Path) -> None:
    """Of a stream that is made, of what it says, and of the entry that ends it."""
    async with site(tmp_path) as made:
        subscription = {"type": "pull-wake", "pattern": "own/*", "wake_stream": "wakes"}
        await made.client.put("/v1/stream/wakes", headers={"content-type": "application/json"})
        assert (await made.client.put("/v1/stream/__ds/subscriptions/s", json=subscription)).status_code == 201

        async def tail() -> str:
            claim = await made.client.post("/v1/stream/__ds/subscriptions/s/claim", json={"worker": "w"})
            if claim.status_code != 200:
                return ""
            (stream,) = claim.json()["streams"]
            body = {"wake_id": claim.json()["wake_id"], "generation": claim.json()["generation"], "done": True}
            body["acks"] = [{"stream": stream["path"], "offset": stream["tail_offset"]}]
            headers = {"authorization": f"Bearer {claim.json()['token']}"}
            ack = await made.client.post("/v1/stream/__ds/subscriptions/s/ack", json=body, headers=headers)
            assert ack.status_code == 200, ack.text
            return str(stream["tail_offset"])

        made.source.give("a")
        stop_url = (await made.generate()).json()["stopUrl"]
        await eventually(lambda: _is(tail, "0000000000000001"))
        await made.client.post(stop_url)
        await eventually(lambda: _is(tail, "0000000000000002"))


async def _is(get: Callable[[], Awaitable[str]], expected: str) -> bool:
    return await get() == expected


# --- how long it is kept


@pytest.mark.parametrize(("answer", "kept"), [({}, "86400"), ({"ttl_s": 60}, "60"), ({"ttl_s": None}, None)])
async def test_a_stream_is_kept_for_a_while(tmp_path: Path, answer: dict[str, Any], kept: str | None) -> None:
    """A day after it was last used, as long as was said, or for ever."""
    async with site(tmp_path, None) as made:
        await made.generate(**answer)
        await made.whole()
        head = await made.client.head("/v1/stream/own/s")
        assert head.headers.get("stream-ttl") == kept
        now_ms = made.app.runtime.now_ms()
        set_clock(made.app, now_ms + 50_000)
        assert (await made.client.get("/v1/stream/own/s")).status_code == 200
        set_clock(made.app, now_ms + 50_000 + 70_000)
        assert (await made.client.get("/v1/stream/own/s")).status_code == (404 if kept == "60" else 200)


# --- where the application is mounted


@pytest.mark.parametrize("prefix", ["/streams", "/a/b"])
async def test_below_a_prefix_the_addresses_are_given_it(tmp_path: Path, prefix: str) -> None:
    """By ``address``: the route is the outer application's, which alone knows where it has mounted this one."""
    async with site(tmp_path, "a", prefix=prefix) as made:
        response = await made.generate(address=lambda url: prefix + url)
        body = response.json()
        assert response.headers["location"] == body["streamUrl"] == f"{prefix}/v1/stream/own/s"
        assert body["stopUrl"] == f"{prefix}/v1/stream/__ds/stop/own/s"
        assert (await made.client.post(body["stopUrl"])).json()["stopped"] is True
        assert await made.whole(body["streamUrl"]) == b'["a",{"type":"abort"}]'


async def test_on_another_host(tmp_path: Path) -> None:
    """Whole addresses, with their tokens."""
    async with site(tmp_path, None, authenticate=_by_header) as made:
        body = (await made.generate(address=lambda url: f"https://chat.example{url}")).json()
        assert body["streamUrl"].startswith("https://chat.example/v1/stream/own/s?token=")
        assert body["stopUrl"] == "https://chat.example/v1/stream/__ds/stop/own/s"


# --- where users sign in


def _by_header(connection: HTTPConnection) -> User | None:
    return User("Ann") if connection.headers.get("authorization") == "ann" else None


async def test_the_address_is_enough_to_read(tmp_path: Path) -> None:
    """Without a header; but not to write, to delete, to stop or to read anything else."""
    async with site(tmp_path, "a", authenticate=_by_header) as made:
        body = (await made.generate()).json()
        url, stop_url = body["streamUrl"], body["stopUrl"]
        assert (await made.client.get(url)).status_code == 200
        token = url.partition("?")[2]
        assert (await made.client.get("/v1/stream/own/s")).status_code == 401
        assert (await made.client.get(f"/v1/stream/own/other?{token}")).status_code == 403
        for method in ("POST", "PUT", "DELETE"):
            assert (await made.client.request(method, url)).status_code == 403
        assert (await made.client.post(stop_url)).status_code == 401
        assert (await made.client.post(f"{stop_url}?{token}")).status_code == 403
        assert (await made.client.post(stop_url, headers=ANN)).json() == {"success": True, "stopped": True}
        assert (await made.whole(url)).endswith(b'{"type":"abort"}]')


async def test_the_address_expires(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an hour; the application can make a new one."""
    async with site(tmp_path, None, authenticate=_by_header) as made:
        assert made.app.stream_surface is not None
        url = (await made.generate()).headers["location"]
        now_s = time.time()
        for after_s, status in ((3_590, 200), (3_601, 403)):
            monkeypatch.setattr(made.app.stream_surface._access, "_clock_s", lambda now=now_s + after_s: now)
            assert (await made.client.get(url)).status_code == status
        monkeypatch.undo()
        assert await made.whole(made.app.sign_stream_url("own/s")) == b"[]"


async def test_the_applications_hook_decides_about_stops(tmp_path: Path) -> None:
    """A stop is asked about as an append to the stream."""
    asked: list[tuple[str, str]] = []

    def authorize(_connection: HTTPConnection, stream: str, action: str) -> bool:
        asked.append((stream, action))
        return len(asked) > 1

    async with site(tmp_path, "a", authorize=authorize) as made:
        body = (await made.generate()).json()
        assert "?token=" in body["streamUrl"]
        assert (await made.client.post(body["stopUrl"])).status_code == 403
        assert (await made.client.post(body["stopUrl"])).json()["stopped"] is True
        assert asked == [("own/s", "append")] * 2
