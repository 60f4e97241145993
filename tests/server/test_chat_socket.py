"""`WebSocketChatTransport`'s side of the server: ``/api/chat/ws``."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo, lead, led_room, statuses
from tests.running import eventually, serving, until
from tests.server.apps import counted
from tests.server.clients import user_turn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from perdure import App, ChatRoom, User
from perdure.server import chat_socket

pytestmark = pytest.mark.anyio


class Client:
    """A socket and what came of its requests."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket

    async def send(self, request_id: str, text: str, *, headers: Any = None, **fields: Any) -> None:
        """What the transport sends for a new message."""
        frame = {"type": "send", "requestId": request_id, "headers": headers or {}, "body": {}}
        await self.frame(**frame, **user_turn(text, **fields))

    async def resume(self, request_id: str, chat_id: str = "r") -> None:
        """What it sends for `resumeStream`."""
        await self.frame(type="resume", requestId=request_id, id=chat_id, headers={}, body={})

    async def abort(self, request_id: str) -> None:
        """What it sends for `stop`."""
        await self.frame(type="abort", requestId=request_id)

    async def frame(self, **fields: Any) -> None:
        """Any frame."""
        await self.socket.send(json.dumps(fields))

    async def next(self) -> dict[str, Any]:
        """The next frame."""
        async with asyncio.timeout(5):
            frame: dict[str, Any] = json.loads(await self.socket.recv())
            return frame

    async def until(self, kind: str) -> list[dict[str, Any]]:
        """The frames up to one of this type."""
        frames = [await self.next()]
        while frames[-1]["type"] != kind:
            frames.append(await self.next())
        return frames

    async def until_says(self, text: str) -> list[dict[str, Any]]:
        """The frames up to the delta that says this."""
        frames = [await self.next()]
        while frames[-1].get("chunk", {}).get("delta") != text:
            frames.append(await self.next())
        return frames

    async def close_code(self) -> tuple[int, str]:
        """How the server closed."""
        async with asyncio.timeout(5):
            with contextlib.suppress(ConnectionClosed):
                async for _frame in self.socket:
                    pass
        assert self.socket.close_code is not None
        return self.socket.close_code, self.socket.close_reason or ""


@asynccontextmanager
async def client(address: str, query: str = "", **options: Any) -> AsyncIterator[Client]:
    """A client that is connected."""
    async with connect(f"ws://{address}/api/chat/ws{query}", max_size=None, proxy=None, **options) as socket:
        yield Client(socket)


def chunks(frames: list[dict[str, Any]]) -> list[str]:
    """The types of the chunks in frames, and that they are numbered."""
    told = [frame for frame in frames if frame["type"] == "chunk"]
    assert [frame["sequence"] for frame in told] == list(range(len(told)))
    return [frame["chunk"]["type"] for frame in told]


async def test_a_message_is_answered(tmp_path: Path) -> None:
    """One start, chunks from 0 on, one end, all with the request's id."""
    async with serving(counted(tmp_path, Echo)) as address, client(address) as socket:
        await socket.send("q1", "Hi")
        frames = await socket.until("end")
        assert frames[0] == {"type": "start", "requestId": "q1"}
        assert frames[1] == {
            "type": "chunk",
            "requestId": "q1",
            "sequence": 0,
            "chunk": {"type": "start", "messageId": "id1"},
        }
        assert frames[-1] == {"type": "end", "requestId": "q1"}
        whole = ["start", "start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"]
        assert chunks(frames) == whole
        await socket.resume("q2")
        assert chunks(await socket.until("end")) == whole


async def test_many_chats_share_a_socket(tmp_path: Path) -> None:
    """Each has its own numbers; one that is slow holds no other up."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, client(address) as socket:
        await socket.send("q1", "slow", chat_id="one")
        lead(led, "slow", "Well")
        await socket.until_says("Well")
        await socket.send("q2", "quick", chat_id="two")
        lead(led, "quick", "Here", None)
        frames = await socket.until("end")
        assert {frame["requestId"] for frame in frames} == {"q2"}
        lead(led, "slow", None)
        assert {frame["requestId"] for frame in await socket.until("end")} == {"q1"}


async def test_there_may_be_nothing_to_resume(tmp_path: Path) -> None:
    """In a room that nobody has used; and asking makes none."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address, client(address) as socket:
        await socket.resume("q1")
        assert await socket.next() == {"type": "no-active", "requestId": "q1"}
        assert not app.runtime.exists(app.runtime.object_id(Echo, "r"))


async def test_an_abort_is_a_stop(tmp_path: Path) -> None:
    """For everyone; nothing more is told of the request, and the socket goes on."""
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, client(address) as socket, client(address) as other:
        await socket.send("q1", "Hi")
        lead(led, "Hi", "Well")
        await socket.until_says("Well")
        await other.resume("q9")
        await other.until_says("Well")
        await socket.abort("q1")
        assert [frame["chunk"]["type"] for frame in (await other.until("end"))[:-1]] == ["text-end", "abort"]
        assert await statuses(app.runtime, led) == [("aborted", None)]
        await socket.resume("q2", "nobody")
        assert await socket.next() == {"type": "no-active", "requestId": "q2"}


async def test_an_abort_stops_the_answer_that_was_asked_for(tmp_path: Path) -> None:
    """Not the one that is being made: this one's turn has not come."""
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, client(address) as socket:
        await socket.send("q1", "first")
        lead(led, "first", "Well")
        await socket.until_says("Well")
        await socket.send("q2", "second", message_id="m2")
        assert (await socket.next())["type"] == "start"
        await socket.abort("q2")
        lead(led, "first", None)
        lead(led, "second", "Yes", None)
        await socket.until("end")
        await eventually(lambda: _all_complete(app, led))


async def _all_complete(app: App, led: Any) -> bool:
    return await statuses(app.runtime, led) == [("complete", None), ("complete", None)]


async def test_a_lost_socket_stops_nothing(tmp_path: Path) -> None:
    """The next one resumes, from the first chunk on."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address:
        async with client(address) as socket:
            await socket.send("q1", "Hi")
            lead(led, "Hi", "Well")
            await socket.until_says("Well")
        async with client(address) as socket:
            await socket.resume("q1")
            frames = await socket.until_says("Well")
            lead(led, "Hi", ", hello", None)
            assert chunks(frames + await socket.until("end"))[-1] == "finish"


async def test_a_message_is_taken_though_its_socket_is_lost(tmp_path: Path) -> None:
    """Sent and gone at once: it is answered all the same."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address:
        async with client(address) as socket:
            await socket.send("q1", "Hi")
            socket.socket.transport.abort()
        await eventually(lambda: _all_answered(app))


async def _all_answered(app: App) -> bool:
    return [message.text for message in await app.get(Echo, "r").messages()] == ["Hi", "You said: Hi"]


async def test_a_bug_is_told_as_such(tmp_path: Path) -> None:
    """Nothing of it but that it was; the request does not hang."""

    class Buggy(ChatRoom):
        model = "scripted:echo"

        def submit_message(self, *arguments: Any, **options: Any) -> Any:
            raise ZeroDivisionError("secret")

    async with serving(counted(tmp_path, Buggy)) as address, client(address) as socket:
        await socket.send("q1", "Hi")
        told = await socket.next()
        assert told["type"] == "error"
        assert "secret" not in told["errorText"]
        await socket.resume("q2", "nobody")
        assert (await socket.next())["type"] == "no-active"


async def test_a_subprotocol_is_chosen(tmp_path: Path) -> None:
    """The first one; a browser that offers some does not go on without."""
    async with (
        serving(counted(tmp_path, Echo)) as address,
        client(address, subprotocols=["chat", "token-1"]) as socket,
        client(address) as plain,
    ):
        assert (socket.socket.subprotocol, plain.socket.subprotocol) == ("chat", None)


async def test_the_abort_of_a_resume_is_a_stop(tmp_path: Path) -> None:
    """A moment later: it may be taken back."""
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, client(address) as socket, client(address) as other:
        await socket.send("q1", "Hi")
        lead(led, "Hi", "Well")
        await socket.until_says("Well")
        await other.resume("q1")
        await other.until_says("Well")
        await other.abort("q1")
        assert (await socket.until("end"))[-2]["chunk"] == {"type": "abort"}
        assert await statuses(app.runtime, led) == [("aborted", None)]


async def test_a_resume_that_is_asked_for_again_is_no_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """React's strict mode takes the first one back and asks again at once."""
    monkeypatch.setattr(chat_socket, "RESUME_ABORT_WAIT_MS", 100)
    led = led_room()
    app = counted(tmp_path, led)
    async with serving(app) as address, client(address) as socket, client(address) as other:
        await socket.send("q1", "Hi")
        lead(led, "Hi", "Well")
        await socket.until_says("Well")
        await other.resume("q1")
        await other.until_says("Well")
        await other.abort("q1")
        await other.resume("q2")
        await other.until_says("Well")
        await asyncio.sleep(0.2)
        lead(led, "Hi", None)
        assert (await other.until("end"))[-2]["chunk"]["type"] == "finish"
        assert await statuses(app.runtime, led) == [("complete", None)]


async def test_a_refused_request_is_told_why(tmp_path: Path) -> None:
    """And the socket goes on."""
    async with serving(counted(tmp_path, Echo)) as address, client(address) as socket:
        await socket.send("q1", " ")
        assert await socket.next() == {"type": "error", "requestId": "q1", "errorText": "a message must not be empty"}
        await socket.send("q2", "Hi", chat_id="x" * 513)
        refused = await socket.next()
        assert (refused["type"], refused["requestId"]) == ("error", "q2")
        assert "object_name_bytes_max" in refused["errorText"]
        await socket.send("q3", "Hi")
        assert (await socket.until("end"))[-1]["requestId"] == "q3"


async def test_what_is_no_frame_closes_the_socket(tmp_path: Path) -> None:
    """With the reason; so does a request id that is in use."""
    led = led_room()
    async with serving(counted(tmp_path, led)) as address:
        async with client(address) as socket:
            await socket.socket.send("hello")
            code, reason = await socket.close_code()
            assert code == 1008
            assert reason.startswith("the frame is not valid JSON")
        async with client(address) as socket:
            await socket.send("q1", "Hi")
            await socket.send("q1", "Hi")
            assert await socket.close_code() == (1008, "this `requestId` is being answered already")


async def test_a_socket_has_so_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one is refused; when one has ended there is room again."""
    monkeypatch.setattr(chat_socket, "SOCKET_REQUESTS_MAX", 2)
    led = led_room()
    async with serving(counted(tmp_path, led)) as address, client(address) as socket:
        for number in (1, 2):
            await socket.send(f"q{number}", "Hi", chat_id=f"r{number}")
        await until(lambda: len(led.contexts) == 2)
        await socket.resume("q3", "r1")
        refused = await socket.until("error")
        assert refused[-1]["errorText"] == "this socket has 2 requests already (socket_requests_max)"
        lead(led, "Hi", None)
        await socket.until("end")
        await socket.resume("q4", "nobody")
        assert (await socket.until("no-active"))[-1]["requestId"] == "q4"


async def _by_header(connection: HTTPConnection) -> User | None:
    names = {"ann": User("Ann", rooms=["ann"])}
    return names.get(connection.headers.get("authorization", ""))


async def test_each_request_passes_the_door(tmp_path: Path) -> None:
    """By the handshake's headers, else by its own; and into the rooms that the user may enter."""
    app = counted(tmp_path, Echo, authenticate=_by_header)
    async with serving(app) as address:
        async with client(address, additional_headers={"authorization": "ann"}) as socket:
            await socket.send("q1", "Hi", chat_id="ann")
            await socket.until("end")
            await socket.send("q2", "Hi", chat_id="bob")
            assert (await socket.next())["errorText"] == "you may not enter this room"
        async with client(address) as socket:
            await socket.send("q1", "Hi", chat_id="ann")
            assert (await socket.next())["errorText"] == "sign in to use this"
            await socket.send("q2", "Again", chat_id="ann", message_id="m2", headers={"Authorization": "ann"})
            await socket.until("end")
        messages = await app.get(Echo, "ann").messages()
        assert [message.metadata for message in messages if message.role == "user"] == [{"user": "Ann"}] * 2


async def test_pages_of_other_sites_may_not_connect(tmp_path: Path) -> None:
    """A browser says where it comes from."""
    app = counted(tmp_path, Echo)
    async with serving(app) as address, client(address, origin="https://evil.example") as socket:
        code, reason = await socket.close_code()
        assert code == 1008
        assert reason.startswith("pages of https://evil.example may not connect")


async def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    """`?target=` is ai6 or ai7."""
    async with serving(counted(tmp_path, Echo)) as address, client(address, "?target=ai5") as socket:
        assert await socket.close_code() == (1008, "`target` is one of ai6, ai7, not 'ai5'")
