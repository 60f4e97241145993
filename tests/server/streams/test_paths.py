"""Streams' paths: any text without control characters, encoded or not; one stream however it is written."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from tests.running import serving
from tests.server.clients import http

from .servers import StreamClient, asked, raw, stream_app

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    "name",
    [
        "chat/1",
        "Zoë/über uns",
        "中文/🙂",
        'a"b<c>',
        "100%",
        "a?b#c",
        "a+b&c=d",
        "..",
        "a/../b",
        ".",
        "-1",
        "now",
        "%2e%2e",
    ],
)
async def test_any_name_is_a_path(client: StreamClient, name: str) -> None:
    """Encoded by its client; what it holds is not resolved, as a file's name would be."""
    for method, body, headers in (
        ("PUT", b"1", {"content-type": "text/plain"}),
        ("POST", b"2", {"content-type": "text/plain"}),
        ("GET", None, {}),
        ("HEAD", None, {}),
    ):
        async with raw(client.address) as connection:
            lines = [f"{key}: {value}" for key, value in headers.items()]
            connection.send(asked(method, quote(client.at(name)), body, *lines))
            answer = await connection.answer(head=method == "HEAD")
            assert answer.status in (200, 201, 204), answer
            if method == "PUT":
                assert answer.headers["location"] == f"http://test{quote(client.prefix + name)}"
            if method == "GET":
                assert answer.body == b"12"
    assert client.stream(name).name == client.at(name)


async def test_a_path_has_one_stream_however_it_is_written(client: StreamClient) -> None:
    """Encoded where it need not be, an encoded slash, small letters of hexadecimal digits, slashes at its end."""
    await client.create("a/é", b"x")
    for written in ("a/%C3%A9", "%61/%c3%a9", "a%2F%C3%A9", "a%2f%C3%A9", "a/%C3%A9/", "a/%C3%A9//"):
        async with raw(client.address) as connection:
            connection.send(asked("GET", client.at(written)))
            assert (await connection.answer()).body == b"x", written
        fork = await client.create("fork", stream_forked_from=client.prefix + written)
        assert fork.headers["stream-next-offset"] == "0000000000000001"


async def test_paths_differ_by_case_and_by_each_character(client: StreamClient) -> None:
    """Also by the two ways in which Unicode writes an accent."""
    names = ["a", "A", "é", "e\u0301", "a ", "a.", "aa"]
    for name in names:
        await client.create(quote(name), name.encode())
    assert [(await client.read(quote(name))).content.decode() for name in names] == names


@pytest.mark.parametrize("name", ["a//b", "//a", "/a", "a%00", "%0A", "a%0D%0Ab", "%7F", "a/%1F/b", "%01", "a/%2F/b"])
@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "HEAD", "DELETE"])
async def test_these_are_no_paths(client: StreamClient, name: str, method: str) -> None:
    """Empty names and control characters: 400, and nothing is made."""
    async with raw(client.address) as connection:
        body = b"x" if method in ("PUT", "POST") else None
        connection.send(asked(method, client.at(name), body, "content-type: text/plain"))
        answer = await connection.answer(head=method == "HEAD")
        assert (answer.status, b'"invalid_name"' in answer.body) == (400, method != "HEAD")


async def test_the_root_is_no_stream(client: StreamClient) -> None:
    """400 with its reason."""
    for path in ("/v1/stream/", "/v1/stream//"):
        answer = await client.web.get(path)
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_name")


async def test_what_is_beside_the_root_is_not_of_streams(client: StreamClient) -> None:
    """404 like any other address."""
    for path in ("/v1/stream", "/v1/streams/a", "/v1", "/v1/strea", "/v1/stream%2Fa"):
        assert (await client.web.get(path)).status_code == 404


@pytest.mark.parametrize("method", ["PATCH", "TRACE", "PROPFIND"])
async def test_other_methods_are_not_for_streams(client: StreamClient, method: str) -> None:
    """405, with the stream unharmed."""
    await client.create("a", b"x")
    answer = await client.ask(method, "a")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
    assert (await client.read("a")).content == b"x"


async def test_streams_under_a_mount(tmp_path: Path) -> None:
    """URLs that answers name, and sources that requests name, are as the client sees them."""
    app = stream_app(tmp_path)
    outer = Starlette(routes=[Mount("/app", app=app)], lifespan=app.lifespan)
    async with serving(outer) as address, http(address) as web:
        made = await web.put("/app/v1/stream/a%20b/c", content=b"1", headers={"content-type": "text/plain"})
        assert made.headers["location"] == f"http://{address}/app/v1/stream/a%20b/c"
        for source in ("/app/v1/stream/a%20b/c", f"http://{address}/app/v1/stream/a%20b/c", "/v1/stream/a%20b/c"):
            fork = await web.put(f"/app/v1/stream/{len(source)}", headers={"stream-forked-from": source})
            assert fork.status_code == 201
            assert (await web.get(f"/app/v1/stream/{len(source)}")).content == b"1"
        assert (await web.get("/v1/stream/a%20b/c")).status_code == 404
