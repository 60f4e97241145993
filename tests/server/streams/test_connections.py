"""Connections: requests in a row, in halves, of old clients; and which of them go past ASGI."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure.server.streams import accelerator

from .servers import JSON, StreamClient, Way, asked, limited, raw, serving_streams, stream_app

pytestmark = pytest.mark.anyio

TEXT = "content-type: text/plain"


async def test_hot_requests_go_past_asgi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Appends and reads of free-standing streams, and no others; switched off, none."""
    taken: list[str] = []

    class Watched(accelerator.FastExchange):
        def __init__(self, protocol: accelerator.StreamHttpProtocol, method: str, *rest: object) -> None:
            super().__init__(protocol, method, *rest)  # type: ignore[arg-type]
            taken.append(method)

    monkeypatch.setattr(accelerator, "FastExchange", Watched)
    for setting, expected in (("1", ["POST", "GET", "GET", "GET"]), ("0", [])):
        taken.clear()
        monkeypatch.setenv("PERDURE_ACCELERATOR", setting)
        async with serving_streams(stream_app(tmp_path), "accelerated" if setting == "1" else "asgi") as client:
            await client.create("a")
            assert accelerator.http_protocol(client.app.stream_surface) != ("httptools" if setting == "1" else None)
            assert (await client.append("a", b"1")).status_code == 204
            assert (await client.read("a")).status_code == 200
            assert (await client.read("a", "now", live="long-poll")).status_code == 204
            async with client.events("a") as events:
                await events.next()
            await client.ask("HEAD", "a")
            await client.read("a", headers={"origin": f"http://{client.address}"})
            await client.read("%61")
            await client.ask("DELETE", "a")
        assert taken == expected


async def test_requests_may_be_sent_in_a_row(client: StreamClient) -> None:
    """Before the first is answered: each is answered, in order."""
    a, b = client.at("a"), client.at("b")
    async with raw(client.address) as connection:
        connection.send(
            asked("PUT", a, b"", TEXT),
            *(asked("POST", a, b"%d" % number, TEXT) for number in range(5)),
            asked("GET", a),
            asked("HEAD", a),
            asked("GET", b),
            asked("GET", f"{a}?offset=now&live=long-poll"),
            asked("POST", a, b"!", TEXT, "stream-closed: true"),
            asked("GET", a),
            asked("DELETE", a),
        )
        statuses = [(await connection.answer()).status for _ in range(6)]
        assert statuses == [201, 204, 204, 204, 204, 204]
        assert (await connection.answer()).body == b"01234"
        assert (await connection.answer(head=True)).headers["stream-next-offset"] == f"{5:016}"
        assert (await connection.answer()).status == 404
        # The poll is in front of the append that it could tell of, and waits its time.
        assert (await connection.answer()).status == 204
        closed = await connection.answer()
        assert (closed.status, closed.headers["stream-closed"]) == (204, "true")
        assert (await connection.answer()).body == b"01234!"
        assert (await connection.answer()).status == 204


async def test_events_end_before_the_next_answer(client: StreamClient) -> None:
    """A body of events has its end, and the connection goes on."""
    await client.create("a", b"1", stream_closed="true")
    async with raw(client.address) as connection:
        connection.send(asked("GET", f"{client.at('a')}?offset=-1&live=sse"), asked("GET", client.at("a")))
        assert b'"streamClosed":true' in (await connection.answer()).body
        assert (await connection.answer()).body == b"1"
        connection.send(asked("GET", client.at("a")))
        assert (await connection.answer()).body == b"1"


async def test_a_request_may_come_in_pieces(client: StreamClient) -> None:
    """Byte by byte."""
    whole = asked("PUT", client.at("a"), b'[{"n":1}]', f"content-type: {JSON}") + asked("GET", client.at("a"))
    async with raw(client.address) as connection:
        for at in range(len(whole)):
            connection.send(whole[at : at + 1])
            await asyncio.sleep(0)
        assert (await connection.answer()).status == 201
        assert (await connection.answer()).body == b'[{"n":1}]'


async def test_a_body_may_come_in_chunks(client: StreamClient) -> None:
    """Its size unknown before."""
    await client.create("a")
    async with raw(client.address) as connection:
        for _ in range(2):
            head = asked("POST", client.at("a"), None, TEXT, "transfer-encoding: chunked")
            connection.send(head, b"3\r\nabc\r\n")
            await asyncio.sleep(0.01)
            connection.send(b"2\r\nde\r\n0\r\n\r\n")
            assert (await connection.answer()).status == 204
    assert (await client.read("a")).content == b"abcdeabcde"


async def test_a_request_that_breaks_off_is_none(client: StreamClient) -> None:
    """An append whose body never came whole is not stored."""
    await client.create("a")
    async with raw(client.address) as connection:
        connection.send(asked("POST", client.at("a"), b"0123456789", TEXT)[:-4])
        await asyncio.sleep(0.05)
    await client.append("a", b"after")
    assert (await client.read("a")).content == b"after"


async def test_a_client_may_wait_to_be_asked_for_its_body(client: StreamClient) -> None:
    """``Expect: 100-continue``."""
    await client.create("a")
    async with raw(client.address) as connection:
        connection.send(asked("POST", client.at("a"), b"x", TEXT, "expect: 100-continue")[:-1])
        assert await connection.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.send(b"x")
        assert (await connection.answer()).status == 204


@pytest.mark.parametrize(
    ("version", "header", "stays"),
    [
        *(("1.1", "x: y", True), ("1.1", "connection: keep-alive", True), ("1.1", "connection: close", False)),
        *(("1.0", "x: y", False), ("1.0", "connection: close", False)),
    ],
)
async def test_connections_end_as_their_clients_want(
    client: StreamClient, version: str, header: str, stays: bool
) -> None:
    """HTTP/1.0 and ``Connection: close`` end after the answer, which is whole."""
    await client.create("a", b"x" * 300_000)
    for request in (
        asked("GET", client.at("a"), None, header, version=version),
        asked("POST", client.at("b"), b"x", TEXT, header, version=version),
        asked("HEAD", client.at("a"), None, header, version=version),
    ):
        async with raw(client.address) as connection:
            connection.send(request)
            head = request.startswith(b"HEAD")
            answer = await connection.answer(head=head)
            assert answer.status == (404 if request.startswith(b"POST") else 200)
            assert not request.startswith(b"GET") or answer.body == b"x" * 300_000
            if not stays:
                assert await connection.ended()
            else:
                connection.send(asked("HEAD", client.at("a")))
                assert (await connection.answer(head=True)).status == 200


async def test_events_over_a_connection_that_ends(client: StreamClient) -> None:
    """The body is whole before the end."""
    await client.create("a", b"1", stream_closed="true")
    async with raw(client.address) as connection:
        connection.send(asked("GET", f"{client.at('a')}?offset=-1&live=sse", None, "connection: close"))
        assert b'"streamClosed":true' in (await connection.answer()).body
        assert await connection.ended()


async def test_a_body_that_is_announced_too_large_is_not_kept(tmp_path: Path, way: Way) -> None:
    """413; over ASGI before it comes, else with its first byte too many; then the connection goes on."""
    async with serving_streams(stream_app(tmp_path, limits=limited(append_bytes_max=1_000)), way) as client:
        await client.create("a")
        async with raw(client.address) as connection:
            connection.send(asked("POST", "a", bytes(1_001), TEXT)[:-1_001])
            connection.send(bytes(1_001))
            assert (await connection.answer()).status == 413
            connection.send(asked("GET", "a"))
            assert (await connection.answer()).body == b""
        async with raw(client.address) as connection:
            connection.send(asked("PUT", "b", bytes(5_000), TEXT)[:-5_000])
            assert (await connection.answer()).status == 413


async def test_an_idle_connection_is_closed(tmp_path: Path, way: Way) -> None:
    """After the server's time for it, counted from the last answer; not while a poll waits."""
    limits = limited(long_poll_ms=600)
    async with serving_streams(stream_app(tmp_path, limits=limits), way, timeout_keep_alive=0.3) as client:
        await client.create("a")
        async with raw(client.address) as connection:
            connection.send(asked("GET", "a?offset=now&live=long-poll"))
            assert (await connection.answer()).status == 204
            started = asyncio.get_running_loop().time()
            assert await connection.ended()
            assert 0.25 < asyncio.get_running_loop().time() - started < 5
