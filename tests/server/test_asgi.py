"""The application as a whole: objects' own HTTP and sockets, addresses, errors, starting and stopping."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import pytest
from starlette.applications import Starlette
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Mount
from tests.chat.rooms import Echo
from tests.running import serving, until
from tests.server.apps import counted, served
from tests.server.clients import http, room, user_turn
from websockets.exceptions import ConnectionClosedError, ConnectionClosedOK

from perdure import App, ChatRoom, Connection, DurableObject
from perdure.storage.store import Store

pytestmark = pytest.mark.anyio

NAMES = ["100%", "50%25", "a/b", "a//b", "/", "a%2Fb", "é 😀", "a+b", "a?b#c"]
"""Rooms whose names need care in an address."""


class Board(DurableObject):
    """An object with surfaces of its own."""

    left: ClassVar[list[tuple[int, str]]] = []

    async def on_request(self, request: Any) -> Any:
        if request.path_params.get("path") == "stream":
            return StreamingResponse(self._count(), media_type="text/plain")
        body = (await request.body()).decode()
        self.storage.put("last", body)
        return JSONResponse(
            {
                "board": self.name,
                "method": request.method,
                "path": request.path_params.get("path"),
                "query": dict(request.query_params),
                "body": body,
            }
        )

    async def _count(self) -> AsyncIterator[str]:
        for number in range(3):
            yield f"{number}\n"

    async def on_connect(self, connection: Connection) -> None:
        connection.send(f"welcome to {self.name}, {connection.query}")

    async def on_message(self, connection: Connection, data: str | bytes) -> None:
        if data == "bye":
            connection.close(4001, "as you wish")
        elif data == "break":
            raise ValueError("oops")
        else:
            connection.send(data)

    async def on_error(self, connection: Connection | None, error: Exception) -> None:
        assert connection is not None
        connection.send(f"failed: {error}")

    async def on_close(self, connection: Connection, code: int, reason: str) -> None:
        Board.left.append((code, reason))


class Closed(DurableObject):
    """Has no surface of its own."""


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_an_object_answers_http_requests(tmp_path: Path, method: str) -> None:
    """Below its address, with any method, path, query and body."""
    async with served(counted(tmp_path, Board)) as client:
        response = await client.request(method, "/objects/Board/b/some/path?x=1", content=b"body")
        assert response.json() == {
            "board": "b",
            "method": method,
            "path": "some/path",
            "query": {"x": "1"},
            "body": "body",
        }
        assert (await client.request(method, "/objects/Board/b")).json()["path"] is None


async def test_an_object_may_stream_its_response(tmp_path: Path) -> None:
    """Any ASGI response will do."""
    async with served(counted(tmp_path, Board)) as client:
        assert (await client.get("/objects/Board/b/stream")).text == "0\n1\n2\n"


async def test_an_object_without_http_says_so(tmp_path: Path) -> None:
    """As does a class that is not there."""
    async with served(counted(tmp_path, Closed)) as client:
        response = await client.get("/objects/Closed/c")
        assert (response.status_code, response.json()["error"]) == (
            404,
            {"code": "not_found", "message": "Closed answers no HTTP requests", "retryable": False},
        )
        response = await client.get("/objects/Nothing/c")
        assert (response.status_code, response.json()["error"]) == (
            404,
            {
                "code": "class_not_found",
                "message": "no class 'Nothing' is registered (known: Closed)",
                "retryable": False,
            },
        )


async def test_an_object_has_sockets(tmp_path: Path) -> None:
    """Text and binary frames, its query, errors of its handlers, and both sides' close."""
    Board.left.clear()
    async with serving(counted(tmp_path, Board)) as address:
        async with room(address, "/objects/Board/b", {"colour": "red"}) as client:
            assert await client.socket.recv() == "welcome to b, {'colour': 'red'}"
            for frame in ("text", b"\x00\xff", ""):
                await client.socket.send(frame)
                assert await client.socket.recv() == frame
            await client.socket.send("break")
            assert await client.socket.recv() == "failed: oops"
            await client.socket.send("bye")
            with pytest.raises(ConnectionClosedError) as caught:
                await client.socket.recv()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (4001, "as you wish")
        async with room(address, "/objects/Board/b") as client:
            await client.socket.close(4002, "my own reason")
        await until(lambda: len(Board.left) == 2)
        assert Board.left[1] == (4002, "my own reason")


@pytest.mark.parametrize("name", NAMES)
async def test_a_name_is_one_name_on_every_surface(tmp_path: Path, name: str) -> None:
    """Percent-encoded as one segment of the path, whatever it holds."""
    path = quote(name, safe="")
    app = counted(tmp_path, Echo, Board, pages=True)
    async with serving(app) as address, http(address) as client:
        async with room(address, f"/ws/{path}") as socket:
            await socket.next("init")
            await socket.say("Hi", id="m1")
            await socket.next("complete")
        assert [message.id for message in await app.get(Echo, name).messages()] == ["m1", "id2"]
        for address_of_messages in (f"/api/chat/{path}/messages", f"/rpc/Echo/{path}/messages"):
            method = "POST" if "rpc" in address_of_messages else "GET"
            messages = (await client.request(method, address_of_messages)).json()
            assert (messages["result"] if "rpc" in address_of_messages else messages)[0]["id"] == "m1"
        assert (await client.get(f"/api/chat/{path}/stream")).status_code == 200
        assert (await client.post(f"/api/chat/{path}/stop")).json() == {"success": True, "stopped": False}
        posted = await client.post("/api/chat", json=user_turn("Ho", chat_id=name, message_id="m2"))
        assert "You said: Ho" in posted.text
        assert len(await app.get(Echo, name).messages()) == 4
        assert (await client.get(f"/objects/Board/{path}/more")).json()["board"] == name
        async with room(address, f"/objects/Board/{path}") as socket:
            assert await socket.socket.recv() == f"welcome to {name}, {{}}"
        page = await client.get("/chat", params={"room": name}, follow_redirects=True)
        assert (page.status_code, "You said: Ho" in page.text) == (200, True)


async def test_a_room_in_a_path_of_several_segments(tmp_path: Path) -> None:
    """A socket's address may spell the slash out: nothing comes after the room there."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address, room(address, "/ws/team/red") as client:
        await client.next("init")
        await client.say("Hi", id="m1")
        await client.next("complete")
        assert [message.id for message in await app.get(Echo, "team/red").messages()] == ["m1", "id2"]


async def test_a_mounted_app_serves_below_its_path(tmp_path: Path) -> None:
    """All surfaces, and names with a slash in them, too."""
    app = counted(tmp_path, Echo)
    outer = Starlette(routes=[Mount("/below", app)], lifespan=app.lifespan)
    async with serving(outer) as address, http(address) as client:
        async with room(address, "/below/ws/a%2Fb") as socket:
            await socket.next("init")
            await socket.say("Hi", id="m1")
            await socket.next("complete")
        assert (await client.get("/below/api/chat/a%2Fb/messages")).json()[0]["id"] == "m1"
        assert (await client.get("/below/healthz")).json() == {"status": "ready"}
        assert (await client.get("/healthz")).status_code == 404


async def test_errors_have_one_shape(tmp_path: Path) -> None:
    """JSON for programs, a page for browsers; with the method that would have done."""
    app = counted(tmp_path, Echo, pages=True)
    async with served(app) as client:
        response = await client.get("/nowhere")
        assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")
        page = await client.get("/nowhere", headers={"accept": "text/html,*/*"})
        assert (page.status_code, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert "There is nothing at this address." in page.text
        response = await client.put("/api/chat")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        assert (
            response.content == b'{"error":{"code":"bad_request","message":"Method Not Allowed","retryable":false}}'
        )


async def test_an_app_without_rooms_has_no_chat(tmp_path: Path) -> None:
    """Neither its HTTP routes nor its pages."""
    async with served(counted(tmp_path, Board, pages=True)) as client:
        for path in ("/api/chat/r/messages", "/api/chat/r/stream", "/", "/chat/r"):
            assert (await client.get(path)).status_code == 404, path
        assert (await client.get("/objects/Board/b")).status_code == 200


async def test_the_rooms_class_can_be_chosen(tmp_path: Path) -> None:
    """With several classes of rooms, the first is served, or the one that is named."""

    class Quiet(ChatRoom):
        """People only."""

    async with served(counted(tmp_path / "first", Quiet, Echo)) as client:
        assert (await client.post("/api/chat", json=user_turn("Hi"))).status_code == 422
    async with served(counted(tmp_path / "named", Quiet, Echo, chat=Echo)) as client:
        assert "You said: Hi" in (await client.post("/api/chat", json=user_turn("Hi"))).text


# --- starting and stopping


async def test_a_server_takes_nobody_in_before_its_classes_are_ready(tmp_path: Path) -> None:
    """However long they take: a model's library, a first connection. One that fails ends the start."""

    class Slow(Echo):
        ready = False

        @classmethod
        async def on_server_start(cls) -> None:
            await asyncio.sleep(0.05)
            if cls.ready:
                raise OSError("no such port")
            cls.ready = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("perdure.server.asgi.START_WAIT_MS", 10)
        async with App([Slow], data=tmp_path).lifespan():
            assert Slow.ready
        with pytest.raises(OSError, match="no such port"):
            await App([Slow], data=tmp_path).start()


async def test_a_server_that_recovers_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with a time to come back on every surface; sockets close with 1013; then all is well."""
    monkeypatch.setattr("perdure.server.asgi.START_WAIT_MS", 10)
    recovered = threading.Event()
    start = Store.start

    def slow_start(store: Store) -> None:
        recovered.wait(30)
        start(store)

    monkeypatch.setattr(Store, "start", slow_start)
    app = App([Echo], data=tmp_path)
    async with serving(app) as address, http(address) as client:
        health = await client.get("/healthz")
        assert (health.status_code, health.headers["retry-after"]) == (503, "1")
        assert health.content == b'{"status":"recovering"}'
        for path in ("/api/chat/r/messages", "/", "/metrics", "/objects/Echo/r"):
            response = await client.get(path)
            assert (response.status_code, response.headers["retry-after"]) == (503, "1")
            assert response.json()["error"] == {
                "code": "overloaded",
                "message": "the server is starting; try again in a moment",
                "retryable": True,
            }
        async with room(address) as socket:
            with pytest.raises(ConnectionClosedError) as caught:
                await socket.next()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, "the server is starting")
        recovered.set()
        await until(lambda: app.runtime.ready)
        assert (await client.get("/healthz")).content == b'{"status":"ready"}'
        async with room(address) as socket:
            await socket.next("init")


class Working(ChatRoom):
    """Has work that a stop waits for."""

    released: ClassVar[asyncio.Event]

    async def on_connect(self, connection: Connection) -> None:
        self.background(type(self).released.wait())


async def test_a_server_that_drains_says_so(tmp_path: Path) -> None:
    """Clients are told to come back, new ones are refused, and running work gets its time."""
    Working.released = asyncio.Event()
    app = App([Working], data=tmp_path)
    async with serving(app) as address, http(address) as client, room(address) as socket:
        await socket.next("init")
        stopping = asyncio.create_task(app.stop())
        await until(lambda: app.runtime.draining)
        health = await client.get("/healthz")
        assert (health.status_code, health.headers["retry-after"]) == (503, "1")
        assert health.content == b'{"status":"draining"}'
        response = await client.get("/api/chat/r/messages")
        assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
        assert response.json()["error"]["message"] == "the server is shutting down; try again in a moment"
        async with room(address) as late:
            with pytest.raises(ConnectionClosedError) as caught:
                await late.next()
            assert caught.value.rcvd is not None
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (1013, "the server is shutting down")
        assert not stopping.done()
        Working.released.set()
        await stopping
        assert await socket.next() == {"type": "reconnect"}
        with pytest.raises((ConnectionClosedError, ConnectionClosedOK), match="1012"):
            await socket.next()
