"""What both shells share of HTTP: limits, timeouts, and what the library's errors mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import random
from typing import TypeAlias
from uuid import uuid4

import httpx2

from ..errors import LocalProtocolError, RemoteProtocolError
from .answers import Lost, Request
from .core import Surroundings

Headers: TypeAlias = Mapping[str, str] | Callable[[], Mapping[str, str]]
"""Headers of one's own, as for authentication; a function is asked before every request."""

NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
"""After these the server has surely not seen the request."""

PASSING = (httpx2.TimeoutException, httpx2.NetworkError, httpx2.RemoteProtocolError, httpx2.ProxyError)
"""The connection's errors; another try may fare better."""

KEPT_CONNECTIONS = httpx2.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=3)
"""Every follower has a connection; idle ones go before servers (uvicorn: after 5 s) close them."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """What a client puts up with.

    Args:
        connect_timeout_s: to make a connection.
        answer_timeout_s: to be answered, and between two pieces of an answer.
        silence_timeout_s: between two pieces of a live answer; servers say something every minute.
        body_bytes_max: longest body of a read, and most data before its control event.
        event_bytes_max: longest server-sent event.
    """

    connect_timeout_s: float = 10
    answer_timeout_s: float = 30
    silence_timeout_s: float = 90
    body_bytes_max: int = 268_435_456
    event_bytes_max: int = 67_108_864

    def timeout(self, *, live: bool) -> httpx2.Timeout:
        """The timeouts of one request."""
        read_s = self.silence_timeout_s if live else self.answer_timeout_s
        return httpx2.Timeout(self.answer_timeout_s, connect=self.connect_timeout_s, read=read_s)


ANSWER_BYTES = 65_536
"""How much is read of an answer that is no read of a stream."""


def surroundings(retry_for_s: float | None) -> Surroundings:
    """The real world."""
    return Surroundings(lambda: time.monotonic() * 1000, time.time, random, lambda: uuid4().hex, retry_for_s)


def built(
    client: httpx2.Client | httpx2.AsyncClient, request: Request, headers: Headers | None, timeout: httpx2.Timeout
) -> httpx2.Request:
    """The request as the library sends it. The protocol's headers go before one's own.

    Raises:
        LocalProtocolError: it cannot be sent, as with a line break in a header.
    """
    own = headers() if callable(headers) else headers or {}
    both = {**{name.lower(): value for name, value in own.items()}, **request.headers}
    broken = [name for name, value in both.items() if any(character in value for character in "\r\n\0")]
    if broken:
        raise LocalProtocolError(f"this request cannot be sent: a line break in {', '.join(broken)}")
    try:
        return client.build_request(request.method, request.url, headers=both, content=request.body, timeout=timeout)
    except (httpx2.InvalidURL, ValueError, TypeError) as error:
        raise LocalProtocolError(f"this request cannot be sent: {error}") from error


def outcome_of(error: httpx2.RequestError) -> Lost:
    """What an error of the library means.

    Raises:
        RemoteProtocolError: the answer is of no use.
        LocalProtocolError: the request cannot be sent, now or ever.
    """
    if isinstance(error, PASSING):
        reason = str(error) or _PLAIN.get(type(error), type(error).__name__)
        return Lost(reason, arrived=not isinstance(error, NOT_SENT))
    if isinstance(error, httpx2.DecodingError | httpx2.TooManyRedirects):
        raise RemoteProtocolError(f"the answer cannot be read: {error}") from error
    raise LocalProtocolError(f"this request cannot be sent: {error}") from error


_PLAIN: dict[type, str] = {
    httpx2.ConnectTimeout: "no connection within connect_timeout_s",
    httpx2.ReadTimeout: "the server was silent for too long",
    httpx2.WriteTimeout: "the server takes nothing",
}


def names_in_small(headers: httpx2.Headers) -> dict[str, str]:
    """An answer's headers as the core has them."""
    return {name.lower(): value for name, value in headers.items()}
