"""What answers say beside the data: offsets, caching, the end. Where the suite does not look."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest

from perdure.wire.durable_streams import CURSOR_EPOCH_MS, CURSOR_INTERVAL_MS, CURSOR_JITTER_MS_MAX

from .servers import JSON, TEXT, StreamClient, Way, serving_streams, stream_app

pytestmark = pytest.mark.anyio

CACHED = "private, max-age=60, stale-while-revalidate=300"


async def test_a_duplicate_is_told_where_the_stream_ends(client: StreamClient) -> None:
    """The tail as it is now, and the newest pair of its producer: a client may take it for its own success."""
    await client.create("a")
    first = await client.produce("a", b"one", ("p", 3, 0))
    assert (first.status_code, first.headers["stream-next-offset"]) == (200, "0000000000000001")
    await client.produce("a", b"two", ("p", 3, 1))
    await client.append("a", b"three")
    again = await client.produce("a", b"one", ("p", 3, 0))
    assert again.status_code == 204
    names = ("stream-next-offset", "producer-epoch", "producer-seq")
    assert [again.headers[name] for name in names] == ["0000000000000003", "3", "1"]
    assert (await client.read("a")).content == b"onetwothree"


async def test_the_end_may_be_shouted(client: StreamClient) -> None:
    """``Stream-Closed: TRUE`` is true; any other value is as if the header were absent."""
    assert (await client.create("born-closed", b"all", stream_closed="TRUE")).headers["stream-closed"] == "true"
    await client.create("a")
    assert "stream-closed" not in (await client.append("a", b"1", stream_closed="yes")).headers
    assert (await client.append("a", b"2", stream_closed="True")).headers["stream-closed"] == "true"
    assert (await client.append("a", b"3")).status_code == 409
    await client.create("b")
    closed = await client.ask("POST", "b", headers={"stream-closed": "TRUE", "content-type": "image/png"})
    assert (closed.status_code, closed.headers["stream-closed"]) == (204, "true")


async def test_an_append_after_the_end_is_told_where_it_was(client: StreamClient) -> None:
    """Whatever else is wrong with it."""
    await client.create("a", b"1", stream_closed="true")
    for content_type in (TEXT, JSON):
        late = await client.append("a", b"{", content_type, stream_seq="1")
        assert late.status_code == 409
        assert (late.headers["stream-closed"], late.headers["stream-next-offset"]) == ("true", "0000000000000001")
        assert late.json()["error"]["code"] == "stream_closed"


async def test_caching(client: StreamClient) -> None:
    """Catch-up reads may be kept a minute by the client alone; what is live, or will change, is not kept."""
    await client.create("a", b"1")
    etag = (await client.read("a")).headers["etag"]
    offset = "0000000000000001"
    found = {
        "catch-up": await client.read("a"),
        "catch-up at the tail": await client.read("a", offset),
        "not modified": await client.read("a", headers={"if-none-match": etag}),
        "now": await client.read("a", "now"),
        "head": await client.ask("HEAD", "a"),
        "long-poll": await client.read("a", live="long-poll"),
        "long-poll that waits in vain": await client.read("a", offset, live="long-poll"),
        "no such stream": await client.read("b"),
        "no such offset": await client.read("a", "9"),
        "refused": await client.append("a", b"{}", JSON),
        "create": await client.create("c"),
        "append": await client.append("c", b"1"),
        "delete": await client.ask("DELETE", "c"),
    }
    async with client.events("a") as events:
        found["events"] = events.response
    assert {
        name: (response.status_code, response.headers.get("cache-control")) for name, response in found.items()
    } == {
        "catch-up": (200, CACHED),
        "catch-up at the tail": (200, CACHED),
        "not modified": (304, CACHED),
        "now": (200, "no-store"),
        "head": (200, "no-store"),
        "long-poll": (200, CACHED),
        "long-poll that waits in vain": (204, "no-store"),
        "no such stream": (404, "no-store"),
        "no such offset": (400, "no-store"),
        "refused": (409, "no-store"),
        "create": (201, None),
        "append": (204, None),
        "delete": (204, None),
        "events": (200, "no-cache"),
    }
    for name, response in found.items():
        assert response.headers["x-content-type-options"] == "nosniff", name
        assert response.headers["cross-origin-resource-policy"] == "same-origin", name
    assert {name for name, response in found.items() if "etag" not in response.headers} == {
        *("now", "long-poll that waits in vain", "no such stream", "no such offset", "refused"),
        *("create", "append", "delete", "events"),
    }


async def test_an_etag_is_of_one_state(client: StreamClient) -> None:
    """It changes with an append and with the end; another stream, made at the same path, has another."""
    tags = []
    await client.create("a", b"1")
    tags.append((await client.read("a")).headers["etag"])
    await client.append("a", b"2")
    tags.append((await client.read("a")).headers["etag"])
    await client.close("a")
    tags.append((await client.read("a")).headers["etag"])
    await client.ask("DELETE", "a")
    await client.create("a", b"1")
    tags.append((await client.read("a")).headers["etag"])
    assert len(set(tags)) == 4
    answers = [await client.read("a", headers={"if-none-match": tag}) for tag in tags]
    assert [(answer.status_code, answer.content) for answer in answers] == [(200, b"1")] * 3 + [(304, b"")]
    several = await client.read("a", headers={"if-none-match": f'"x", W/{tags[3]}'})
    assert several.status_code == 304


async def test_an_etag_lives_over_a_restart(tmp_path: Path, way: Way) -> None:
    """The stream is the same."""
    async with serving_streams(stream_app(tmp_path), way) as client:
        await client.create("a", b"1")
        etag = (await client.read("a")).headers["etag"]
    async with serving_streams(stream_app(tmp_path), way) as client:
        assert (await client.read("a", headers={"if-none-match": etag})).status_code == 304
        await client.append("a", b"2")
        assert (await client.read("a", headers={"if-none-match": etag})).content == b"12"


async def test_a_head_has_the_facts_and_no_body(client: StreamClient) -> None:
    """Of a stream with each kind of life."""
    await client.create("a", b"[1,2]", f"{JSON}; charset=utf-8", stream_ttl="60")
    answer = await client.ask("HEAD", "a")
    facts = ("content-type", "stream-next-offset", "stream-ttl")
    assert [answer.headers[name] for name in facts] == ["application/json; charset=utf-8", "0000000000000002", "60"]
    assert answer.content == b""
    assert "stream-closed" not in answer.headers
    await client.create("b", stream_expires_at="2099-01-31T12:00:00+01:00", stream_closed="true")
    answer = await client.ask("HEAD", "b")
    assert answer.headers["stream-expires-at"] == "2099-01-31T11:00:00.000Z"
    assert answer.headers["stream-closed"] == "true"
    assert (await client.ask("HEAD", "c")).status_code == 404


async def test_long_poll_cursors_count_the_time(client: StreamClient) -> None:
    """And go past the client's, so that two polls at one offset have different addresses."""
    await client.create("a", b"1")
    before = (time.time() * 1_000 - CURSOR_EPOCH_MS) // CURSOR_INTERVAL_MS
    current = int((await client.read("a", live="long-poll")).headers["stream-cursor"])
    assert before <= current <= before + 1
    for given in (current, current + 100):
        later = int((await client.read("a", live="long-poll", cursor=str(given))).headers["stream-cursor"])
        assert given < later <= given + CURSOR_JITTER_MS_MAX // CURSOR_INTERVAL_MS
    assert int((await client.read("a", live="long-poll", cursor="7")).headers["stream-cursor"]) >= current


async def test_both_ways_answer_alike(tmp_path: Path) -> None:
    """Each header of each kind of answer, but the date."""
    answers: dict[Way, list[tuple[int, list[tuple[str, str]], object]]] = {"asgi": [], "accelerated": []}

    def headers(response: httpx2.Response) -> list[tuple[str, str]]:
        return sorted(item for item in response.headers.multi_items() if item[0] not in ("date", "stream-cursor"))

    for way, told in answers.items():
        async with serving_streams(stream_app(tmp_path / way), way) as client:
            await client.create("a", b'[{"n":1}]', JSON)
            for response in (
                await client.read("a"),
                await client.read("a", ""),
                await client.read("a", headers={"if-none-match": "*"}),
                await client.read("a", "now"),
                await client.read("a", live="long-poll", cursor="1"),
                await client.read("b"),
                await client.append("a", b"[2,3]", JSON),
                await client.append("a", b"[]", JSON),
                await client.append("a", b"x", TEXT),
                await client.produce("a", b"4", ("p", 0, 0), JSON),
                await client.produce("a", b"4", ("p", 0, 0), JSON),
                await client.produce("a", b"6", ("p", 0, 2), JSON),
                await client.close("a"),
                await client.append("a", b"5", JSON),
                await client.read("a"),
                await client.read("a", "0000000000000004", live="long-poll"),
            ):
                told.append((response.status_code, headers(response), response.content))
            async with client.events("a", "0000000000000001") as events:
                told.append((200, headers(events.response), await events.rest()))
    assert answers["asgi"] == answers["accelerated"]
    statuses = [status for status, _, _ in answers["asgi"]]
    assert statuses == [200, 400, 304, 200, 200, 404, 204, 400, 409, 200, 204, 409, 204, 409, 200, 204, 200]
