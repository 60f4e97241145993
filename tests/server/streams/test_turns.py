"""A room's answers as streams: ``/v1/stream/rooms/{room}/turns/{turn}``, read by the same code."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest
from tests.chat.rooms import Echo, Led, lead, led_room
from tests.running import eventually, hibernated, until
from tests.server.apps import counted
from tests.server.clients import user_turn

from perdure import App

from .servers import JSON, StreamClient, Way, limited, serving_streams

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def way() -> Way:
    """The accelerator leaves rooms alone; both ways are the same here."""
    return "accelerated"


CHUNKS = [
    {"type": "start", "messageId": "id1"},
    {"type": "start-step"},
    {"type": "text-start", "id": "text-1-1"},
    {"type": "text-delta", "id": "text-1-1", "delta": "You said: Hi"},
    {"type": "text-end", "id": "text-1-1"},
    {"type": "finish-step"},
    {"type": "finish", "finishReason": "stop"},
]


def _led(folder: Path) -> tuple[App, type[Led]]:
    led = led_room()
    return counted(folder, led, stream_limits=limited()), led


async def _answered(client: StreamClient, room: str) -> None:
    posted = await client.web.post("/api/chat", json=user_turn("Hi", chat_id=room))
    assert posted.status_code == 200


async def _says(client: StreamClient, path: str, text: bytes) -> bool:
    return text in (await client.read(path)).content


async def test_an_answer_that_is_being_made_is_followed(tmp_path: Path, way: Way) -> None:
    """Each chunk a message, as it comes; the end of the answer closes the stream."""
    app, led = _led(tmp_path)
    async with serving_streams(app, way) as client:
        lead(led, "Hi", "Well")
        async with client.web.stream("POST", "/api/chat", json=user_turn("Hi")) as posted:
            await until(lambda: led.contexts)
            async with client.events("rooms/r/turns/id1") as events:
                assert events.response.headers["content-type"] == "text/event-stream"
                chunks: list[dict[str, object]] = []
                while len(chunks) < 4:
                    event = await events.next()
                    assert event is not None
                    chunks += json.loads(event.data or "[]")
                assert chunks[-1] == {"type": "text-delta", "id": "text-1-1", "delta": "Well"}
                now = await client.read("rooms/r/turns/id1", "now")
                assert (now.content, now.headers["stream-next-offset"]) == (b"[]", f"{4:016}")
                lead(led, "Hi", " then", None)
                rest = await events.rest()
            chunks += [chunk for event in rest for chunk in json.loads(event.data or "[]")]
            assert [chunk["type"] for chunk in chunks[4:]] == ["text-delta", "text-end", "finish-step", "finish"]
            assert rest[-1].control == {"streamNextOffset": f"{8:016}", "streamClosed": True, "upToDate": True}
            body = (await posted.aread()).decode()
        told = [json.loads(line[6:]) for line in body.splitlines() if line.startswith("data: {")]
        assert told == chunks


async def test_an_answer_is_read_after_its_end(tmp_path: Path, way: Way) -> None:
    """In each mode, from any offset; also when its room must be woken for it, and after a restart."""
    for _ in range(2):
        app = counted(tmp_path, Echo, stream_limits=limited())
        async with serving_streams(app, way) as client:
            if (await client.read("rooms/r/turns/id1")).status_code == 404:
                await _answered(client, "r")
            for _ in range(2):
                whole = await client.read("rooms/r/turns/id1")
                assert (whole.status_code, whole.json()) == (200, CHUNKS)
                facts = ("content-type", "stream-next-offset", "stream-closed", "stream-up-to-date")
                assert [whole.headers[name] for name in facts] == [JSON, f"{7:016}", "true", "true"]
                await hibernated(app.runtime, Echo, "r")
            assert (await client.read("rooms/r/turns/id1", f"{5:016}")).json() == CHUNKS[5:]
            again = await client.read("rooms/r/turns/id1", headers={"if-none-match": whole.headers["etag"]})
            assert again.status_code == 304
            poll = await client.read("rooms/r/turns/id1", f"{7:016}", live="long-poll")
            assert (poll.status_code, poll.headers["stream-closed"]) == (204, "true")
            head = await client.ask("HEAD", "rooms/r/turns/id1")
            assert [head.headers[name] for name in facts[:3]] == [JSON, f"{7:016}", "true"]


async def test_only_the_room_writes_its_answers(tmp_path: Path, way: Way) -> None:
    """405 for all that would change one, also while it runs."""
    app, led = _led(tmp_path)
    async with serving_streams(app, way) as client:
        lead(led, "Hi", "Well")
        async with client.web.stream("POST", "/api/chat", json=user_turn("Hi")):
            await eventually(lambda: _says(client, "rooms/r/turns/id1", b"Well"))
            before = await client.read("rooms/r/turns/id1")
            for method in ("PUT", "POST", "DELETE"):
                for path in ("rooms/r/turns/id1", "rooms/r/turns/other", "rooms/other/turns/id1"):
                    answer = await client.ask(method, path, b"{}", {"content-type": JSON})
                    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "method_not_allowed")
            closing = await client.ask("POST", "rooms/r/turns/id1", headers={"stream-closed": "true"})
            assert closing.status_code == 405
            assert (await client.read("rooms/r/turns/id1")).content == before.content
            lead(led, "Hi", None)
    assert app.room_class is not None


async def test_what_is_not_there_is_not_made(tmp_path: Path, way: Way) -> None:
    """404 for rooms, turns and addresses that are none; no room comes to be by being read."""
    app = counted(tmp_path, Echo)
    async with serving_streams(app, way) as client:
        await _answered(client, "r")
        for path in (
            *("rooms/other/turns/id1", "rooms/r/turns/other", "rooms/r", "rooms", "rooms/r/turns", "rooms/r/id1"),
            *("rooms/r/turns/id1/more", "rooms/r/others/id1"),
        ):
            for live in ("", "sse", "long-poll"):
                answer = await client.read(path, live=live)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "stream_not_found"), path
        assert not app.runtime.exists(app.runtime.object_id(Echo, "other"))


async def test_offsets_of_answers_are_checked(tmp_path: Path, way: Way) -> None:
    """As of any stream."""
    async with serving_streams(counted(tmp_path, Echo), way) as client:
        await _answered(client, "r")
        for offset in ("", "x", "1", f"{8:016}", "-2"):
            assert (await client.read("rooms/r/turns/id1", offset)).status_code == 400
        assert (await client.web.get("/v1/stream/rooms/r/turns/id1?live=sse")).status_code == 400


def _turn(room: str) -> str:
    return f"rooms/{quote(room, safe='')}/turns/id1"


@pytest.mark.parametrize("room", ["Zoë", "a/b", "team 1", "中文🙂", "a%2Fb"])
async def test_rooms_of_any_name(tmp_path: Path, way: Way, room: str) -> None:
    """Encoded as one segment."""
    async with serving_streams(counted(tmp_path, Echo), way) as client:
        await _answered(client, room)
        assert (await client.read(_turn(room))).json() == CHUNKS


@pytest.mark.parametrize("room", ["Zoë", "a,b", 'a"b'])
async def test_etags_of_rooms_of_any_name(tmp_path: Path, way: Way, room: str) -> None:
    """A tag that is sent back is known again."""
    async with serving_streams(counted(tmp_path, Echo), way) as client:
        await _answered(client, room)
        tag = dict(_raw_headers(await client.read(_turn(room))))[b"etag"]
        assert tag.isascii()
        assert tag.count(b'"') == 2
        again = await client.web.get(
            f"/v1/stream/{_turn(room)}", headers={b"if-none-match": tag}, params={"offset": "-1"}
        )
        assert again.status_code == 304


def _raw_headers(response: httpx2.Response) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in response.headers.raw]


async def test_no_free_standing_stream_has_a_rooms_address(tmp_path: Path, way: Way) -> None:
    """However its slashes are written."""
    async with serving_streams(counted(tmp_path, Echo), way) as client:
        await _answered(client, "r")
        answer = await client.ask("PUT", "rooms%2Fr%2Fturns%2Fid1", b"{}", {"content-type": JSON})
        assert answer.status_code in (404, 405)
