"""Every limit of streams, on both sides: what is just allowed, and the named refusal past it."""

from __future__ import annotations

import dataclasses
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.running import until
from tests.server.apps import NOON_MS, set_clock

from perdure.server.streams.limits import StreamLimits
from perdure.server.streams.quotas import BURST_S
from perdure.stream_hosts.directory import HOST_COUNT, STREAM_PATH_BYTES_MAX, home_of
from perdure.wire.durable_streams import (
    CONTENT_TYPE_BYTES_MAX,
    NUMBER_MAX,
    PRODUCER_ID_BYTES_MAX,
    QUERY_FIELDS_MAX,
    STREAM_SEQ_BYTES_MAX,
)

from .servers import JSON, StreamClient, Way, asked, limited, raw, serving_streams, stream_app

pytestmark = pytest.mark.anyio


def _refused(answer: httpx2.Response) -> tuple[int, str, bool, str | None]:
    error = answer.json()["error"]
    return answer.status_code, error["message"], error["retryable"], answer.headers.get("retry-after")


def _too_large(limit: str, value: int, maximum: int) -> tuple[int, str, bool, None]:
    return 413, f"{limit} allows {maximum:,} at most, this has {value:,}", False, None


def test_the_defaults_are_these() -> None:
    """What an application has that says nothing."""
    assert dataclasses.asdict(StreamLimits()) == {
        "append_bytes_max": 8_388_608,
        "messages_per_append_max": 100_000,
        "read_bytes_max": 16_777_216,
        "long_poll_ms": 20_000,
        "rotate_ms": 55_000,
        "readers_per_stream_max": 10_000,
        "appends_per_s_max": None,
        "stream_bytes_max": None,
        "streams_max": None,
        "retain_bytes_max": None,
        "retain_ms": None,
    }


async def test_an_append_has_a_largest_size(tmp_path: Path, way: Way) -> None:
    """So has the first content of a stream; nothing of one that is too large is kept."""
    async with serving_streams(stream_app(tmp_path, limits=limited(append_bytes_max=1_000)), way) as client:
        await client.create("a", bytes(1_000))
        assert (await client.append("a", bytes(1_000))).status_code == 204
        told = _too_large("append_bytes_max", 1_001, 1_000)
        assert _refused(await client.append("a", bytes(1_001))) == told
        assert _refused(await client.ask("PUT", "b", bytes(1_001))) == told
        assert (await client.read("a")).content == bytes(2_000)
        assert (await client.read("b")).status_code == 404


async def test_a_body_of_unknown_size_is_refused_where_it_becomes_too_large(tmp_path: Path, way: Way) -> None:
    """In the middle, without the rest; the connection can be used again when the rest has come."""
    async with serving_streams(stream_app(tmp_path, limits=limited(append_bytes_max=1_000)), way) as client:
        await client.create("a")
        async with raw(client.address) as connection:
            head = asked("POST", "a", None, "content-type: text/plain", "transfer-encoding: chunked")
            connection.send(head, b"3e8\r\n", bytes(1_000), b"\r\n")
            connection.send(b"1\r\nx\r\n")
            answer = await connection.answer()
            assert (answer.status, b"append_bytes_max allows 1,000" in answer.body) == (413, True)
            connection.send(b"5\r\nxxxxx\r\n0\r\n\r\n", asked("GET", "a"))
            assert (await connection.answer()).body == b""
            connection.send(head, b"3e8\r\n", bytes(1_000), b"\r\n0\r\n\r\n")
            assert (await connection.answer()).status == 204


async def test_an_entry_has_a_largest_size(tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a larger body may come; nothing of the append is kept, its number neither."""
    monkeypatch.setattr("perdure.streams.stream.ENTRY_BYTES_MAX", 1_000)
    async with serving_streams(stream_app(tmp_path), way) as client:
        await client.create("a", bytes(1_000))
        refused = await client.append("a", bytes(1_001), stream_seq="1")
        assert _refused(refused) == _too_large("entry_bytes_max", 1_001, 1_000)
        assert (await client.append("a", b"x", stream_seq="1")).status_code == 204


async def test_a_first_content_that_is_refused_makes_nothing(
    tmp_path: Path, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No stream, no fork."""
    monkeypatch.setattr("perdure.streams.stream.ENTRY_BYTES_MAX", 1_000)
    monkeypatch.setattr("perdure.server.streams.service.ENTRY_BYTES_MAX", 1_000)
    async with serving_streams(stream_app(tmp_path), way) as client:
        await client.create("a")
        for path, headers in (("b", {}), ("fork", {"stream-forked-from": "/v1/stream/a"})):
            refused = await client.ask("PUT", path, bytes(1_001), headers)
            assert _refused(refused) == _too_large("entry_bytes_max", 1_001, 1_000)
            assert (await client.read(path)).status_code == 404


async def test_an_append_has_a_most_of_messages(tmp_path: Path, way: Way) -> None:
    """One more is refused, and none of them is stored."""
    async with serving_streams(stream_app(tmp_path, limits=limited(messages_per_append_max=3)), way) as client:
        await client.create("a", b"[1,2,3]", JSON)
        assert (await client.append("a", b"[4,5,6]", JSON)).status_code == 204
        assert _refused(await client.append("a", b"[7,8,9,0]", JSON)) == _too_large("messages_per_append_max", 4, 3)
        assert (await client.read("a")).json() == [1, 2, 3, 4, 5, 6]


READERS = (429, "the stream has 2 live readers (readers_per_stream_max); try again later", True, "1")


async def test_a_stream_has_a_most_of_polls(tmp_path: Path, way: Way) -> None:
    """The next one is told when to come again; other streams have their own; who leaves makes room."""
    limits = limited(readers_per_stream_max=2, long_poll_ms=20_000)
    async with serving_streams(stream_app(tmp_path, limits=limits), way) as client:
        await client.create("a")
        await client.create("b")
        async with AsyncExitStack() as stack:
            connections = [await stack.enter_async_context(raw(client.address)) for _ in range(3)]
            for connection in connections[:2]:
                connection.send(asked("GET", "a?offset=now&live=long-poll"))
            connections[2].send(asked("GET", "b?offset=now&live=long-poll"))
            await until(lambda: (client.stream("a").readers, client.stream("b").readers) == (2, 1))
            for live in ("long-poll", "sse"):
                assert _refused(await client.read("a", "now", live=live)) == READERS
            assert (await client.read("a")).status_code == 200
            await client.append("a", b"1")
            await client.append("b", b"1")
            assert [(await connection.answer()).status for connection in connections] == [200, 200, 200]
            connections[0].send(asked("GET", "a?offset=now&live=long-poll"))
            await until(lambda: client.stream("a").readers == 1)
            await client.append("a", b"2")
            assert (await connections[0].answer()).body == b"2"


async def test_a_stream_has_a_most_of_event_readers(tmp_path: Path, way: Way) -> None:
    """As of polls."""
    async with serving_streams(stream_app(tmp_path, limits=limited(readers_per_stream_max=2)), way) as client:
        await client.create("a")
        async with client.events("a") as one, client.events("a") as two:
            for reader in (one, two):
                await reader.next()
            assert client.stream("a").readers == 2
            assert _refused(await client.read("a", live="long-poll")) == READERS
            assert _refused(await client.read("a", live="sse")) == READERS


async def test_appends_have_a_rate(tmp_path: Path, way: Way) -> None:
    """Averaged over ten seconds: that many may come at once, then they are told to wait; time brings new ones."""
    app = stream_app(tmp_path, limits=limited(appends_per_s_max=0.5))
    set_clock(app, NOON_MS)
    async with serving_streams(app, way) as client:
        await client.create("a")
        await client.create("b")
        told = (429, "more than 0.5 appends a second to one stream (appends_per_s_max)", True, "1")
        for now_ms, allowed in ((NOON_MS, 5), (NOON_MS + 3_999, 1), (NOON_MS + 4_000, 1), (NOON_MS + 60_000, 5)):
            set_clock(app, now_ms)
            for _ in range(allowed):
                assert (await client.append("a", b"x")).status_code == 204
            assert _refused(await client.append("a", b"x")) == told
            assert (await client.append("b", b"x")).status_code == 204
        assert BURST_S == 10
        assert (await client.read("a")).content == b"x" * 12


async def test_a_stream_has_a_largest_size(tmp_path: Path, way: Way) -> None:
    """The append that would pass it is refused; smaller ones still fit; the end may always be said."""
    async with serving_streams(stream_app(tmp_path, limits=limited(stream_bytes_max=10)), way) as client:
        await client.create("a", b"1234")
        assert (await client.append("a", b"567890")).status_code == 204
        assert _refused(await client.append("a", b"x")) == _too_large("stream_bytes_max", 11, 10)
        assert (await client.read("a")).content == b"1234567890"
        assert (await client.close("a")).status_code == 204


async def test_a_stream_is_not_born_too_large(tmp_path: Path, way: Way) -> None:
    """Its first content counts."""
    async with serving_streams(stream_app(tmp_path, limits=limited(stream_bytes_max=10)), way) as client:
        assert _refused(await client.ask("PUT", "a", b"12345678901")) == _too_large("stream_bytes_max", 11, 10)


async def test_a_duplicate_needs_no_room(tmp_path: Path, way: Way) -> None:
    """What was stored is stored: its producer, which asks again, must not take it for lost."""
    async with serving_streams(stream_app(tmp_path, limits=limited(stream_bytes_max=10)), way) as client:
        await client.create("a")
        assert (await client.produce("a", b"1234567890", ("p", 0, 0))).status_code == 200
        again = await client.produce("a", b"1234567890", ("p", 0, 0))
        assert (again.status_code, again.headers.get("producer-seq")) == (204, "0")


def _paths_at(home: int, count: int) -> list[str]:
    """Paths of streams whose home this is."""
    return [path for path in map(str, range(2_000)) if home_of(path) == home][:count]


async def test_there_is_a_most_of_streams(tmp_path: Path, way: Way) -> None:
    """Each host counts its share, with forks and what only forks read; who deletes one may make another."""
    limits = limited(streams_max=HOST_COUNT * 2)
    async with serving_streams(stream_app(tmp_path, limits=limits), way) as client:
        first, second, third = _paths_at(7, 3)
        told = (429, "there are 32 streams already (streams_max); delete some first", True, "1")
        await client.create(first)
        await client.create(second, stream_forked_from=f"/v1/stream/{first}")
        assert _refused(await client.ask("PUT", third)) == told
        assert (await client.create(first)).status_code == 200
        await client.ask("DELETE", first)
        assert _refused(await client.ask("PUT", third)) == told
        await client.ask("DELETE", second)
        assert (await client.create(third)).status_code == 201
        assert (await client.create(_paths_at(8, 1)[0])).status_code == 201


# --- limits of the wire

PRODUCER = {"producer-id": "p", "producer-epoch": "0", "producer-seq": "0"}


@pytest.mark.parametrize(
    ("method", "headers", "longer"),
    [
        ("PUT", {"content-type": "text/" + "p" * (CONTENT_TYPE_BYTES_MAX - 5)}, "p"),
        ("PUT", {"stream-ttl": str(NUMBER_MAX)}, "0"),
        ("POST", {"stream-seq": "s" * STREAM_SEQ_BYTES_MAX}, "s"),
        ("POST", PRODUCER | {"producer-id": "p" * PRODUCER_ID_BYTES_MAX}, "p"),
    ],
)
async def test_headers_have_largest_values(
    client: StreamClient, method: str, headers: dict[str, str], longer: str
) -> None:
    """The largest one works, over both ways; one more is 400, not a failure."""
    name = next(name for name in headers if name not in PRODUCER or len(headers[name]) > 1)
    common = {"content-type": "text/plain"}
    if method == "POST":
        await client.create("a")
    refused = await client.ask(method, "a", b"x", {**common, **headers, name: headers[name] + longer})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_request")
    taken = await client.ask(method, "a", b"x", {**common, **headers})
    assert taken.status_code in (200, 201, 204)
    assert (await client.read("a")).content == b"x"


async def test_epochs_and_numbers_have_largest_values(client: StreamClient) -> None:
    """What JavaScript counts to."""
    await client.create("a")
    assert (await client.produce("a", b"x", ("p", NUMBER_MAX, 0))).status_code == 200
    assert (await client.produce("a", b"x", ("p", NUMBER_MAX + 1, 0))).status_code == 400
    gap = await client.produce("a", b"x", ("p", NUMBER_MAX, NUMBER_MAX))
    assert (gap.status_code, gap.headers["producer-received-seq"]) == (409, "9007199254740991")
    assert (await client.produce("a", b"x", ("p", NUMBER_MAX, NUMBER_MAX + 1))).status_code == 400


async def test_a_query_has_a_most_of_fields(client: StreamClient) -> None:
    """One more is 400."""
    await client.create("a", b"x")
    query: dict[str, Any] = {f"x{number}": "" for number in range(QUERY_FIELDS_MAX - 1)}
    assert (await client.read("a", **query)).content == b"x"
    refused = await client.read("a", one="more", **query)
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, "a query has 50 fields at most")


async def test_a_path_has_a_largest_size(server: StreamClient) -> None:
    """In bytes of UTF-8, however it is encoded."""
    for longest in ("p" * STREAM_PATH_BYTES_MAX, "é" * (STREAM_PATH_BYTES_MAX // 2)):
        await server.create(longest, b"x")
        assert (await server.read(longest)).content == b"x"
        for method in ("PUT", "POST", "GET", "DELETE"):
            told = await server.ask(method, longest + "p")
            assert _refused(told) == _too_large("stream_path_bytes_max", 1_025, 1_024)
