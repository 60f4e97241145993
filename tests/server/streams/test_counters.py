"""What `/metrics` says of streams."""

from __future__ import annotations

from pathlib import Path

import pytest

from .servers import Way, serving_streams, stream_app

pytestmark = pytest.mark.anyio


async def test_metrics_count_streams(tmp_path: Path, way: Way) -> None:
    """Appends, their bytes, retries, live readers and what they were sent."""
    async with serving_streams(stream_app(tmp_path), way) as client:
        await client.create("a")
        async with client.events("a") as one, client.events("a") as two:
            await one.next()
            await two.next()
            await client.append("a", b"12345")
            for _ in range(2):
                await client.produce("a", b"678", ("p", 0, 0))
            assert [event.data for event in (await one.next(), await one.next()) if event] == ["12345", "678"]
            await two.next()
            await two.next()
            shown = (await client.web.get("/metrics")).text.splitlines()
        assert [line for line in shown if line.startswith("perdure_stream_")] == [
            "perdure_stream_appends_total 2.0",
            "perdure_stream_appended_bytes_total 8.0",
            "perdure_stream_duplicates_total 1.0",
            "perdure_stream_deliveries_total 4.0",
            "perdure_stream_readers 2.0",
        ]
