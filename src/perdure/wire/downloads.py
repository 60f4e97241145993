"""HTTP for a file that never changes: ranges, entity tags (RFC 9110), a name to save it under (RFC 6266)."""

from __future__ import annotations

import re
from urllib.parse import quote

_RANGE = re.compile(r"bytes\s*=\s*(?:(\d{1,18})\s*-\s*(\d{1,18})?|-\s*(\d{1,18}))", re.ASCII | re.IGNORECASE)
_QUOTED_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_DROPPED = re.compile(r"[\x00-\x1f\x7f]")

UNSATISFIABLE: tuple[int, int] = (0, -1)
"""A range that has no byte of the file: 416."""


def parse_range(header: str | None, size: int) -> tuple[int, int] | None:
    """The first and the last byte that ``Range`` asks for (RFC 9110, section 14.2).

    None: the whole file; also for several ranges at once and units other than bytes, which a server may ignore.
    `UNSATISFIABLE` where the range begins behind the file's end.
    """
    match = _RANGE.fullmatch((header or "").strip())
    if match is None:
        return None
    first, last, suffix = match.groups()
    if suffix is not None:
        length = min(int(suffix), size)
        return (size - length, size - 1) if length else UNSATISFIABLE
    begin = int(first)
    end = size - 1 if last is None else int(last)
    if last is not None and end < begin:
        return None
    return (begin, min(end, size - 1)) if begin < size else UNSATISFIABLE


def etag_matches(header: str | None, etag: str) -> bool:
    """Whether ``If-None-Match`` names this entity tag (weak comparison)."""
    if header is None:
        return False
    given = [item.strip().removeprefix("W/") for item in header.split(",")]
    return etag in given or "*" in given


def content_disposition(kind: str, filename: str | None) -> str:
    """``inline`` or ``attachment``, with the name to save it under (RFC 6266).

    The name goes out twice where it needs to: plain, with what is not ASCII replaced, and in UTF-8.
    """
    if not filename:
        return kind
    name = _DROPPED.sub("", filename)
    plain = _QUOTED_UNSAFE.sub("_", name)
    if plain == name and "%" not in name:
        return f'{kind}; filename="{plain}"'
    return f"{kind}; filename=\"{plain.replace('%', '_')}\"; filename*=UTF-8''{quote(name, safe='')}"


def base_name(filename: str) -> str:
    """The last piece of a name that may be a path, without control characters; empty where nothing is left."""
    name = _DROPPED.sub("", filename.replace("\\", "/").rsplit("/", 1)[-1]).strip()
    return "" if name in (".", "..") else name
