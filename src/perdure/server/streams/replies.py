"""Answers of the stream surface: headers that all have, errors, and who may read them."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ...errors import PerdureError
from ...wire.durable_streams import Reply
from ..replies import RETRY_AFTER_S

Header = tuple[bytes, bytes]

METHODS = b"GET, HEAD, POST, PUT, DELETE, OPTIONS"

ALLOW_HEADERS = (
    b"authorization, content-type, if-none-match, last-event-id, producer-epoch, producer-id, producer-seq, "
    b"stream-closed, stream-expires-at, stream-fork-offset, stream-fork-sub-offset, stream-forked-from, "
    b"stream-seq, stream-ttl"
)

EXPOSE_HEADERS = (
    b"content-type, etag, location, producer-epoch, producer-expected-seq, producer-received-seq, producer-seq, "
    b"retry-after, stream-closed, stream-cursor, stream-expires-at, stream-next-offset, "
    b"stream-sse-data-encoding, stream-ttl, stream-up-to-date"
)

PREFLIGHT_AGE_S = b"600"

NO_STORE: Header = (b"cache-control", b"no-store")


class OriginPolicy:
    """Which sites' pages may read answers (section 10.7, and CORS of the Fetch standard)."""

    def __init__(self, origins: Collection[str]) -> None:
        self._any = "*" in origins
        self._origins = frozenset(origin.rstrip("/").encode("latin-1") for origin in origins)
        policy = b"cross-origin" if origins else b"same-origin"
        self.common: tuple[Header, ...] = (
            (b"x-content-type-options", b"nosniff"),
            (b"cross-origin-resource-policy", policy),
        )

    def headers(self, origin: bytes | None) -> tuple[Header, ...]:
        """What every answer has."""
        if origin is None or not (self._any or origin in self._origins):
            return self.common
        allowed = b"*" if self._any else origin
        shared = ((b"access-control-allow-origin", allowed), (b"access-control-expose-headers", EXPOSE_HEADERS))
        if self._any:
            return (*self.common, *shared)
        return (*self.common, *shared, (b"access-control-allow-credentials", b"true"), (b"vary", b"origin"))

    def preflight(self) -> Reply:
        """The answer to OPTIONS; `headers` come to it as to every other."""
        headers = [
            (b"access-control-allow-methods", METHODS),
            (b"access-control-allow-headers", ALLOW_HEADERS),
            (b"access-control-max-age", PREFLIGHT_AGE_S),
            (b"allow", METHODS),
        ]
        return Reply(204, headers)


def error_reply(error: PerdureError, *extra: Header) -> Reply:
    """An error in the one shape that all surfaces share."""
    headers = [(b"content-type", b"application/json"), NO_STORE, *extra]
    if error.retryable:
        headers.append((b"retry-after", str(RETRY_AFTER_S).encode()))
    return Reply(error.status, headers, msgspec.json.encode(error.as_json()))
