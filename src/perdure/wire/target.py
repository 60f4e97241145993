"""Chunks for clients of an older version: what came after `ai` 6.0.0 is left out.

6.0.0 breaks a stream off over a field or a type that it does not know; later releases of 6 ignore unknown
fields but not unknown types. What a room stores may hold more, for the clients that know it::

    target   is told
    ai6      what 6.0.0 knows: every client of 6 and 7 can read it (the default)
    ai7      all of it

A chunk without newer fields passes unread: a text delta costs the look at its first bytes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import msgspec

from ..errors import BadArguments

Target = Literal["ai6", "ai7"]

TARGETS: tuple[Target, ...] = get_args(Target)

NEWER_FIELDS: dict[str, tuple[str, ...]] = {
    "text-end": ("citations",),
    "tool-input-start": ("providerMetadata", "toolMetadata", "inputEncoding"),
    "tool-input-available": ("toolMetadata",),
    "tool-input-error": ("toolMetadata",),
    "tool-approval-request": ("reason", "isAutomatic", "signature", "approvalDescriptor"),
    "tool-output-available": ("providerMetadata", "toolMetadata"),
    "tool-output-error": ("providerMetadata", "toolMetadata"),
    "abort": ("reason",),
}
"""By type, the fields that 6.0.0 refuses."""

NEWER_TYPES = frozenset({"custom", "reasoning-file"})
"""The types that 6.0.0 refuses."""

NEWER_FINISH_REASONS = {"interrupted": "other"}
"""The reasons that 6.0.0 refuses, and what it is told instead."""

_DELTA = b'{"type":"text-delta"'
_TYPE = re.compile(rb'\{"type":"([a-z-]+)"')


def parse_target(given: str | None, default: Target) -> Target:
    """The target that a request names.

    Raises:
        BadArguments: it names another.
    """
    if given is None:
        return default
    for target in TARGETS:
        if given == target:
            return target
    raise BadArguments(f"`target` is one of {', '.join(TARGETS)}, not {given[:80]!r}")


def for_target(chunks: Sequence[bytes], target: Target) -> Sequence[bytes]:
    """The chunks, as `encode_chunk` made them, that clients of the target can read; some may be left out."""
    if target == "ai7":
        return chunks
    shown: list[bytes] = []
    for data in chunks:
        if data.startswith(_DELTA):
            shown.append(data)
            continue
        safe = _safe(data)
        if safe is not None:
            shown.append(safe)
    return shown


def _safe(data: bytes) -> bytes | None:
    """The chunk without what 6.0.0 refuses; None: it refuses all of it."""
    match = _TYPE.match(data)
    change = _CHANGES.get(match[1]) if match is not None else None
    return data if change is None else change(data)


def _leave_out(_data: bytes) -> None:
    return None


def _without(names: tuple[str, ...]) -> Callable[[bytes], bytes | None]:
    # The names may stand in the application's own JSON, too: only the chunk's own fields go.
    suspect = re.compile(b"|".join(b'"%b":' % name.encode() for name in names))

    def change(data: bytes) -> bytes:
        if not suspect.search(data):
            return data
        fields: dict[str, Any] = msgspec.json.decode(data)
        kept = {name: value for name, value in fields.items() if name not in names}
        return data if len(kept) == len(fields) else msgspec.json.encode(kept)

    return change


def _finish(data: bytes) -> bytes:
    if not any(b'"finishReason":"%b"' % reason.encode() in data for reason in NEWER_FINISH_REASONS):
        return data
    fields: dict[str, Any] = msgspec.json.decode(data)
    safe = NEWER_FINISH_REASONS.get(fields.get("finishReason", ""))
    return data if safe is None else msgspec.json.encode(fields | {"finishReason": safe})


_CHANGES: dict[bytes, Callable[[bytes], bytes | None]] = {
    **{kind.encode(): _without(names) for kind, names in NEWER_FIELDS.items()},
    **{kind.encode(): _leave_out for kind in NEWER_TYPES},
    b"finish": _finish,
}
