"""Bad input gets its clear error; nobody else notices, nothing is lost (P6)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.chat.rooms import lead, led_room
from tests.running import HURRIED, serving
from tests.server.clients import Room, http, room, user_turn
from websockets.exceptions import ConnectionClosedError, InvalidHandshake

from perdure import App, ChatRoom

pytestmark = pytest.mark.anyio

MEBIBYTE = 1024 * 1024


class Echo(ChatRoom):
    """Says back what it hears."""

    model = "scripted:echo"


@pytest.fixture(scope="module")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server of echoing rooms, for all tests here: none can harm it."""
    async with serving(App([Echo], data=tmp_path_factory.mktemp("data"), limits=HURRIED)) as at:
        yield at


async def _still_works(client: Room, text: str = "Hello") -> None:
    """The connection takes a message and shows its answer."""
    await client.say(text)
    assert (await client.next("message"))["message"]["content"] == text
    assert (await client.next("complete"))["content"] == f"You said: {text}"


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ("", "the frame is not valid JSON: Input data was truncated"),
        ("{", "the frame is not valid JSON: Input data was truncated"),
        ("nonsense", "the frame is not valid JSON: JSON is malformed: invalid character (byte 4)"),
        ("[]", "a frame is a JSON object, not an array"),
        ("null", "a frame is a JSON object, not null"),
        ("7", "a frame is a JSON object, not a number"),
        ("{}", "a frame has a `type`, and it is text"),
        ('{"type":7}', "a frame has a `type`, and it is text"),
        (
            '{"type":"dance"}',
            "there is no frame of type 'dance'; a client sends message, edit, regenerate, branch, approve, result, "
            "typing, stop, retry or ping",
        ),
        ('{"type":"message"}', "a message has `content`, and it is text"),
        ('{"type":"message","content":{"a":1}}', "a message has `content`, and it is text"),
        ('{"type":"message","content":" \\n"}', "a message must not be empty"),
        (
            '{"type":"message","content":"x","id":5}',
            "a message's `id`, where there is one, is text that is not empty",
        ),
        ('{"type":"message","content":"x","user":[]}', None),
        (b"\xff\xfe{}", None),
        (b'{"type":"message","content":"\xff"}', "the frame is not valid UTF-8 text"),
        ("[" * 100_000, None),
    ],
)
async def test_a_malformed_frame_is_told_to_its_sender_only(
    address: str, frame: str | bytes, message: str | None
) -> None:
    """The connection stays open and works on; the other client sees nothing of it."""
    async with room(address) as bad, room(address) as other:
        await bad.next("init")
        await other.next("init")
        await bad.socket.send(frame)
        error = await bad.next()
        assert (error["type"], error["code"], error["retryable"]) == ("error", "bad_request", False)
        assert message is None or error["message"] == message
        await _still_works(bad)
        await other.next("complete")
        assert "error" not in {seen["type"] for seen in other.frames}


async def test_invalid_utf8_in_a_text_frame_closes_that_connection(address: str) -> None:
    """The WebSocket protocol demands it: code 1007. Others go on."""
    async with room(address) as bad, room(address) as other:
        await bad.next("init")
        await other.next("init")
        async with bad.socket.send_context():
            bad.socket.protocol.send_text(b"\xff\xfe")
        with pytest.raises(ConnectionClosedError) as caught:
            await bad.next()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1007
        await _still_works(other)


async def test_a_message_has_a_largest_size(address: str) -> None:
    """1 MiB of text is taken, one byte more is refused by name; over both surfaces."""
    fits, above = "x" * MEBIBYTE, "x" * (MEBIBYTE + 1)
    refusal = "message_bytes_max allows 1,048,576 at most, this has 1,048,577"
    async with room(address, "/ws/a") as client, http(address) as web:
        await client.next("init")
        await client.say(above, id="big")
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", "limit_exceeded")
        assert error["message"].startswith("message_bytes_max allows 1,048,576 at most")
        answer = await web.post("/api/chat", json=user_turn(above, chat_id="b"))
        assert answer.status_code == 413
        assert answer.json() == {"error": {"code": "limit_exceeded", "message": refusal, "retryable": False}}
        answer = await web.post("/api/chat", json=user_turn(fits, chat_id="b"))
        assert answer.status_code == 200
        await client.say("x" * (MEBIBYTE - 100))
        assert len((await client.next("message"))["message"]["content"]) == MEBIBYTE - 100


@pytest.mark.parametrize(
    ("name", "code", "status"),
    [
        # The websockets library refuses lines of more than 8,192 bytes itself: see the next test.
        ("x" * 8_000, "limit_exceeded", 413),
        ("a\x00b", "invalid_name", 400),
        ("a\nb", "invalid_name", 400),
        ("\x7f", "invalid_name", 400),
        ("é" * 257, "limit_exceeded", 413),
    ],
)
async def test_a_name_that_cannot_be_is_refused_everywhere(address: str, name: str, code: str, status: int) -> None:
    """Over WebSocket (error frame, then close 1008), and HTTP."""
    path = quote(name, safe="")
    async with room(address, f"/ws/{path}") as client:
        error = await client.next()
        assert (error["type"], error["code"]) == ("error", code)
        with pytest.raises(ConnectionClosedError) as caught:
            await client.next()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1008
    async with http(address) as web:
        answers = [
            await web.post("/api/chat", json=user_turn("Hi", chat_id=name)),
            await web.get(f"/api/chat/{path}/stream"),
            await web.get(f"/api/chat/{path}/messages"),
            await web.post(f"/api/chat/{path}/stop"),
            await web.post(f"/rpc/Echo/{path}/messages"),
        ]
    assert [(answer.status_code, answer.json()["error"]["code"]) for answer in answers] == [(status, code)] * 5


async def test_a_name_of_ten_thousand_characters(address: str) -> None:
    """Over HTTP the common error; over WebSocket no connection. Others notice nothing."""
    name = "x" * 10_000
    async with room(address, "/ws/other") as other, http(address) as web:
        await other.next("init")
        answer = await web.post("/api/chat", json=user_turn("Hi", chat_id=name))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "limit_exceeded")
        answer = await web.get(f"/api/chat/{name}/stream")
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "limit_exceeded")
        with pytest.raises((TimeoutError, InvalidHandshake)):
            async with room(address, f"/ws/{name}", open_timeout=0.5):
                pass
        await _still_works(other)


async def test_the_longest_name_and_strange_letters_are_fine(address: str) -> None:
    """512 bytes; emoji, blanks, slashes, dots and quotes are part of a name."""
    for name in ("x" * 512, "😀 the room", "a/b", "../../etc/passwd", "'; DROP TABLE messages; --", "%2e"):
        async with room(address, f"/ws/{quote(name, safe='')}") as client:
            await client.next("init")
            await _still_works(client)


async def test_an_unknown_address_is_told(address: str) -> None:
    """No room there: an error frame and close 1008; 404 over HTTP."""
    for path in ("/ws", "/ws/", "/nowhere", "/a/b/c", "/objects/Nothing/x"):
        async with room(address, path) as client:
            error = await client.next()
            assert error["code"] == ("class_not_found" if "objects" in path else "not_found"), path
            with pytest.raises(ConnectionClosedError):
                await client.next()
    async with http(address) as web:
        answer = await web.get("/nowhere")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
        answer = await web.put("/api/chat")
        assert answer.status_code == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff",
        b"{}",
        b'{"id":"7"}',
        b'{"id":"7","messages":[]}',
        b'{"id":"7","messages":{}}',
        b'{"id":"7","messages":[7]}',
        b'{"id":"7","messages":[{"role":"user"}]}',
        b'{"id":"7","messages":[{"role":"king","parts":[]}]}',
        b'{"id":"7","messages":[{"role":"user","parts":[{"type":"text"}]}]}',
        b'{"id":"7","messages":[{"role":"user","parts":[{"type":"text","text":" "}]}]}',
        b'{"id":"7","trigger":"explode","messages":[{"role":"user","parts":[{"type":"text","text":"x"}]}]}',
        b'{"id":7,"messages":[{"role":"user","parts":[{"type":"text","text":"x"}]}]}',
        b'{"id":"","messages":[{"role":"user","parts":[{"type":"text","text":"x"}]}]}',
        b"[" * 100_000,
    ],
)
async def test_a_body_of_the_wrong_shape_is_refused(address: str, body: bytes) -> None:
    """400 with the common error shape; no room is made."""
    async with http(address) as web:
        answer = await web.post("/api/chat", content=body)
        assert answer.status_code == 400
        error = answer.json()["error"]
        assert (error["code"], error["retryable"]) == ("bad_request", False)
        assert error["message"]
        assert (await web.get("/api/chat/7/messages")).json() == []


async def test_a_body_has_a_largest_size(address: str) -> None:
    """Refused by its announced length, before it is read."""
    async with http(address) as web:
        answer = await web.post("/api/chat", content=b" " * (32 * MEBIBYTE + 1))
        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "limit_exceeded")
        answer = await web.post("/rpc/Echo/r/messages", content=b" " * (4 * MEBIBYTE + 1))
        assert answer.status_code == 413


async def test_ten_thousand_messages_from_one_client(tmp_path: Path) -> None:
    """A thousand wait for their turn, the rest are refused by name; none is lost, the other client works on."""
    led = led_room()
    async with serving(App([led, Echo], data=tmp_path, limits=HURRIED)) as address:
        async with room(address) as flood, room(address, "/objects/Echo/other") as other:
            await flood.next("init")
            await other.next("init")

            async def send() -> None:
                for number in range(10_000):
                    await flood.say("x", id=f"m{number}")

            sending = asyncio.create_task(send())
            taken: list[str] = []
            refused: list[tuple[str, str | None]] = []
            while len(taken) + len(refused) < 10_000:
                frame = await flood.next()
                if frame["type"] == "message" and frame["message"]["role"] == "user":
                    taken.append(frame["message"]["id"])
                elif frame["type"] == "error":
                    refused.append((frame["code"], frame.get("id")))
                if len(taken) == 500:
                    await _still_works(other, "Are you there?")
            await sending
            assert len(taken) == 1_001
            assert {code for code, _ in refused} <= {"limit_exceeded", "overloaded"}
        async with http(address) as web:
            stored = (await web.get("/api/chat/r/messages?limit=1000")).json()
            newest = [message["id"] for message in stored if message["role"] == "user"]
            assert newest == taken[-len(newest) :]
            assert len(newest) >= 999


async def test_a_client_that_never_reads_is_closed_and_can_resume(tmp_path: Path) -> None:
    """The others keep getting their frames; what waits for it is bounded; by its offset it misses nothing."""
    led = led_room()
    limits = replace(HURRIED, connection_buffer_bytes_max=256 * 1024)
    app = App([led], data=tmp_path, limits=limits)
    piece = "x" * 10_000
    async with serving(app) as address:
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        host, port = address.split(":")
        small.setblocking(False)
        await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
        async with room(address, query={"delta": "1"}) as reader:
            await reader.next("init")
            async with room(address, query={"delta": "1"}, sock=small, max_queue=1, compression=None) as slow:
                await slow.next("init")
                await app.get(led, "r").submit("Hi")
                for count in range(7, 701, 7):  # not all at once: pieces are joined under load
                    lead(led, "Hi", *([piece] * 7))
                    while reader.delta_count < 10_000 * count:
                        await reader.next(timeout_s=10)
                instance = app.runtime.slot(app.runtime.object_id(led, "r"))
                transports = [connection.transport for connection in instance.connections.everyone()]
                waiting = sorted(transport._queued_bytes for transport in transports)  # type: ignore[attr-defined]
                assert waiting[-1] <= 256 * 1024 + 20_000
                assert [transport.overflowed for transport in transports] == [False, True]  # type: ignore[attr-defined]
                with pytest.raises(ConnectionClosedError) as caught:
                    await _read_to_the_end(slow)
                assert caught.value.rcvd is not None
                assert caught.value.rcvd.code == 1013
                assert "connection_buffer_bytes_max" in caught.value.rcvd.reason
                offset, seen = slow.offset, slow.delta_text
            async with room(address, query={"delta": "1", "offset": offset}) as again:
                lead(led, "Hi", "the end", None)
                assert (await again.next())["type"] == "resume"
                complete = await again.next("complete", timeout_s=10)
                assert seen + again.delta_text == complete["content"] == piece * 700 + "the end"


async def test_one_room_has_so_many_connections(tmp_path: Path) -> None:
    """The next one is told and closed with 1013; the others stay."""
    limits = replace(HURRIED, connections_per_object_max=2)
    async with serving(App([Echo], data=tmp_path, limits=limits)) as address:
        async with room(address) as one, room(address) as two, room(address) as three:
            await one.next("init")
            await two.next("init")
            error = await three.next()
            assert (error["code"], error["retryable"]) == ("overloaded", True)
            assert "connections_per_object_max" in error["message"]
            with pytest.raises(ConnectionClosedError) as caught:
                await three.next()
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1013
            await _still_works(one)


async def _read_to_the_end(client: Room) -> None:
    while True:
        await client.next(timeout_s=10)
