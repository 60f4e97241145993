"""Running objects and servers for tests, and killing them.

A kill is a copy of the data folder taken between two instants of the event loop, when the journal's
writer rests: what ``kill -9`` leaves on a disk that lives on. The copy is then opened by another runtime.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from perdure import DurableObject, Limits
from perdure.objects.runtime import Runtime

HURRIED = Limits(drain_ms_max=50)
"""Work that will not end by itself gets no time at the end of a test."""


@asynccontextmanager
async def running(folder: Path, *classes: type[DurableObject], **options: Any) -> AsyncIterator[Runtime]:
    """A started runtime; stopped at the end. ``limits`` may be a dict of changes."""
    limits = options.pop("limits", {})
    runtime = Runtime(
        folder, classes, limits=limits if isinstance(limits, Limits) else replace(HURRIED, **limits), **options
    )
    await runtime.start()
    try:
        yield runtime
    finally:
        await runtime.stop()


async def killed(runtime: Runtime, folder: Path, *, mid_write: bool = False) -> Path:
    """What a kill at this moment leaves, as a data folder of its own.

    ``mid_write``: the journal's writer is held in the middle of its work and need not come to rest.
    """
    journal = runtime.store.journal
    if not mid_write:
        await until(lambda: journal.pending_bytes == 0)
    shutil.copytree(runtime.folder, folder)
    return folder


async def until(condition: Callable[[], object], *, timeout_s: float = 10) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - any condition, of any object
            await asyncio.sleep(0.002)


async def eventually(condition: Callable[[], Awaitable[object]], *, timeout_s: float = 10) -> None:
    """Wait until the condition, asked again and again, holds."""
    async with asyncio.timeout(timeout_s):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


class _Server(uvicorn.Server):
    """uvicorn as part of a test: the test runner keeps its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(app: ASGIApp, **options: Any) -> AsyncIterator[str]:
    """A real server on a free port of this machine, in this loop; gives its address, ``127.0.0.1:port``."""
    config = uvicorn.Config(
        app, port=0, ws="websockets-sansio", log_level="warning", timeout_graceful_shutdown=1, **options
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started or task.done())
    if task.done():
        task.result()
        raise RuntimeError("the server did not start")
    host, port = server.servers[0].sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.should_exit = True
        await task


async def hibernated(runtime: Runtime, object_class: type[DurableObject], name: str) -> None:
    """Let the object hibernate, now, when it has nothing to do."""
    slot = runtime.slot(runtime.object_id(object_class, name))
    await until(lambda: slot.instance is None or runtime.housekeeping._may_hibernate(slot))
    if slot.instance is not None:
        await runtime.housekeeping._start_hibernation(slot)
    assert slot.instance is None


def reset(runtime: Runtime, object_class: type[DurableObject], name: str) -> None:
    """Throw the object's instance away, as a failing disk would."""
    slot = runtime.slot(runtime.object_id(object_class, name))
    if slot.instance is not None:
        slot.discard_instance(slot.instance, RuntimeError("a test"))
