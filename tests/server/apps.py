"""Applications whose answers can be written down before: their ids are counted, their clock stands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from tests.running import HURRIED, serving
from tests.server.clients import http

from perdure import App, DurableObject

NOON_MS = 1_700_000_000_000
"""The time at which the clock stands."""


def counted(folder: Path, *classes: type[DurableObject], **options: Any) -> App:
    """An application without pages; the ids that it makes are ``id1``, ``id2`` and so on."""
    app = App(classes, data=folder, **{"limits": HURRIED, "pages": False, **options})
    numbers = count(1)
    app.runtime.new_id = lambda: f"id{next(numbers)}"
    set_clock(app, NOON_MS)
    return app


def set_clock(app: App, now_ms: int) -> None:
    """Let it be this time from now on."""
    app.runtime.now_ms = lambda: now_ms


@asynccontextmanager
async def served(app: App) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of the application over a real socket."""
    async with serving(app) as address, http(address) as client:
        yield client
