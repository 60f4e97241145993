"""`WS /api/chat/runs`: what `webSocket` of `@tanstack/ai-client` sends and reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room
from tests.running import eventually, serving
from tests.server.apps import counted
from tests.server.clients import http
from tests.server.test_tanstack import message, run_input
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from perdure import ChatRoom, DurableObject, User

pytestmark = pytest.mark.anyio

ACCEPTED = '{"id":"0.0","chunk":{"type":"CUSTOM","name":"run.accepted","value":{}}}'
STARTED = '{"id":"1.0","chunk":{"type":"RUN_STARTED","threadId":"r","runId":"run-1"}}'
FINISHED = (
    '{"id":"7.1","chunk":{"type":"RUN_FINISHED","threadId":"r","runId":"run-1",'
    '"metadata":{"tanstack":{"finishReason":"stop"}}}}'
)


@asynccontextmanager
async def socket(address: str, query: str = "", **options: Any) -> AsyncIterator[ClientConnection]:
    """A client's socket."""
    async with connect(f"ws://{address}/api/chat/runs{query}", proxy=None, **options) as connection:
        yield connection


@asynccontextmanager
async def sockets(folder: Path, room: type[DurableObject], query: str = "", **options: Any) -> AsyncIterator[Any]:
    """A server of rooms, and a socket to it."""
    async with serving(counted(folder, room, **options)) as address, socket(address, query) as connection:
        yield address, connection


async def ask(connection: ClientConnection, text: str = "Hi", **more: Any) -> None:
    """Post a run."""
    await connection.send(json.dumps(run_input(message("m1", text), **more)))


async def frames(connection: ClientConnection) -> list[str]:
    """The frames of a run, to its end."""
    found: list[str] = []
    while not found or json.loads(found[-1]).get("chunk", {}).get("type") not in ("RUN_FINISHED", "RUN_ERROR"):
        found.append(str(await asyncio.wait_for(connection.recv(), 5)))
    return found


async def ended(connection: ClientConnection) -> int | None:
    """Read what comes until the server closes; the code."""
    try:
        while True:
            await asyncio.wait_for(connection.recv(), 5)
    except ConnectionClosed as closed:
        return None if closed.rcvd is None else closed.rcvd.code


async def test_runs_over_one_socket(tmp_path: Path) -> None:
    """Each event is a frame; the socket stays for the next run, and the same run is read again."""
    async with sockets(tmp_path, Echo) as (_, connection):
        await ask(connection)
        found = await frames(connection)
        assert (found[:2], found[-1], len(found)) == ([ACCEPTED, STARTED], FINISHED, 8)
        await ask(connection)
        assert await frames(connection) == found
        await connection.send('{"type":"ping"}')
        await connection.send(json.dumps(run_input(message("m2", "Bye"), run_id="run-2")))
        assert "You said: Bye" in "".join(await frames(connection))


async def test_the_rest_of_a_run(tmp_path: Path) -> None:
    """On a socket of its own, strictly after an event; closed at the end. From -1 on: the whole answer."""
    async with sockets(tmp_path, Echo) as (address, connection):
        await ask(connection)
        whole = await frames(connection)
        async with socket(address, "?threadId=r&runId=run-1&offset=4.0") as rest:
            assert [str(await rest.recv()) for _ in range(3)] == whole[5:]
            assert await ended(rest) == 1000
        async with socket(address, "?runId=id1@r&offset=-1") as joined:
            assert str(await joined.recv()) == ACCEPTED
            assert await ended(joined) == 1000


@pytest.mark.parametrize(
    "query",
    ["?runId=x&offset=-1", "?threadId=r&runId=x&offset=1.0", "?threadId=r&runId=run-1&offset=x", "?offset=-1"],
)
async def test_what_cannot_be_read(tmp_path: Path, query: str) -> None:
    """Refused, with the reason in the close."""
    async with sockets(tmp_path, Echo) as (address, connection):
        await ask(connection)
        await frames(connection)
        async with socket(address, query) as other:
            assert await ended(other) == 1008


async def test_a_refused_run_ends_with_its_reason(tmp_path: Path) -> None:
    """In words; the socket stays."""
    async with sockets(tmp_path, Echo) as (_, connection):
        await ask(connection, " ")
        refused = json.loads(await connection.recv())
        assert refused == {
            "type": "RUN_ERROR",
            "message": "a message must not be empty",
            "code": "bad_request",
            "metadata": {"tanstack": {"threadId": "r", "runId": "run-1"}},
        }
        await ask(connection, "Hi", run_id="run-2")
        assert "You said: Hi" in "".join(await frames(connection))


@pytest.mark.parametrize("data", ["nonsense", "[]", b"\xff"])
async def test_what_is_no_frame_ends_the_socket(tmp_path: Path, data: str | bytes) -> None:
    """Its client is none of ours."""
    async with sockets(tmp_path, Echo) as (_, connection):
        await connection.send(data)
        assert await ended(connection) == 1008


async def test_an_abort_stops_the_answer(tmp_path: Path) -> None:
    """Its run ends, for everyone; the abort of another run stops nothing."""
    led = led_room()
    async with sockets(tmp_path, led) as (address, connection), http(address) as client:
        await ask(connection)
        lead(led, "Hi", "Hel")
        await eventually(lambda: _says(client, "Hel"))
        await connection.send('{"type":"abort","runId":"other"}')
        await connection.send('{"type":"abort","runId":"run-1"}')
        assert json.loads((await frames(connection))[-1])["chunk"]["result"] == {"aborted": True}


async def test_leaving_stops_nothing(tmp_path: Path) -> None:
    """The answer is made to its end, and can be read."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, http(address) as client:
        async with socket(address) as connection:
            await ask(connection)
            lead(led, "Hi", "Hel")
            await eventually(lambda: _says(client, "Hel"))
        lead(led, "Hi", "lo", None)
        async with socket(address, "?threadId=r&runId=run-1&offset=0.0") as rest:
            told = "".join([str(frame) async for frame in rest])
        assert '"delta":"Hel"' in told
        assert '"delta":"lo"' in told


async def test_a_room_of_people(tmp_path: Path) -> None:
    """The run ends without a word."""
    people = type("People", (ChatRoom,), {"model": None})
    async with sockets(tmp_path, people) as (_, connection):
        await ask(connection)
        kinds = [json.loads(frame)["chunk"]["type"] for frame in await frames(connection)]
        assert kinds == ["CUSTOM", "RUN_STARTED", "RUN_FINISHED"]


async def test_the_runs_of_a_socket_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as the limit says are told at a time; the next is refused, until one has ended."""
    monkeypatch.setattr("perdure.server.tanstack_socket.SOCKET_RUNS_MAX", 2)
    led = led_room()
    async with sockets(tmp_path, led) as (_, connection):
        for number in (1, 2, 3):
            await connection.send(json.dumps(run_input(message(f"m{number}", "Hi"), run_id=f"run-{number}")))
        while "RUN_ERROR" not in (frame := str(await asyncio.wait_for(connection.recv(), 5))):
            pass
        assert "socket_runs_max" in frame
        lead(led, "Hi", None)
        lead(led, "Hi", None)
        for _ in range(2):
            await frames(connection)
        lead(led, "Hi", None)
        await connection.send(json.dumps(run_input(message("m3", "Hi"), run_id="run-3")))
        assert '"runId":"run-3"' in (await frames(connection))[-1]


def _by_header(connection: HTTPConnection) -> User | None:
    return {"ann": User("Ann", rooms=["r"]), "bob": User("Bob", rooms=["s"])}.get(
        connection.headers.get("authorization", "")
    )


async def test_the_door_is_kept(tmp_path: Path) -> None:
    """Strangers are sent away; those of other rooms are refused their runs."""
    async with serving(counted(tmp_path, Echo, authenticate=_by_header)) as address:
        async with socket(address) as connection:
            assert await ended(connection) == 1008
        async with socket(address, additional_headers={"authorization": "bob"}) as connection:
            await ask(connection)
            assert json.loads(await connection.recv())["code"] == "forbidden"
        async with socket(address, additional_headers={"authorization": "ann"}) as connection:
            await ask(connection)
            assert "You said: Hi" in "".join(await frames(connection))


async def _says(client: Any, text: str) -> bool:
    return text in (await client.get("/api/chat/r/messages")).text
