"""What `@tanstack/ai-durable-stream` 0.1.6 demands of a server, by plain HTTP: that package is not to be had here.

It writes each run of a model into a stream of its own: PUT, POSTs of arrays as a producer, a close. It
refuses a server whose answers lack what is checked here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.types import Receive, Scope, Send
from tests.running import serving
from tests.server.clients import http
from tests.server.streams.servers import (
    JSON,
    Events,
    StreamClient,
    Way,
    limited,
    serving_streams,
    stream_app,
)

pytestmark = pytest.mark.anyio

RUN = "runs%2F4f1c"
"""A stream's name as that package writes it: prefix and run as one segment."""


@pytest.fixture(params=["asgi", "accelerated"])
async def client(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StreamClient]:
    """A server that ends live connections after 200 ms."""
    way: Way = request.param
    async with serving_streams(stream_app(tmp_path, limits=limited(rotate_ms=200)), way) as client:
        yield client


def record(seq: int) -> dict[str, Any]:
    """A chunk as that package stores it."""
    return {"v": 1, "seq": seq, "chunk": {"type": "TEXT_MESSAGE_CONTENT", "messageId": "a", "delta": f"{seq} "}}


async def append(client: StreamClient, producer_seq: int, *records: dict[str, Any]) -> httpx2.Response:
    """One of its POSTs."""
    body = json.dumps(records).encode()
    return await client.produce(RUN, body, ("instance", 0, producer_seq), JSON)


async def test_a_slash_may_be_encoded(client: StreamClient) -> None:
    """The name in one segment and the path in two are the same stream."""
    assert (await client.create(RUN, content_type=JSON)).status_code == 201
    await append(client, 0, record(1))
    assert (await client.read("runs/4f1c")).json() == [record(1)]


async def test_another_root_is_not_served(client: StreamClient) -> None:
    """The package asks below ``/streams/``: an application leads that to where streams are (see the next test)."""
    response = await client.web.put(f"/streams/{RUN}", headers={"content-type": JSON})
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "not_found"


async def test_another_root_can_be_led_here(tmp_path: Path) -> None:
    """By the application's own ASGI wrapper, as small as this."""
    app = stream_app(tmp_path)

    async def wrapper(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"].startswith("/streams/"):
            scope = {
                **scope,
                "path": "/v1/stream" + scope["path"][8:],
                "raw_path": b"/v1/stream" + scope["raw_path"][8:],
            }
        await app(scope, receive, send)

    async with serving(wrapper) as address, http(address) as web:
        client = StreamClient(app, address, web, "/streams/")
        assert (await client.create(RUN, content_type=JSON)).status_code == 201
        assert (await append(client, 0, record(1))).status_code == 200
        assert (await client.read(RUN)).json() == [record(1)]


async def test_every_reply_says_where_the_stream_ends(client: StreamClient) -> None:
    """Making (and making again is told apart), appending, the same append again, closing, closing again."""
    replies = [
        await client.create(RUN, content_type=JSON),
        await client.create(RUN, content_type=JSON),
        await append(client, 0, record(1), record(2)),
        await append(client, 0, record(1), record(2)),
        await append(client, 1, record(3)),
        await client.close(RUN),
        await client.close(RUN),
    ]
    assert [reply.status_code for reply in replies] == [201, 200, 200, 204, 200, 204, 204]
    ends = [int(reply.headers["stream-next-offset"]) for reply in replies]
    assert ends == [0, 0, 2, 2, 3, 3, 3]
    assert [reply.headers.get("stream-closed") for reply in replies] == [None] * 5 + ["true"] * 2
    assert (await client.read(RUN)).json() == [record(1), record(2), record(3)]


async def test_events_are_arrays_and_controls_have_cursors(client: StreamClient) -> None:
    """Each data event is an array with a control behind it; an open one has a cursor; the last says closed."""
    await client.create(RUN, content_type=JSON)
    await append(client, 0, record(1), record(2))
    async with client.events(RUN) as events:
        first = await events.next()
        assert first is not None
        assert first.data is not None
        assert first.control["upToDate"] is True
        await append(client, 1, record(3))
        second = await events.next()
        await client.close(RUN)
        last = await events.next()
        assert await events.next() is None
    assert second is not None
    assert last is not None
    for event in (first, second):
        assert isinstance(event.control["streamCursor"], str)
        assert event.control["streamCursor"]
        assert "streamClosed" not in event.control
    assert last.control == {"streamNextOffset": "0000000000000003", "upToDate": True, "streamClosed": True}
    read = [item for event in (first, second) for item in json.loads(event.data or "")]
    assert read == [record(1), record(2), record(3)]


async def test_an_idle_window_ends_further_than_it_began(client: StreamClient) -> None:
    """Nothing was said, so the offset is the same: then the cursor is another, in each window that follows."""
    await client.create(RUN, content_type=JSON)
    await append(client, 0, record(1))
    offset, cursor = "-1", ""
    for _ in range(3):
        query = {"cursor": cursor} if cursor else {}
        async with client.events(RUN, offset, **query) as events:
            control = (await _rest(events))[-1]
        assert control["streamNextOffset"] == "0000000000000001"
        assert int(control["streamCursor"]) > int(cursor or 0)
        offset, cursor = control["streamNextOffset"], control["streamCursor"]


async def _rest(events: Events) -> list[dict[str, Any]]:
    return [event.control for event in await events.rest()]
