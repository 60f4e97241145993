"""Requests, and what answers to them mean. Header names of answers are in small letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from ..errors import Forbidden, OffsetError, PerdureError, RemoteProtocolError, StreamNotFound, Unauthenticated
from .errors import StreamClosed, StreamConflict, StreamGone, StreamRefused, StreamUnreachable

NEVER_BETTER = {501, 505}
"""Answers of 500 and above that do not pass."""

REASON_CHARACTERS = 200


class Request(NamedTuple):
    """What to send. ``headers`` are the protocol's; a client adds its own."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


class Lost(NamedTuple):
    """There was no answer, or its end did not come. ``arrived``: the server may have the request."""

    reason: str
    arrived: bool = True


def with_query(url: str, **parameters: str) -> str:
    """The address with these parameters behind those that it has (a signature, for example)."""
    query = "&".join(f"{name}={quote(value, safe='')}" for name, value in parameters.items())
    if not query:
        return url
    return f"{url}{'&' if '?' in url else '?'}{query}"


def path_of(url: str) -> str:
    """The path of an address, as a fork names its source."""
    return urlsplit(url).path


def may_pass(status: int) -> bool:
    """Whether the same request may be answered better later."""
    return status == 429 or (status >= 500 and status not in NEVER_BETTER)


def says_closed(headers: Mapping[str, str]) -> bool:
    """Whether the answer says that the stream has ended, and that this is its end."""
    return headers.get("stream-closed", "").strip().lower() == "true"


def next_offset(headers: Mapping[str, str]) -> str:
    """The offset in an answer.

    Raises:
        RemoteProtocolError: there is none.
    """
    offset = headers.get("stream-next-offset")
    if not offset:
        raise RemoteProtocolError("the answer has no Stream-Next-Offset; does a proxy strip it?")
    return offset


def refusal(request: Request, response: Response) -> PerdureError:
    """The error that an answer other than success is."""
    status, headers = response.status, response.headers
    said = _reason(response)
    if status == 404:
        return StreamNotFound(f"there is no stream at {_shown(request.url)}")
    if status == 410:
        return StreamGone(f"{_shown(request.url)}: {said}")
    if status == 409 and says_closed(headers):
        return StreamClosed("the stream has ended", offset=headers.get("stream-next-offset") or None)
    if status == 409:
        return StreamConflict(said)
    if status == 400 and request.method == "GET":
        return OffsetError(said)
    if status == 401:
        return Unauthenticated(said)
    if status == 403:
        return Forbidden(said)
    if 400 <= status < 500 or status in NEVER_BETTER:
        return StreamRefused(f"{request.method} was answered {status}: {said}", status=status)
    return RemoteProtocolError(f"{request.method} was answered {status}, which the protocol does not know")


def unreachable(request: Request, outcome: Response | Lost, retry_after_ms: float = 0) -> StreamUnreachable:
    """The error when no attempt is left."""
    where = f"{request.method} {_shown(request.url)}"
    if isinstance(outcome, Lost):
        return StreamUnreachable(f"{where}: {outcome.reason}")
    return StreamUnreachable(
        f"{where} was answered {outcome.status}: {_reason(outcome)}",
        last_status=outcome.status,
        retry_after_s=retry_after_ms / 1000 or None,
    )


def _shown(url: str) -> str:
    """An address as it may stand in an error: its query may hold a signature."""
    return url.partition("?")[0]


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    """The one error shape of perdure's servers."""

    error: _Error


def _reason(response: Response) -> str:
    """What the server says about a refusal, in one line."""
    try:
        said = msgspec.json.decode(response.body, type=_ErrorBody).error.message
    except (ValueError, RecursionError):
        said = response.body.decode(errors="replace")
        if said.lstrip().startswith("<"):  # a proxy's page
            said = ""
    return " ".join(said[:REASON_CHARACTERS].split()) or f"status {response.status}"
