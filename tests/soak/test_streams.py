"""Killing a server of streams under its producers and readers loses nothing and stores nothing twice."""

from __future__ import annotations

import asyncio
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from .streams import Held, RoundResult, check_items, run
from .streams_clients import PlainWriter, Reader, Writer

ROUNDS, STREAMS = 2, 5

pytestmark = pytest.mark.anyio


@pytest.mark.timeout(180)
async def test_killed_server_keeps_its_streams(tmp_path: Path) -> None:
    """Two rounds of what `python -m tests.soak.streams` does twenty times with ten streams."""
    seed = random.randrange(1_000_000)
    results = await run(ROUNDS, STREAMS, seed, tmp_path)
    violations = [violation for result in results for violation in result.violations]
    assert not violations, (
        f"--rounds {ROUNDS} --streams {STREAMS} --seed {seed}, data in {tmp_path}: {violations[:5]}"
    )
    assert sum(result.duplicates for result in results) > 0
    assert sum(result.lost + result.twice + result.reopened for result in results) == 0
    shutil.rmtree(tmp_path / "data")


ITEMS = ["writer 0 é/0/0/", "plain/1", "writer 0 é/0/1/", "plain/2"]


def _held() -> Held:
    """A stream whose items are `ITEMS`, as its clients know it; ``plain/2`` was not acknowledged."""
    chance, stop = random.Random(0), asyncio.Event()
    held = Held("s", "text/plain")
    writer = Writer("s", "text/plain", 0, chance, 0, stop)
    writer.sent = [ITEMS[0], ITEMS[2], "writer 0 é/0/2/"]
    writer.acked = {ITEMS[0]: 0, ITEMS[2]: None}
    plain = PlainWriter("s", "text/plain", 0, chance, stop)
    plain.acked, plain.unknown = {"plain/1": 1}, {"plain/2", "plain/3"}
    reader = Reader("s", "text/plain", 0, chance, "sse")
    reader.seen = list(ITEMS)
    held.writers, held.plain, held.readers = [writer], [plain], [reader]
    return held


def _violations(held: Held, items: list[str]) -> list[str]:
    result = RoundResult(1)
    check_items(held, items, result)
    return result.violations


async def test_the_check_takes_what_is_right() -> None:
    """What was not acknowledged may be there or not."""
    held = _held()
    assert _violations(held, ITEMS) == []
    held.readers[0].seen = ITEMS[:3]
    assert _violations(held, ITEMS[:3]) == []


def _swapped(items: list[str]) -> list[str]:
    return [items[2], items[1], items[0], items[3]]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda items: items[1:], "lost"),
        (lambda items: [*items, items[0], "plain/2"], "2 items twice"),
        (lambda items: [items[0], items[2], items[1], items[3]], "elsewhere"),
        (lambda items: [*items, "writer 9"], "from nobody"),
        (_swapped, "not in their order"),
        (lambda items: items[:-1], "read 4 items, stored are 3 others"),
    ],
)
async def test_the_check_finds_what_is_wrong(change: Callable[[list[str]], list[str]], told: str) -> None:
    """The run would notice an item that is missing, doubled, moved, or nobody's."""
    assert any(told in violation for violation in _violations(_held(), change(ITEMS)))


async def test_the_check_finds_a_fork_that_changed() -> None:
    """It begins with what its source had when that was closed."""
    held = _held()
    held.source = Held("older", "text/plain", items=["plain/1"])
    assert any("does not begin with" in violation for violation in _violations(held, ITEMS))
