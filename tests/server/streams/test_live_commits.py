"""Live reads that come while what they wait for is written already, but not durable yet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.objects.disks import Disk
from tests.running import until

from .servers import START, Way, limited, serving_streams, stream_app

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("closing", [False, True])
async def test_a_poll_is_answered_when_it_is_durable(tmp_path: Path, way: Way, closing: bool) -> None:
    """At once, and not at the end of its time: an append, or the stream's end."""
    app = stream_app(tmp_path, limits=limited(long_poll_ms=20_000))
    disk = Disk(tmp_path / "data")
    app.runtime._files = disk.files
    async with serving_streams(app, way) as client:
        await client.create("s")
        disk.hold()
        writing = asyncio.create_task(client.close("s") if closing else client.append("s", b"one"))
        await until(lambda: app.runtime.store.journal.pending_bytes)
        polling = asyncio.create_task(client.read("s", START, live="long-poll"))
        await asyncio.sleep(0.05)
        disk.release()
        await writing
        async with asyncio.timeout(5):
            answer = await polling
        assert (answer.status_code, answer.content) == ((204, b"") if closing else (200, b"one"))
        assert answer.headers.get("stream-closed") == ("true" if closing else None)
