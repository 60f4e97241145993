"""Flows and readings over HTTP, blocking."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from threading import Lock
from typing import TypeVar

import httpx2

from .answers import Lost, Request, Response
from .core import Flow, Wait
from .http import ANSWER_BYTES, KEPT_CONNECTIONS, ClientLimits, Headers, built, names_in_small, outcome_of
from .reading import Batch, HangUp, Open, Opened, Read, Reading

T = TypeVar("T")


class Transport:
    """An HTTP client that does what the cores ask for. ``http`` None: it makes one when it needs it."""

    def __init__(self, headers: Headers | None, limits: ClientLimits, http: httpx2.Client | None) -> None:
        self.limits = limits
        self._headers = headers
        self._http = http
        self._owns_http = http is None
        self._making = Lock()

    def close(self) -> None:
        """Close the connections, unless the HTTP client is the application's."""
        if self._owns_http and self._http is not None:
            self._http.close()
            self._http = None

    def run(self, flow: Flow[T]) -> T:
        """Carry an operation out."""
        outcome: Response | Lost | None = None
        try:
            while True:
                step = flow.send(outcome)
                if isinstance(step, Wait):
                    time.sleep(step.ms / 1000)
                    outcome = None
                else:
                    outcome = self.exchange(step)
        except StopIteration as end:
            result: T = end.value
            return result

    def exchange(self, request: Request) -> Response | Lost:
        """Send a request and read its answer."""
        answer = self._open(request, live=False)
        if isinstance(answer, Lost):
            return answer
        body = b""
        try:
            for piece in answer.iter_bytes():
                body += piece
                if len(body) >= ANSWER_BYTES:
                    break
        except httpx2.RequestError as error:
            return outcome_of(error)
        finally:
            _closed(answer)
        return Response(answer.status_code, names_in_small(answer.headers), body)

    def follow(self, reading: Reading) -> Generator[Batch, None, None]:
        """Carry a reading out."""
        steps = reading.steps()
        answer: httpx2.Response | None = None
        pieces: Iterator[bytes] | None = None
        outcome: Opened | bytes | Lost | None = None
        try:
            while True:
                step = steps.send(outcome)
                outcome = None
                if isinstance(step, Batch):
                    yield step
                elif isinstance(step, Read):
                    assert pieces is not None
                    outcome = _next(pieces)
                elif isinstance(step, Wait):
                    time.sleep(step.ms / 1000)
                else:
                    if answer is not None:
                        _closed(answer)
                        answer = None
                    if isinstance(step, Open):
                        opened = self._open(step.request, live=step.live)
                        if isinstance(opened, Lost):
                            outcome = opened
                        else:
                            answer, pieces = opened, opened.iter_bytes()
                            outcome = Opened(answer.status_code, names_in_small(answer.headers))
                    else:
                        assert isinstance(step, HangUp)
        except StopIteration:
            return
        finally:
            if answer is not None:
                _closed(answer)

    def _open(self, request: Request, *, live: bool) -> httpx2.Response | Lost:
        http = self._made()
        message = built(http, request, self._headers, self.limits.timeout(live=live))
        try:
            return http.send(message, stream=True, follow_redirects=request.method in ("GET", "HEAD"))
        except httpx2.RequestError as error:
            return outcome_of(error)

    def _made(self) -> httpx2.Client:
        if self._http is None:
            with self._making:
                if self._http is None:
                    self._http = httpx2.Client(limits=KEPT_CONNECTIONS)
        return self._http


def _next(pieces: Iterator[bytes]) -> bytes | Lost:
    try:
        piece = b""
        while not piece:
            piece = next(pieces)
        return piece
    except StopIteration:
        return b""
    except httpx2.RequestError as error:
        return outcome_of(error)


def _closed(answer: httpx2.Response) -> None:
    with suppress(httpx2.RequestError):
        answer.close()
