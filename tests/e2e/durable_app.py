"""The application of the tests with Durable Streams' clients: rooms that answer `/api/chat` in both ways."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from tests.e2e.rooms import Room

from perdure import App
from perdure.objects.limits import Limits
from perdure.server.streams.limits import StreamLimits

app = App(
    [Room],
    limits=Limits(drain_ms_max=int(os.environ.get("DRAIN_MS", "100"))),
    stream_limits=StreamLimits(
        long_poll_ms=int(os.environ.get("LONG_POLL_MS", "500")), rotate_ms=int(os.environ.get("ROTATE_MS", "55000"))
    ),
    double_answer=True,
)


async def words(count: int, delay_ms: int) -> AsyncIterator[dict[str, Any]]:
    """An application's own generator: a message of AI SDK chunks."""
    yield {"type": "start", "messageId": "own"}
    yield {"type": "text-start", "id": "t"}
    for number in range(1, count + 1):
        yield {"type": "text-delta", "id": "t", "delta": f"word{number} "}
        await asyncio.sleep(delay_ms / 1000)
    yield {"type": "text-end", "id": "t"}
    yield {"type": "finish"}


outer = FastAPI(lifespan=app.lifespan)


@outer.post("/generate")
async def generate(request: Request) -> Response:
    """Words as a durable stream; ``?delay_ms=`` sets their pace, ``?count=`` their number."""
    count, delay_ms = (int(request.query_params.get(name, "20")) for name in ("count", "delay_ms"))
    return await app.durable_response(words(count, delay_ms))


outer.mount("/", app)
