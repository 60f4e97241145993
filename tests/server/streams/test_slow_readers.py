"""Clients that do not read: a real server's memory stays as it was, and they can go on where they were."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest
from tests.e2e.conftest import run_served
from tests.e2e.served import HERE, SOURCES, Served

from .servers import ROOT, TEXT, Raw, Way, asked, raw

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc, as Linux has it"),
]

PIECE_BYTES = 256 * 1024
PIECES = 120
SLOW = 4
MEMORY_BYTES_MAX = 48 * 1024 * 1024
"""What the server may grow by. Kept for each slow reader, the 30 MiB would be more than twice that."""


@pytest.fixture
def server(tmp_path: Path, way: Way) -> Iterator[Served]:
    """A server in a process of its own."""
    path = os.pathsep.join((str(SOURCES), str(HERE.parents[1])))
    setting = "1" if way == "accelerated" else "0"
    yield from run_served(
        Served(tmp_path, "tests.server.streams.app:app", PYTHONPATH=path, PERDURE_ACCELERATOR=setting)
    )


def _memory_bytes(server: Served) -> int:
    assert server._process is not None
    status = Path(f"/proc/{server._process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def _piece(number: int) -> bytes:
    return b"%06d" % number + b"x" * (PIECE_BYTES - 6)


async def _numbers(connection: Raw) -> list[int]:
    """The numbers of the pieces that a reader gets, to the end of the body; all of each must be there."""
    body = (await connection.answer(timeout_s=50)).body
    found = re.findall(rb"(\d{6})(x+)", body)
    assert {len(rest) for _, rest in found} == {PIECE_BYTES - 6}
    assert body.count(b"event: control\n") >= len(found)
    return [int(number) for number, _ in found]


async def test_readers_that_do_not_read_cost_no_memory(server: Served) -> None:
    """While 30 MiB are appended, those who read get all of it; later the slow ones do, too, each piece once."""
    address = server.url.removeprefix("http://")
    async with httpx2.AsyncClient(base_url=server.url + ROOT, timeout=10) as web, AsyncExitStack() as stack:
        await web.put("a", headers={"content-type": TEXT})
        slow = [await stack.enter_async_context(raw(address)) for _ in range(SLOW)]
        quick = await stack.enter_async_context(raw(address))
        for connection in (*slow, quick):
            connection.send(asked("GET", "a?offset=-1&live=sse"))
        reading = asyncio.create_task(_numbers(quick))
        await web.post("a", content=_piece(0), headers={"content-type": TEXT})
        before = _memory_bytes(server)
        highest = before
        for number in range(1, PIECES):
            ended = {"stream-closed": "true"} if number == PIECES - 1 else {}
            answer = await web.post("a", content=_piece(number), headers={"content-type": TEXT, **ended})
            assert answer.status_code == 204
            highest = max(highest, _memory_bytes(server))
        assert await reading == list(range(PIECES))
        assert highest - before < MEMORY_BYTES_MAX
        for connection in slow:
            assert await _numbers(connection) == list(range(PIECES))
