"""Reads of more than a block: sent as the client takes them, of a size that was known before."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from perdure.streams.stream import READ_BYTES

from .servers import JSON, Way, limited, serving_streams, stream_app

pytestmark = pytest.mark.anyio

LIMITS = limited(read_bytes_max=8 * READ_BYTES)


async def test_a_large_read_is_the_whole(tmp_path: Path, way: Way) -> None:
    """Bytes and messages, from rows and from memory, with a size in the head."""
    async with serving_streams(stream_app(tmp_path, limits=LIMITS), way) as client:
        entries = [bytes([65 + number % 26]) * (number * 7_919 % 9_000 + 1) for number in range(300)]
        await client.create("bytes", b"".join(entries[:1]))
        for entry in entries[1:]:
            await client.append("bytes", entry)
        whole = await client.read("bytes")
        assert len(whole.content) > 4 * READ_BYTES
        assert whole.content == b"".join(entries)
        assert int(whole.headers["content-length"]) == len(whole.content)
        assert whole.headers["stream-next-offset"] == f"{300:016}"
        assert whole.headers["stream-up-to-date"] == "true"
        assert (await client.read("bytes", f"{100:016}")).content == b"".join(entries[100:])

        messages = [{"number": number, "text": "é" * (number % 3_000)} for number in range(600)]
        await client.create("messages", json.dumps(messages[:300], ensure_ascii=False).encode(), JSON)
        await client.append("messages", json.dumps(messages[300:]).encode(), JSON)
        await client.close("messages")
        whole = await client.read("messages")
        assert json.loads(whole.content) == messages
        assert int(whole.headers["content-length"]) == len(whole.content)
        assert whole.headers["stream-closed"] == "true"
        again = await client.read("messages", headers={"if-none-match": whole.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")


async def test_a_fork_is_read_through_its_source(tmp_path: Path, way: Way) -> None:
    """The parting is in the middle of the read."""
    async with serving_streams(stream_app(tmp_path, limits=LIMITS), way) as client:
        await client.create("source", b"a" * READ_BYTES)
        await client.append("source", b"b" * READ_BYTES)
        await client.create("fork", stream_forked_from="/v1/stream/source")
        await client.append("source", b"unseen")
        await client.append("fork", b"c" * READ_BYTES)
        assert (await client.read("fork")).content == b"a" * READ_BYTES + b"b" * READ_BYTES + b"c" * READ_BYTES


async def test_a_read_of_a_stream_that_goes_is_cut_short(tmp_path: Path, way: Way) -> None:
    """The body ends before its size: no client takes it for the whole."""
    async with serving_streams(stream_app(tmp_path, limits=limited(read_bytes_max=1 << 30)), way) as client:
        await client.create("a", b"x" * 1_000_000)
        for _ in range(19):
            await client.append("a", b"x" * 1_000_000)
        host, _, port = client.address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=4_096)
        writer.write(b"GET /v1/stream/a HTTP/1.1\r\nHost: here\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 20000000\r\n" in head
        assert (await client.ask("DELETE", "a")).status_code == 204
        got = 0
        while data := await reader.read(65_536):
            got += len(data)
        assert 0 < got < 20_000_000
        writer.close()
