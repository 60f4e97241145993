"""``/metrics``: what the server counts. (``/healthz`` is in test_asgi.py, with starting and stopping.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.chat.rooms import Echo
from tests.running import eventually, serving
from tests.server.apps import counted
from tests.server.clients import http, room

pytestmark = pytest.mark.anyio

NAMES = {
    "perdure_objects_awake": "gauge",
    "perdure_connections": "gauge",
    "perdure_commits": "counter",
    "perdure_sync_seconds": "histogram",
    "perdure_journal_live_bytes": "gauge",
    "perdure_loop_lag_seconds": "gauge",
    "perdure_object_resets": "counter",
    "perdure_turns_running": "gauge",
    "perdure_turns": "counter",
    "perdure_stream_appends": "counter",
    "perdure_stream_appended_bytes": "counter",
    "perdure_stream_duplicates": "counter",
    "perdure_stream_deliveries": "counter",
    "perdure_stream_readers": "gauge",
}


async def test_metrics_have_these_names(tmp_path: Path) -> None:
    """In Prometheus's text format; dashboards are built on them."""
    async with serving(counted(tmp_path, Echo)) as address, http(address) as client:
        response = await client.get("/metrics")
        assert response.headers["content-type"].startswith("text/plain; version=")
        families = {family.name: family.type for family in text_string_to_metric_families(response.text)}
        assert {name: kind for name, kind in families.items() if not name.endswith("_created")} == NAMES


async def test_metrics_follow_what_happens(tmp_path: Path) -> None:
    """One room awake, one client, one finished turn, commits and their syncs."""
    async with serving(counted(tmp_path, Echo)) as address, http(address) as client:

        async def value(line: str) -> float:
            found = re.search(rf"^{re.escape(line)} (\S+)$", (await client.get("/metrics")).text, re.MULTILINE)
            return float(found[1]) if found else 0

        assert await value("perdure_connections") == 0
        async with room(address) as socket:
            await socket.next("init")
            await socket.say("Hi")
            await socket.next("complete")
            assert await value("perdure_connections") == 1
            assert await value("perdure_objects_awake") == 1
            assert await value('perdure_turns_total{status="complete"}') == 1
            assert await value("perdure_commits_total") >= 2
            assert await value("perdure_sync_seconds_count") >= 1
            assert await value("perdure_journal_live_bytes") > 0

        async def gone() -> bool:
            return await value("perdure_connections") == 0 == await value("perdure_turns_running")

        await eventually(gone)
