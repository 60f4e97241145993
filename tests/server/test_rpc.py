"""``POST /rpc/{class}/{name}/{method}``: arguments in, results, streams and errors out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest
from tests.running import until
from tests.server.apps import counted, served

from perdure import DurableObject, PerdureError, callable

pytestmark = pytest.mark.anyio


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Busy(PerdureError):
    """It is busy."""

    code = "busy"
    status = 503
    retryable = True


class Desk(DurableObject):
    """Methods of every kind."""

    closed = 0

    @callable
    async def add(self, a: int, b: int = 2) -> int:
        return a + b

    @callable
    def join(self, *words: str, **named: int) -> list[Any]:
        return [list(words), named]

    @callable
    async def move(self, point: Point) -> Point:
        return Point(point.x + 1, point.y)

    @callable
    async def remember(self, value: Any) -> None:
        self.storage.put("value", value)

    @callable
    async def recall(self) -> Any:
        return self.storage.get("value")

    @callable
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(1, to + 1):
            yield number

    @callable
    async def count_and_fail(self) -> AsyncIterator[str]:
        yield "one\ntwo"
        raise Busy

    @callable
    async def wait(self) -> AsyncIterator[str]:
        try:
            yield "waiting"
            await asyncio.Event().wait()
        finally:
            Desk.closed += 1

    @callable
    async def refuse(self) -> None:
        raise Busy

    @callable
    async def fail(self) -> None:
        raise ValueError("oops")

    @callable
    async def show(self) -> object:
        return object()

    async def hidden(self) -> None:
        """Not marked."""


@pytest.fixture(scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a server of desks, for all tests here."""
    async with served(counted(tmp_path_factory.mktemp("data"), Desk)) as http:
        yield http


@pytest.mark.parametrize(
    ("method", "body", "answer"),
    [
        ("add", b"[1]", b'{"result":3}'),
        ("add", b" [1, 10] ", b'{"result":11}'),
        ("add", b'{"b": 1, "a": 1}', b'{"result":2}'),
        ("join", b"", b'{"result":[[],{}]}'),
        ("join", b'["a","b"]', b'{"result":[["a","b"],{}]}'),
        ("join", b'{"a":1}', b'{"result":[[],{"a":1}]}'),
        ("move", b'[{"x":1,"y":7}]', b'{"result":{"x":2,"y":7}}'),
        ("remember", b'[{"any":["thing"]}]', b'{"result":null}'),
    ],
)
async def test_a_call_has_its_result(client: httpx2.AsyncClient, method: str, body: bytes, answer: bytes) -> None:
    """Arguments by position, by name, or none; converted to the annotated types."""
    response = await client.post(f"/rpc/Desk/d/{method}", content=body)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.content == answer


async def test_calls_reach_the_named_object(client: httpx2.AsyncClient) -> None:
    """And no other."""
    await client.post("/rpc/Desk/a/remember", json=["mine"])
    assert (await client.post("/rpc/Desk/a/recall")).json() == {"result": "mine"}
    assert (await client.post("/rpc/Desk/b/recall")).json() == {"result": None}


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "message"),
    [
        ("Desk/d/add", b'["1"]', 422, "bad_arguments", "add: argument a: Expected `int`, got `str`"),
        ("Desk/d/add", b"[]", 422, "bad_arguments", "add: missing a required argument: 'a'"),
        ("Desk/d/add", b"[1,2,3]", 422, "bad_arguments", "add: too many positional arguments"),
        ("Desk/d/add", b'{"a":1,"c":1}', 422, "bad_arguments", "add: got an unexpected keyword argument 'c'"),
        ("Desk/d/add", b'{"self":1}', 422, "bad_arguments", "add: missing a required argument: 'a'"),
        (
            "Desk/d/join",
            b'["a",1]',
            422,
            "bad_arguments",
            "join: argument words: Expected `str`, got `int` - at `$[1]`",
        ),
        (
            "Desk/d/move",
            b'[{"y":1}]',
            422,
            "bad_arguments",
            "move: argument point: Object missing required field `x`",
        ),
        ("Desk/d/add", b"{", 400, "bad_request", "the body is not valid JSON: Input data was truncated"),
        ("Desk/d/add", b'["\xff"]', 400, "bad_request", "the body is not valid UTF-8 text"),
        ("Desk/d/add", b"[" * 100_000, 400, "bad_request", "the body is nested too deeply"),
        (
            "Desk/d/add",
            b"1",
            400,
            "bad_request",
            "the body is a JSON array of arguments or an object of named ones",
        ),
        ("Desk/d/nothing", b"", 404, "method_not_found", "Desk has no callable method 'nothing'"),
        ("Desk/d/hidden", b"", 404, "method_not_found", "Desk has no callable method 'hidden'"),
        ("Desk/d/__init__", b"", 404, "method_not_found", "Desk has no callable method '__init__'"),
        ("Desk/d/storage", b"", 404, "method_not_found", "Desk has no callable method 'storage'"),
        ("Table/d/add", b"", 404, "class_not_found", "no class 'Table' is registered (known: Desk)"),
        ("Desk/d/fail", b"", 500, "internal_error", "ValueError: oops"),
        ("Desk/d/show", b"", 500, "internal_error", "TypeError: Encoding objects of type object is unsupported"),
    ],
)
async def test_what_cannot_be_called_is_explained(
    client: httpx2.AsyncClient, path: str, body: bytes, status: int, code: str, message: str
) -> None:
    """With a status and a code; a call that was refused did not reach the object."""
    response = await client.post(f"/rpc/{path}", content=body)
    assert response.status_code == status
    assert response.json() == {"error": {"code": code, "message": message, "retryable": False}}


async def test_an_error_of_the_objects_own_is_told_as_it_is(client: httpx2.AsyncClient) -> None:
    """Its code, its status, and when to try again."""
    response = await client.post("/rpc/Desk/d/refuse")
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    assert response.content == b'{"error":{"code":"busy","message":"It is busy.","retryable":true}}'


async def test_only_post_calls(client: httpx2.AsyncClient) -> None:
    """A link must not change anything."""
    response = await client.get("/rpc/Desk/d/recall")
    assert (response.status_code, response.headers["allow"]) == (405, "POST")
    assert response.json()["error"]["message"] == "Method Not Allowed"


async def test_an_async_generator_streams(client: httpx2.AsyncClient) -> None:
    """One JSON value an event, then ``done``."""
    response = await client.post("/rpc/Desk/d/count", json=[3])
    assert response.headers["content-type"] == "text/event-stream"
    assert response.content == b"data: 1\n\ndata: 2\n\ndata: 3\n\nevent: done\ndata: {}\n\n"
    empty = await client.post("/rpc/Desk/d/count", json={"to": 0})
    assert empty.content == b"event: done\ndata: {}\n\n"


async def test_a_streams_arguments_are_checked_before_it_begins(client: httpx2.AsyncClient) -> None:
    """So that the status can still tell."""
    response = await client.post("/rpc/Desk/d/count", json=["many"])
    assert response.status_code == 422
    assert response.json()["error"]["message"] == "count: argument to: Expected `int`, got `str`"


async def test_an_error_amid_a_stream_is_its_last_event(client: httpx2.AsyncClient) -> None:
    """After the values that came before it; no ``done`` follows."""
    response = await client.post("/rpc/Desk/d/count_and_fail")
    assert response.content == (
        b'data: "one\\ntwo"\n\n'
        b'event: error\ndata: {"error":{"code":"busy","message":"It is busy.","retryable":true}}\n\n'
    )


async def test_a_reader_that_leaves_ends_the_generator(client: httpx2.AsyncClient) -> None:
    """Nobody would hear the rest; the object goes on."""
    Desk.closed = 0
    async with client.stream("POST", "/rpc/Desk/d/wait") as response:
        async for piece in response.aiter_bytes():
            assert piece == b'data: "waiting"\n\n'
            break
    await until(lambda: Desk.closed == 1)
    assert (await client.post("/rpc/Desk/d/add", json=[1])).json() == {"result": 3}
