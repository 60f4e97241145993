"""Killing the whole server under streaming rooms loses nothing that anyone saw."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from .kill import run
from .views import RoomView, Violation

ROUNDS, ROOMS = 3, 12


@pytest.mark.anyio
@pytest.mark.timeout(240)
async def test_killed_server_loses_nothing(tmp_path: Path) -> None:
    """Three rounds of what `python -m tests.soak.kill` does twenty times with fifty rooms."""
    seed = random.randrange(1_000_000)
    results = await run(ROUNDS, ROOMS, seed, tmp_path)
    violations = [violation for result in results for violation in result.violations]
    assert not violations, f"--rounds {ROUNDS} --rooms {ROOMS} --seed {seed}, data in {tmp_path}: {violations[:5]}"
    assert sum(result.interrupted for result in results) > 0
    shutil.rmtree(tmp_path / "data")


INIT: dict[str, Any] = {
    "type": "init",
    "messages": [
        {"id": "q", "role": "user", "content": "Hi", "timestamp": 1},
        {"id": "a", "role": "assistant", "content": "Hel", "timestamp": 2, "status": "streaming"},
    ],
    "offset": "1",
}


def test_views_accept_what_fits() -> None:
    """The rules allow an answer that goes on where it was."""
    view = RoomView("client", exact=True)
    view.take(INIT, connected_with=None)
    view.take({"type": "resume", "offset": "1"}, connected_with="1")
    view.take({"type": "delta", "messageId": "a", "delta": "lo", "offset": "2"}, connected_with=None)
    view.take(
        {"type": "complete", "messageId": "a", "content": "Hello", "status": "complete", "offset": "3"},
        connected_with=None,
    )
    assert view.texts == {"q": "Hi", "a": "Hello"}
    assert view.settled(1)


@pytest.mark.parametrize(
    ("frame", "told"),
    [
        (
            {"type": "complete", "messageId": "a", "content": "Hello", "status": "complete", "offset": "3"},
            "deltas of a",
        ),
        ({"type": "update", "messageId": "a", "content": "He", "offset": "3"}, "took back"),
        ({"type": "delta", "messageId": "b", "delta": "x", "offset": "3"}, "never shown"),
        ({"type": "message", "message": INIT["messages"][1], "offset": "3"}, "came twice"),
        ({"type": "init", "messages": [], "offset": "3"}, "lacks"),
        ({"type": "error", "code": "x", "message": "y", "retryable": False}, "unexpected"),
    ],
)
def test_views_refuse_what_does_not(frame: dict[str, object], told: str) -> None:
    """The soak would notice a missing, doubled, changed or forgotten text."""
    view = RoomView("client", exact=True)
    view.take(INIT, connected_with=None)
    with pytest.raises(Violation, match=told):
        view.take(frame, connected_with=None)
