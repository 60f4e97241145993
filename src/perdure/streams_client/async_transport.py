"""Flows and readings over HTTP, asynchronously."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from typing import TypeVar

import httpx2

from .answers import Lost, Request, Response
from .core import Flow, Wait
from .http import ANSWER_BYTES, KEPT_CONNECTIONS, ClientLimits, Headers, built, names_in_small, outcome_of
from .reading import Batch, HangUp, Open, Opened, Read, Reading

T = TypeVar("T")


class AsyncTransport:
    """An HTTP client that does what the cores ask for. ``http`` None: it makes one when it needs it."""

    def __init__(self, headers: Headers | None, limits: ClientLimits, http: httpx2.AsyncClient | None) -> None:
        self.limits = limits
        self._headers = headers
        self._http = http
        self._owns_http = http is None
        self._making = asyncio.Lock()

    async def aclose(self) -> None:
        """Close the connections, unless the HTTP client is the application's."""
        if self._owns_http and self._http is not None:
            await self._http.aclose()
            self._http = None

    async def run(self, flow: Flow[T]) -> T:
        """Carry an operation out."""
        outcome: Response | Lost | None = None
        try:
            while True:
                step = flow.send(outcome)
                if isinstance(step, Wait):
                    await asyncio.sleep(step.ms / 1000)
                    outcome = None
                else:
                    outcome = await self.exchange(step)
        except StopIteration as end:
            result: T = end.value
            return result

    async def exchange(self, request: Request) -> Response | Lost:
        """Send a request and read its answer."""
        answer = await self._open(request, live=False)
        if isinstance(answer, Lost):
            return answer
        body = b""
        try:
            async for piece in answer.aiter_bytes():
                body += piece
                if len(body) >= ANSWER_BYTES:
                    break
        except httpx2.RequestError as error:
            return outcome_of(error)
        finally:
            await _closed(answer)
        return Response(answer.status_code, names_in_small(answer.headers), body)

    async def follow(self, reading: Reading) -> AsyncGenerator[Batch, None]:
        """Carry a reading out."""
        steps = reading.steps()
        answer: httpx2.Response | None = None
        pieces: AsyncIterator[bytes] | None = None
        outcome: Opened | bytes | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Batch):
                    yield step
                elif isinstance(step, Read):
                    assert pieces is not None
                    outcome = await _next(pieces)
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.ms / 1000)
                else:
                    if answer is not None:
                        await _closed(answer)
                        answer = None
                    if isinstance(step, Open):
                        opened = await self._open(step.request, live=step.live)
                        if isinstance(opened, Lost):
                            outcome = opened
                        else:
                            answer, pieces = opened, opened.aiter_bytes()
                            outcome = Opened(answer.status_code, names_in_small(answer.headers))
                    else:
                        assert isinstance(step, HangUp)
        except StopIteration:
            return
        finally:
            if answer is not None:
                await _closed(answer)

    async def _open(self, request: Request, *, live: bool) -> httpx2.Response | Lost:
        http = await self._made()
        message = built(http, request, self._headers, self.limits.timeout(live=live))
        try:
            return await http.send(message, stream=True, follow_redirects=request.method in ("GET", "HEAD"))
        except httpx2.RequestError as error:
            return outcome_of(error)

    async def _made(self) -> httpx2.AsyncClient:
        if self._http is None:
            async with self._making:
                if self._http is None:
                    # The system's certificates are read: milliseconds of files.
                    self._http = await asyncio.to_thread(httpx2.AsyncClient, limits=KEPT_CONNECTIONS)
        return self._http


async def _next(pieces: AsyncIterator[bytes]) -> bytes | Lost:
    try:
        piece = b""
        while not piece:
            piece = await anext(pieces)
        return piece
    except StopAsyncIteration:
        return b""
    except httpx2.RequestError as error:
        return outcome_of(error)


async def _closed(answer: httpx2.Response) -> None:
    with suppress(httpx2.RequestError):
        await answer.aclose()
