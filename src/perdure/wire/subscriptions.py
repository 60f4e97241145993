"""Durable Streams subscriptions on the wire (PROTOCOL.md, sections 6 and 7).

A subscription watches streams, by a pattern or by name, and wakes a worker when one has something
that is not acknowledged. Below ``<root>/__ds/subscriptions/{id}``:

==========================  ===========================================================
PUT                         `parse_subscription`; 201 or 200 with `subscription_document`
GET, DELETE                 `subscription_document`; 204
POST ``/streams``           `parse_streams`; 204
DELETE ``/streams/{path}``  `stream_path`; 204
POST ``/claim``             `parse_claim`; `claim_document`
POST ``/ack``               with a token: `parse_ack`; `ack_document`
POST ``/callback``          the same, for webhooks
POST ``/release``           with a token: `parse_ack`; 204
==========================  ===========================================================

Outgoing: `webhook_body`, and `wake_event` for the wake stream of a pull-wake subscription. Every
refusal has the shape ``{"error": {"code", "message", ...}}``, as in `SubscriptionError`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Literal
from urllib.parse import quote

import msgspec

from ..errors import LimitExceeded, PerdureError, RemoteProtocolError
from .json_text import decode_json, encode_json
from .webhooks import JWKS_PATH, parse_webhook_url

BEFORE_FIRST_OFFSET = "-1"
"""The offset before everything; it sorts before all others."""

LEASE_TTL_MS = 30_000
"""Default for how long a worker may stay silent before somebody else is woken."""

LEASE_TTL_MS_MIN = 1_000
LEASE_TTL_MS_MAX = 600_000

SUBSCRIPTION_BODY_BYTES_MAX = 2 * 1024 * 1024
"""Largest body of a request about a subscription: room for all explicit streams."""

SUBSCRIPTION_ID_BYTES_MAX = 256
PATTERN_BYTES_MAX = 1_024
SUBSCRIPTION_PATH_BYTES_MAX = 1_024
"""Longest path of a stream that a subscription names, in bytes of UTF-8."""

EXPLICIT_STREAMS_MAX = 1_000
"""Streams that one subscription may name. Use a pattern for more."""

DESCRIPTION_BYTES_MAX = 4_096
WORKER_BYTES_MAX = 256
WAKE_OFFSET_BYTES_MAX = 256
"""Longest offset that an ack may name; the protocol keeps offsets below that."""

SubscriptionType = Literal["webhook", "pull-wake"]
SubscriptionStatus = Literal["active", "failed"]
LinkType = Literal["glob", "explicit"]
ErrorCode = Literal[
    "INVALID_REQUEST",
    "SUBSCRIPTION_NOT_FOUND",
    "SUBSCRIPTION_ALREADY_EXISTS",
    "FENCED",
    "ALREADY_CLAIMED",
    "NO_PENDING_WORK",
    "INVALID_OFFSET",
]

_STATUSES: dict[ErrorCode, int] = {
    "INVALID_REQUEST": 400,
    "SUBSCRIPTION_NOT_FOUND": 404,
    "SUBSCRIPTION_ALREADY_EXISTS": 409,
    "FENCED": 409,
    "ALREADY_CLAIMED": 409,
    "NO_PENDING_WORK": 409,
    "INVALID_OFFSET": 409,
}


class SubscriptionError(PerdureError):
    """A request about a subscription was refused; nothing has changed.

    ``code`` is one of `ErrorCode`, ``status`` follows from it. ``ALREADY_CLAIMED`` also says
    which worker is at it, and in which generation; it is retryable, as leases end. The
    protocol's other codes are errors of `webhooks`: `WebhookRejected`, `TokenInvalid`,
    `TokenExpired`.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, current_holder: str | None = None, generation: int | None = None
    ) -> None:
        self.code = code
        self.status = _STATUSES[code]
        self.retryable = code == "ALREADY_CLAIMED"
        self.current_holder, self.generation = current_holder, generation
        super().__init__(message)

    def as_json(self) -> dict[str, object]:
        error: dict[str, object] = {"code": self.code, "message": str(self), "retryable": self.retryable}
        if self.current_holder is not None:
            error["current_holder"] = self.current_holder
        if self.generation is not None:
            error["generation"] = self.generation
        return {"error": error}


def _invalid(message: str) -> SubscriptionError:
    return SubscriptionError("INVALID_REQUEST", message)


# --- paths and patterns


def stream_path(text: str) -> str:
    """A stream's path relative to the root of all streams, without slashes at its ends.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``: no stream can have it.
        LimitExceeded: ``subscription_path_bytes_max``.
    """
    path = text.strip("/")
    if not path or _has_control_characters(path):
        raise _invalid(f"not the path of a stream: {text[:80]!r}")
    if path == "__ds" or path.startswith("__ds/"):
        raise _invalid("paths below __ds are reserved")
    _check_size("subscription_path_bytes_max", path, SUBSCRIPTION_PATH_BYTES_MAX)
    return path


class _Wild(Enum):
    ONE = "*"
    MANY = "**"


class StreamPattern:
    """A glob over paths of streams.

    ``*`` stands for exactly one segment, ``**`` for any number of them, also none; every other
    segment for itself. A segment that is an asterisk itself is written ``%2A``.
    """

    def __init__(self, pattern: str) -> None:
        self._wanted: list[str | _Wild] = [
            _Wild(segment) if segment in ("*", "**") else segment.replace("%2A", "*").replace("%2a", "*")
            for segment in pattern.split("/")
            if segment
        ]

    def matches(self, path: str) -> bool:
        """Whether the pattern covers the path. Takes time in proportion to both lengths, whatever they hold."""
        wanted, segments = self._wanted, [segment for segment in path.split("/") if segment]
        at = here = 0
        after_many, retry = -1, 0  # where to go on when the last ** has to take one segment more
        while here < len(segments):
            segment = wanted[at] if at < len(wanted) else None
            if segment is _Wild.MANY:
                at += 1
                after_many, retry = at, here
            elif segment is _Wild.ONE or segment == segments[here]:
                at += 1
                here += 1
            elif after_many >= 0:
                retry += 1
                at, here = after_many, retry
            else:
                return False
        return all(segment is _Wild.MANY for segment in wanted[at:])


# --- requests


class SubscriptionConfig(msgspec.Struct, frozen=True):
    """What a subscription was created with, normalised: ``streams`` is sorted and free of repetitions.

    A webhook subscription has ``webhook_url``, a pull-wake subscription ``wake_stream``; at least
    one of ``pattern`` and ``streams`` is there.
    """

    type: SubscriptionType
    pattern: str | None = None
    streams: tuple[str, ...] = ()
    webhook_url: str | None = None
    wake_stream: str | None = None
    lease_ttl_ms: int = LEASE_TTL_MS
    description: str | None = None


def check_subscription_id(id: str) -> str:
    """The id, if a subscription may have it.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``: it is empty, has control characters, or is no valid text.
        LimitExceeded: ``subscription_id_bytes_max``.
    """
    if not id or _has_control_characters(id):
        raise _invalid("not an id of a subscription")
    _check_size("subscription_id_bytes_max", id, SUBSCRIPTION_ID_BYTES_MAX)
    return id


def parse_subscription(body: bytes) -> SubscriptionConfig:
    """The body of PUT. Fields that the type does not use are ignored, and so are unknown ones; null is absent.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``; the text names the field.
        WebhookRejected: ``webhook.url`` may not be called.
        LimitExceeded: ``pattern_bytes_max``, ``explicit_streams_max``, ``description_bytes_max``,
            ``subscription_path_bytes_max``, ``webhook_url_bytes_max`` or ``subscription_body_bytes_max``.
    """
    fields = _fields(body)
    kind = fields.get("type")
    if kind not in ("webhook", "pull-wake"):
        raise _invalid("type is webhook or pull-wake")
    pattern = _pattern(_optional_text(fields, "pattern"))
    given = fields.get("streams")
    streams = () if given is None else _paths(given)
    if pattern is None and not streams:
        raise _invalid("a subscription needs a pattern or streams")
    webhook_url = wake_stream = None
    if kind == "webhook":
        webhook = fields.get("webhook")
        webhook_url = _optional_text(webhook, "url") if isinstance(webhook, dict) else None
        if webhook_url is None:
            raise _invalid("a webhook subscription needs webhook.url")
        parse_webhook_url(webhook_url)
    else:
        name = _optional_text(fields, "wake_stream")
        if name is None:
            raise _invalid("a pull-wake subscription needs wake_stream")
        wake_stream = stream_path(name)
        if wake_stream in streams:
            raise _invalid("a subscription cannot watch its own wake_stream")
    description = fields.get("description")
    if description is not None and not isinstance(description, str):
        raise _invalid("description is a text")
    _check_size("description_bytes_max", description or "", DESCRIPTION_BYTES_MAX)
    return SubscriptionConfig(
        kind, pattern, streams, webhook_url, wake_stream, _lease_ttl_ms(fields.get("lease_ttl_ms")), description
    )


def config_hash(config: SubscriptionConfig) -> str:
    """The same for the same configuration, on every machine and in every version: hexadecimal SHA-256."""
    canonical = (
        config.type,
        config.pattern,
        config.streams,
        config.webhook_url,
        config.wake_stream,
        config.lease_ttl_ms,
        config.description,
    )
    return hashlib.sha256(encode_json(canonical)).hexdigest()


def parse_streams(body: bytes) -> tuple[str, ...]:
    """The paths to be watched by name, sorted.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``.
        LimitExceeded: ``explicit_streams_max``, ``subscription_path_bytes_max`` or ``subscription_body_bytes_max``.
    """
    paths = _paths(_fields(body).get("streams"))
    if not paths:
        raise _invalid("streams is a non-empty array of paths")
    return paths


def parse_claim(body: bytes) -> str:
    """The worker that wants the work.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``.
        LimitExceeded: ``worker_bytes_max`` or ``subscription_body_bytes_max``.
    """
    worker = _optional_text(_fields(body), "worker")
    if worker is None:
        raise _invalid("worker is a non-empty text")
    _check_size("worker_bytes_max", worker, WORKER_BYTES_MAX)
    return worker


class AckRequest(msgspec.Struct, frozen=True):
    """The body of a callback, an ack or a release. ``acks`` has the last offset by path."""

    wake_id: str
    generation: int
    acks: dict[str, str] = {}
    done: bool = False


def parse_ack(body: bytes) -> AckRequest:
    """A callback, an ack or a release. A stream that is named twice counts with its last offset.

    Raises:
        SubscriptionError: ``INVALID_REQUEST``.
        LimitExceeded: ``wake_offset_bytes_max``, ``subscription_path_bytes_max`` or ``subscription_body_bytes_max``.
    """
    fields = _fields(body)
    wake_id, generation, done = fields.get("wake_id"), fields.get("generation"), fields.get("done")
    if not isinstance(wake_id, str) or not isinstance(generation, int) or isinstance(generation, bool):
        raise _invalid("wake_id is a text and generation a number: those of the wake")
    if done is not None and not isinstance(done, bool):
        raise _invalid("done is true or false")
    given = fields.get("acks")
    if given is not None and not isinstance(given, list):
        raise _invalid("acks is an array")
    acks: dict[str, str] = {}
    for item in given or ():
        path, offset = _ack(item)
        acks[path] = later_offset(offset, acks.get(path, BEFORE_FIRST_OFFSET))
    return AckRequest(wake_id, generation, acks, done is True)


def later_offset(one: str, other: str) -> str:
    """The one that is further on in a stream. Offsets compare as text; "-1" is before all."""
    return one if is_after(one, other) else other


def is_after(one: str, other: str) -> bool:
    """Whether the offset ``one`` is further on than ``other``."""
    return one != BEFORE_FIRST_OFFSET and (other == BEFORE_FIRST_OFFSET or one > other)


def webhook_is_done(reply: bytes) -> bool:
    """Whether a webhook's reply says ``{"done": true}``. Anything else, of any form, says no."""
    try:
        fields = decode_json(reply, "the reply")
    except RemoteProtocolError:
        return False
    return isinstance(fields, dict) and fields.get("done") is True


def _fields(body: bytes) -> dict[str, Any]:
    if len(body) > SUBSCRIPTION_BODY_BYTES_MAX:
        raise LimitExceeded("subscription_body_bytes_max", len(body), SUBSCRIPTION_BODY_BYTES_MAX)
    try:
        fields = decode_json(body or b"{}", "the request body")
    except RemoteProtocolError as error:
        raise _invalid(str(error)) from error
    if not isinstance(fields, dict):
        raise _invalid("the request body is a JSON object")
    return fields


def _optional_text(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise _invalid(f"{name} is a non-empty text")
    return value


def _pattern(text: str | None) -> str | None:
    if text is None:
        return None
    pattern = text.strip("/")
    if not pattern or _has_control_characters(pattern):
        raise _invalid("pattern is a glob over paths of streams")
    _check_size("pattern_bytes_max", pattern, PATTERN_BYTES_MAX)
    return pattern


def _paths(given: object) -> tuple[str, ...]:
    if not isinstance(given, list) or not all(isinstance(item, str) for item in given):
        raise _invalid("streams is an array of paths")
    paths = sorted({stream_path(item) for item in given})
    if len(paths) > EXPLICIT_STREAMS_MAX:
        raise LimitExceeded("explicit_streams_max", len(paths), EXPLICIT_STREAMS_MAX)
    return tuple(paths)


def _lease_ttl_ms(given: object) -> int:
    if given is None:
        return LEASE_TTL_MS
    # 1000.0 is an integer in JSON's eyes, and true is one in Python's
    if isinstance(given, int | float) and not isinstance(given, bool) and given == given // 1:
        if LEASE_TTL_MS_MIN <= given <= LEASE_TTL_MS_MAX:
            return int(given)
    raise _invalid(f"lease_ttl_ms is an integer from {LEASE_TTL_MS_MIN} to {LEASE_TTL_MS_MAX}")


def _ack(item: object) -> tuple[str, str]:
    if isinstance(item, dict):
        path, offset = item.get("stream", item.get("path")), item.get("offset")
        if isinstance(path, str) and isinstance(offset, str) and offset:
            _check_size("wake_offset_bytes_max", offset, WAKE_OFFSET_BYTES_MAX)
            return stream_path(path), offset
    raise _invalid("each of acks has a stream's path and an offset")


def _has_control_characters(text: str) -> bool:
    return any(ord(character) < 32 or ord(character) == 127 for character in text)


def _check_size(limit: str, text: str, maximum: int) -> None:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise _invalid("this is not valid Unicode text") from None
    if size > maximum:
        raise LimitExceeded(limit, size, maximum)


# --- replies, and what is sent out


class StreamInfo(msgspec.Struct, frozen=True):
    """One stream as a worker sees it. Work is what lies between ``acked_offset`` and ``tail_offset``."""

    path: str
    link_type: LinkType
    acked_offset: str
    tail_offset: str
    has_pending: bool


def callback_url(root_url: str, subscription_id: str) -> str:
    """Where a webhook's receiver reports to. ``root_url`` is that of all streams: ``https://host/v1/stream``."""
    return f"{root_url}/__ds/subscriptions/{quote(subscription_id, safe='')}/callback"


def jwks_url(root_url: str) -> str:
    """Where the keys of webhooks' signatures are published."""
    return f"{root_url}/{JWKS_PATH}"


def subscription_document(
    id: str,
    config: SubscriptionConfig,
    *,
    streams: Iterable[StreamInfo],
    created_at_ms: int,
    status: SubscriptionStatus,
    root_url: str,
    kid: str,
) -> bytes:
    """The subscription as GET and PUT show it; ``kid`` is the id of the key that signs webhooks now."""
    document: dict[str, object] = {"id": id, "subscription_id": id, "type": config.type}
    if config.pattern is not None:
        document["pattern"] = config.pattern
    document["streams"] = [
        {"path": info.path, "link_type": info.link_type, "acked_offset": info.acked_offset} for info in streams
    ]
    if config.webhook_url is not None:
        signing = {"alg": "ed25519", "kid": kid, "jwks_url": jwks_url(root_url)}
        document["webhook"] = {"url": config.webhook_url, "signing": signing}
    if config.wake_stream is not None:
        document["wake_stream"] = config.wake_stream
    document["lease_ttl_ms"] = config.lease_ttl_ms
    created_at = datetime.fromtimestamp(created_at_ms // 1000, UTC).replace(tzinfo=None).isoformat()
    document["created_at"] = f"{created_at}.{created_at_ms % 1000:03d}Z"
    document["status"] = status
    if config.description is not None:
        document["description"] = config.description
    return encode_json(document)


def claim_document(
    *, wake_id: str, generation: int, token: str, streams: Iterable[StreamInfo], lease_ttl_ms: int
) -> bytes:
    """The answer to a claim that was granted."""
    return encode_json(
        {
            "wake_id": wake_id,
            "generation": generation,
            "token": token,
            "streams": list(streams),
            "lease_ttl_ms": lease_ttl_ms,
        }
    )


def ack_document(next_wake: bool) -> bytes:
    """The answer to a callback or an ack; ``next_wake``: more work is there, and a new wake on its way."""
    return encode_json({"ok": True, "next_wake": next_wake})


def webhook_body(
    *,
    subscription_id: str,
    wake_id: str,
    generation: int,
    streams: Iterable[StreamInfo],
    root_url: str,
    token: str,
) -> bytes:
    """The body of a wake by webhook; sign these very bytes."""
    return encode_json(
        {
            "subscription_id": subscription_id,
            "wake_id": wake_id,
            "generation": generation,
            "streams": list(streams),
            "callback_url": callback_url(root_url, subscription_id),
            "callback_token": token,
        }
    )


def wake_event(*, subscription_id: str, stream: str, generation: int, now_ms: int) -> bytes:
    """The JSON message that is appended to a wake stream. Nothing secret: all its readers see it."""
    return encode_json(
        {
            "type": "wake",
            "subscription_id": subscription_id,
            "stream": stream,
            "generation": generation,
            "ts": now_ms,
        }
    )
