"""Reading from any offset: in parts that join to the whole, and from what is kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.server.apps import NOON_MS, set_clock

from perdure.server.streams.quotas import TRIM_INTERVAL_MS
from perdure.storage.appends import SEGMENT_BYTES_MAX, TAIL_BYTES_MAX

from .servers import JSON, START, StreamClient, Way, limited, serving_streams, stream_app

pytestmark = pytest.mark.anyio

BLOCK = bytes(SEGMENT_BYTES_MAX)


async def _parts(client: StreamClient, path: str) -> list[tuple[bytes, bool, bool]]:
    """All parts of a stream, as a client asks for them: body, whether it says up to date, whether closed."""
    parts: list[tuple[bytes, bool, bool]] = []
    offset = "-1"
    while not parts or not parts[-1][1]:
        answer = await client.read(path, offset)
        assert answer.status_code == 200
        offset = answer.headers["stream-next-offset"]
        parts.append(
            (
                answer.content,
                answer.headers.get("stream-up-to-date") == "true",
                answer.headers.get("stream-closed") == "true",
            )
        )
    return parts


async def test_a_long_stream_comes_in_parts(tmp_path: Path, way: Way) -> None:
    """Each ends with the entry that reaches the limit; only the last says so, and that the stream is closed."""
    async with serving_streams(stream_app(tmp_path, limits=limited(read_bytes_max=1_000)), way) as client:
        await client.create("a")
        entries = [bytes([65 + number % 26]) * (number * 97 % 700 + 1) for number in range(60)]
        entries[30] = b"#" * 5_000
        for entry in entries:
            await client.append("a", entry)
        parts = await _parts(client, "a")
        assert b"".join(body for body, _, _ in parts) == b"".join(entries)
        assert [up_to_date for _, up_to_date, _ in parts] == [False] * (len(parts) - 1) + [True]
        assert not any(closed for _, _, closed in parts)
        assert all(1_000 <= len(body) < 1_700 or body.endswith(b"#") for body, _, _ in parts[:-1])
        await client.close("a")
        assert [closed for _, _, closed in await _parts(client, "a")] == [False] * (len(parts) - 1) + [True]
        # One byte less than the limit: the next entry is in the same part.
        await client.create("b", b"x" * 999)
        await client.append("b", b"y")
        await client.append("b", b"z")
        assert [len(body) for body, _, _ in await _parts(client, "b")] == [1_000, 1]


async def test_messages_come_in_parts_too(tmp_path: Path, way: Way) -> None:
    """Each part is an array of whole messages; at the tail it is an empty one."""
    async with serving_streams(stream_app(tmp_path, limits=limited(read_bytes_max=100)), way) as client:
        messages = [{"n": number, "text": "x" * (number % 50)} for number in range(50)]
        await client.create("a", json.dumps(messages).encode(), JSON)
        parts = await _parts(client, "a")
        assert len(parts) > 10
        assert [message for body, _, _ in parts for message in json.loads(body)] == messages
        assert (await client.read("a", f"{50:016}")).content == b"[]"


# --- retention


async def _appended(client: StreamClient, path: str, count: int) -> None:
    """Blocks, each of which fills a row."""
    for _ in range(count):
        assert (await client.append(path, BLOCK)).status_code == 204


async def _floor(client: StreamClient, path: str) -> int:
    """Where the stream begins: below that it is gone, from there on it is read."""
    stored = client.stream(path).stored
    for position in range(stored.position + 1):
        answer = await client.read(path, f"{position:016}")
        if position < stored.first:
            assert (answer.status_code, answer.json()["error"]["code"]) == (410, "offset_trimmed")
        else:
            assert answer.status_code == 200
    return int(stored.first)


async def test_too_much_is_dropped_from_the_front(tmp_path: Path, way: Way) -> None:
    """Below the floor it is 410 in every mode; ``-1`` is the floor; what is kept is never less than was asked for."""
    kept = 8 * SEGMENT_BYTES_MAX
    async with serving_streams(stream_app(tmp_path, limits=limited(retain_bytes_max=kept)), way) as client:
        await client.create("a")
        await _appended(client, "a", 8)
        assert await _floor(client, "a") == 0
        await _appended(client, "a", 12)
        floor = await _floor(client, "a")
        slack = kept // 8 + TAIL_BYTES_MAX + SEGMENT_BYTES_MAX
        assert kept <= (20 - floor) * SEGMENT_BYTES_MAX <= kept + slack
        for live in ("long-poll", "sse"):
            gone = await client.read("a", START, live=live)
            assert (gone.status_code, gone.json()["error"]["code"]) == (410, "offset_trimmed")
        assert b"".join([body for body, _, _ in await _parts(client, "a")]) == BLOCK * (20 - floor)
        async with client.events("a") as events:
            event = await events.next()
            assert event is not None
            assert int(event.control["streamNextOffset"]) > floor


async def test_too_old_is_dropped_from_the_front(tmp_path: Path, way: Way) -> None:
    """By the age of the rows; what is younger stays, and so does a tail that was never put into rows."""
    app = stream_app(tmp_path, limits=limited(retain_ms=60_000))
    set_clock(app, NOON_MS)
    async with serving_streams(app, way) as client:
        await client.create("a")
        await _appended(client, "a", 6)  # the tail goes into rows with the fifth
        for age_ms, floor in ((60_000, 0), (60_000 + TRIM_INTERVAL_MS, 5)):
            set_clock(app, NOON_MS + age_ms)
            await client.append("a", b"now")
            assert await _floor(client, "a") == floor
        assert b"".join([body for body, _, _ in await _parts(client, "a")]) == BLOCK + b"nownow"


async def test_forks_keep_what_retention_would_drop(tmp_path: Path, way: Way) -> None:
    """Of their source and of their own, as both would miss it."""
    limits = limited(retain_bytes_max=SEGMENT_BYTES_MAX)
    async with serving_streams(stream_app(tmp_path, limits=limits), way) as client:
        await client.create("a")
        await _appended(client, "a", 1)
        await client.create("fork", stream_forked_from="/v1/stream/a")
        await _appended(client, "a", 9)
        await _appended(client, "fork", 9)
        assert (await _floor(client, "a"), await _floor(client, "fork")) == (0, 0)


async def test_an_etag_changes_when_the_start_is_dropped(tmp_path: Path, way: Way) -> None:
    """The bytes from ``-1`` on are others, though they end where they did."""
    async with serving_streams(stream_app(tmp_path), way) as client:
        await client.create("a")
        await _appended(client, "a", 9)
        before = await client.read("a", "-1")
        client.stream("a").trim(f"{3:016}")
        after = await client.read("a", "-1")
        assert len(after.content) < len(before.content)
        assert after.headers["etag"] != before.headers["etag"]
