"""What a client asks of one stream, and what the answers mean: pure.

Each operation is a *flow*, a generator that a shell drives. It yields what is to be done, a
`Request` or a `Wait`, and is sent what came of it: a `Response` or `Lost`, None after a wait. What
it returns is the operation's result, what it raises its error::

    flow = core.append([b"one"])
    flow.send(None)                      # Request("POST", ...)
    flow.send(Lost("connection reset"))  # Wait(62.5)
    flow.send(None)                      # Request("POST", ...)
    flow.send(Response(204, {...}))      # StopIteration: the offset

Following a stream is in reading.py, producers are in producing.py.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Generator, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

from ..errors import ConfigError, LocalProtocolError, RemoteProtocolError
from .answers import Lost, Request, Response, may_pass, next_offset, path_of, refusal, says_closed, unreachable
from .content import DEFAULT_CONTENT_TYPE, body_of, encode_item
from .retry import RETRY_FOR_S, Retry, retry_after_ms

T = TypeVar("T")

PATH_SAFE = "/:@!$&'()*+,;=-._~"
"""What stands in a path as it is (RFC 3986, ``pchar``)."""


class Wait(NamedTuple):
    """Nothing to do for so long."""

    ms: float


Flow: TypeAlias = Generator[Request | Wait, Response | Lost | None, T]
"""An operation that a shell carries out."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a core takes from the world: clocks, randomness, and how long to try.

    ``clock_ms`` never goes back, ``unix_s`` is the time of day, ``random`` is in 0..1, ``new_id`` is
    an id that nobody has used.
    """

    clock_ms: Callable[[], float]
    unix_s: Callable[[], float]
    random: Callable[[], float]
    new_id: Callable[[], str]
    retry_for_s: float | None = RETRY_FOR_S

    def retry(self) -> Retry:
        """A new time to try for."""
        return Retry(self.random, self.retry_for_s)


@dataclass(frozen=True, slots=True)
class CreateResult:
    """The stream is there. ``created``: it was not before (or was made by a lost try of this call:
    then it is False). ``offset`` is its tail."""

    created: bool
    offset: str
    content_type: str
    closed: bool


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a server says about a stream. ``offset`` is its tail; ``ttl_s`` and ``expires_at`` (RFC 3339)
    are None where it does not expire so."""

    offset: str
    content_type: str
    closed: bool
    ttl_s: int | None
    expires_at: str | None


@dataclass(frozen=True, slots=True)
class Source:
    """What a new stream begins with: the stream at ``url`` up to ``offset``, and ``sub_offset`` messages
    (or bytes) further. ``offset`` None is the source's tail."""

    url: str
    offset: str | None = None
    sub_offset: int | None = None


def call(request: Request, around: Surroundings, accepted: Container[int]) -> Flow[Response]:
    """Send until there is an answer that counts: one with a status of ``accepted``.

    A deletion that finds nothing is a success where an earlier try may have deleted.

    Raises:
        PerdureError: as `refusal` says; StreamUnreachable when no try is left.
    """
    retry = around.retry()
    repeated = False
    while True:
        outcome = yield request
        assert outcome is not None
        at_least_ms = 0.0
        if isinstance(outcome, Response):
            if outcome.status in accepted:
                return outcome
            if repeated and request.method == "DELETE" and outcome.status in (404, 410):
                return outcome
            if not may_pass(outcome.status):
                raise refusal(request, outcome)
            at_least_ms = retry_after_ms(outcome.headers, around.unix_s())
        repeated |= isinstance(outcome, Response) or outcome.arrived
        wait_ms = retry.next_wait_ms(around.clock_ms(), at_least_ms)
        if wait_ms is None:
            raise unreachable(request, outcome, at_least_ms)
        yield Wait(wait_ms)


class StreamCore:
    """One stream as a client sees it. ``content_type`` is None until it is known."""

    def __init__(self, url: str, around: Surroundings, *, content_type: str | None = None) -> None:
        self.url = url
        self.around = around
        self.content_type = content_type

    def create(
        self,
        *,
        content_type: str | None = None,
        items: Iterable[object] = (),
        closed: bool = False,
        ttl_s: int | None = None,
        expires_at: datetime | str | None = None,
        source: Source | None = None,
    ) -> Flow[CreateResult]:
        """`PUT`; protocol section 5.1, forks: 4.2."""
        content_type = content_type or self.content_type
        headers = {} if source is None else _fork_headers(source)
        if content_type is not None or source is None:
            headers["content-type"] = content_type or DEFAULT_CONTENT_TYPE
        if ttl_s is not None and expires_at is not None:
            raise LocalProtocolError("a stream has a time to live or an end, not both")
        if ttl_s is not None:
            headers["stream-ttl"] = str(_count(ttl_s, "ttl_s"))
        if expires_at is not None:
            headers["stream-expires-at"] = _rfc3339(expires_at)
        if closed:
            headers["stream-closed"] = "true"
        encoded = self._encoded(items, content_type, source)
        response = yield from call(Request("PUT", self.url, headers, encoded), self.around, (200, 201))
        self.content_type = response.headers.get("content-type") or content_type or DEFAULT_CONTENT_TYPE
        return CreateResult(
            response.status == 201,
            next_offset(response.headers),
            self.content_type,
            says_closed(response.headers),
        )

    def _encoded(self, items: Iterable[object], content_type: str | None, source: Source | None) -> bytes | None:
        items = list(items)
        if not items:
            return None
        if content_type is None and source is not None:
            raise LocalProtocolError("a fork with items of its own needs its content_type")
        content_type = content_type or DEFAULT_CONTENT_TYPE
        return body_of([encode_item(item, content_type) for item in items], content_type)

    def append(self, items: Iterable[object], *, seq: str | None = None) -> Flow[str]:
        """`POST`; section 5.2. Returns the stream's new tail."""
        items = list(items)
        if not items:
            raise LocalProtocolError("there is nothing to append")
        content_type = yield from self.known_content_type()
        headers = {"content-type": content_type}
        if seq is not None:
            headers["stream-seq"] = seq
        body = body_of([encode_item(item, content_type) for item in items], content_type)
        response = yield from call(Request("POST", self.url, headers, body), self.around, (200, 204))
        return next_offset(response.headers)

    def close(self, items: Iterable[object] = ()) -> Flow[str]:
        """`POST` with `Stream-Closed`; section 5.3. Returns the final offset.

        With items it goes out under a producer's id of its own, which makes a repetition harmless.
        """
        headers = {"stream-closed": "true"}
        body = None
        items = list(items)
        if items:
            content_type = yield from self.known_content_type()
            body = body_of([encode_item(item, content_type) for item in items], content_type)
            headers |= {"content-type": content_type, **producer_headers(self.around.new_id(), 0, 0)}
        response = yield from call(Request("POST", self.url, headers, body), self.around, (200, 204))
        if not says_closed(response.headers):
            raise RemoteProtocolError("the server did not confirm that the stream has ended")
        return next_offset(response.headers)

    def delete(self) -> Flow[None]:
        """`DELETE`; section 5.4. That a try before has deleted it is success, too."""
        yield from call(Request("DELETE", self.url, {}), self.around, (200, 204))

    def head(self) -> Flow[StreamInfo]:
        """`HEAD`; section 5.5."""
        response = yield from call(Request("HEAD", self.url, {}), self.around, (200,))
        headers = response.headers
        self.content_type = headers.get("content-type") or DEFAULT_CONTENT_TYPE
        ttl = headers.get("stream-ttl", "")
        return StreamInfo(
            next_offset(headers),
            self.content_type,
            says_closed(headers),
            int(ttl) if ttl.isascii() and ttl.isdigit() else None,
            headers.get("stream-expires-at"),
        )

    def known_content_type(self) -> Flow[str]:
        """The stream's content type, asked for once."""
        if self.content_type is None:
            yield from self.head()
        assert self.content_type is not None
        return self.content_type


def address_of(base_url: str | None, path: str) -> str:
    """The address of a stream: ``path`` below ``base_url``, percent-encoded, or an address as it is.

    Raises:
        ConfigError: that is no address.
    """
    if "://" in path:
        url = path
    elif base_url is None:
        raise ConfigError(f"{path!r} is no address, and the client has no base_url")
    else:
        url = f"{base_url.rstrip('/')}/{quote(path.lstrip('/'), safe=PATH_SAFE)}"
    pieces = urlsplit(url)
    if pieces.scheme not in ("http", "https") or not pieces.netloc or pieces.fragment:
        raise ConfigError(f"{url!r} is no stream's address, like http://127.0.0.1:8000/v1/stream/orders")
    return url


def producer_headers(producer_id: str, epoch: int, seq: int) -> dict[str, str]:
    """The headers that make a request count once; section 5.2.1."""
    return {"producer-id": producer_id, "producer-epoch": str(epoch), "producer-seq": str(seq)}


def _fork_headers(source: Source) -> dict[str, str]:
    headers = {"stream-forked-from": path_of(source.url)}
    if source.offset is not None:
        headers["stream-fork-offset"] = source.offset
    if source.sub_offset is not None:
        headers["stream-fork-sub-offset"] = str(_count(source.sub_offset, "sub_offset"))
    return headers


def _count(value: int, name: str) -> int:
    if value < 0:
        raise LocalProtocolError(f"{name} must not be negative")
    return value


def _rfc3339(moment: datetime | str) -> str:
    if isinstance(moment, str):
        return moment
    if moment.tzinfo is None:
        raise LocalProtocolError("expires_at needs a time zone")
    return moment.isoformat().replace("+00:00", "Z")
