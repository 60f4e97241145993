"""Files as chats carry them: media types, data URLs, and what a file's first bytes say that it is.

A file part of a message is ``{"type": "file", "mediaType": "image/png", "filename"?: "a.png", "url": ...}``. Its
``url`` is an address, or the file itself as a data URL (RFC 2397)::

    data:image/png;base64,iVBORw0KGgo...
    data:text/plain,Hello%20there
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from ..errors import LimitExceeded, RemoteProtocolError

DATA_URL_HEAD_CHARACTERS_MAX = 512
"""Characters of a data URL before its comma."""

PERCENT_DATA_CHARACTERS_MAX = 262_144
"""Characters of a data URL that is not Base64: decoding takes forty times as long, and nobody sends files so."""

UNKNOWN_TYPE = "application/octet-stream"

_TOKEN = r"[a-z0-9!#$&^_.+\-]{1,127}"  # RFC 6838, section 4.2
_MEDIA_TYPE = re.compile(rf"({_TOKEN})/({_TOKEN})")
_NO_PERCENT_DATA = re.compile(r"[^!-~]|%(?![0-9A-Fa-f]{2})")

_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-png": "image/png",
    "audio/mp3": "audio/mpeg",
    "audio/wave": "audio/wav",
    "audio/x-wav": "audio/wav",
    "audio/vnd.wave": "audio/wav",
    "application/x-pdf": "application/pdf",
}

_MAGIC: tuple[tuple[bytes, int, bytes, str], ...] = (
    # first bytes, then (from an offset on) further ones
    (b"\x89PNG\r\n\x1a\n", 0, b"", "image/png"),
    (b"\xff\xd8\xff", 0, b"", "image/jpeg"),
    (b"GIF87a", 0, b"", "image/gif"),
    (b"GIF89a", 0, b"", "image/gif"),
    (b"RIFF", 8, b"WEBP", "image/webp"),
    (b"RIFF", 8, b"WAVE", "audio/wav"),
    (b"II*\x00", 0, b"", "image/tiff"),
    (b"MM\x00*", 0, b"", "image/tiff"),
    (b"", 4, b"ftypavif", "image/avif"),
    (b"", 4, b"ftypheic", "image/heic"),
    (b"%PDF-", 0, b"", "application/pdf"),
    (b"ID3", 0, b"", "audio/mpeg"),
    (b"OggS", 0, b"", "audio/ogg"),
    (b"fLaC", 0, b"", "audio/flac"),
    (b"PK\x03\x04", 0, b"", "application/zip"),
)
"""Kinds of files that begin with bytes of their own (the WHATWG's MIME sniffing standard, section 6)."""

CHECKED_TYPES = frozenset(
    kind for _, _, _, kind in _MAGIC if kind.startswith("image/") or kind == "application/pdf"
) - {"image/heic", "image/avif"}
"""Types whose files always begin so: one that does not is something else. (Two have more brands than are listed.)"""


class DataUrl(NamedTuple):
    """A data URL, taken apart; ``payload`` is still encoded."""

    media_type: str
    base64: bool
    payload: str

    @property
    def size(self) -> int:
        """How many bytes it holds, if it is valid; it cannot be more."""
        if not self.base64:
            return len(self.payload) - 2 * self.payload.count("%")
        return len(self.payload) // 4 * 3 - self.payload.endswith("=") - self.payload.endswith("==")

    def decode(self) -> bytes:
        """The bytes.

        Raises:
            LimitExceeded: ``percent_data_characters_max``.
            RemoteProtocolError: it is not the Base64 of RFC 4648 (with its padding, without line breaks), or
                holds characters that a URL cannot.
        """
        return _from_base64(self.payload) if self.base64 else _from_percent(self.payload)

    def pieces(self, piece_bytes: int) -> Iterator[bytes]:
        """The bytes, so many at a time (a multiple of 3; the last may be fewer), decoded as they are asked for.

        Decoding holds up all threads, some milliseconds a megabyte. Raises what `decode` does.
        """
        if not self.base64:
            data = _from_percent(self.payload)
            for start in range(0, len(data), piece_bytes):
                yield data[start : start + piece_bytes]
            return
        step = piece_bytes // 3 * 4
        for start in range(0, len(self.payload), step):
            piece = _from_base64(self.payload[start : start + step])
            if len(piece) < piece_bytes and start + step < len(self.payload):
                raise RemoteProtocolError("a data URL is not valid Base64")  # padding in the middle
            yield piece


def _from_base64(payload: str) -> bytes:
    try:
        return binascii.a2b_base64(payload, strict_mode=True)
    except ValueError as error:
        raise RemoteProtocolError("a data URL is not valid Base64") from error


def _from_percent(payload: str) -> bytes:
    if len(payload) > PERCENT_DATA_CHARACTERS_MAX:
        raise LimitExceeded("percent_data_characters_max", len(payload), PERCENT_DATA_CHARACTERS_MAX)
    if _NO_PERCENT_DATA.search(payload) is not None:
        raise RemoteProtocolError("a data URL holds characters that must be percent-encoded")
    return unquote_to_bytes(payload)


def is_data_url(url: str) -> bool:
    """Whether the text begins like one."""
    return url[:5].lower() == "data:"


def parse_data_url(url: str) -> DataUrl:
    """Take a data URL apart; nothing of its payload is decoded yet.

    Raises:
        RemoteProtocolError: it is none.
    """
    comma = url.find(",", 0, DATA_URL_HEAD_CHARACTERS_MAX)
    if not is_data_url(url) or comma < 0:
        raise RemoteProtocolError("a data URL is `data:`, a media type, `;base64`, a comma and the data")
    kind, *parameters = url[5:comma].split(";")
    base64 = bool(parameters) and parameters[-1].strip().lower() == "base64"
    return DataUrl(parse_media_type(kind) if kind.strip() else "text/plain", base64, url[comma + 1 :])


def parse_media_type(text: str) -> str:
    """The type and subtype of a ``Content-Type``, in lower case, under its usual name; no parameters.

    Raises:
        RemoteProtocolError: it is none.
    """
    kind = text.partition(";")[0].strip().lower()
    if _MEDIA_TYPE.fullmatch(kind) is None:
        raise RemoteProtocolError(f"{text[:80]!r} is no media type, like image/png")
    return _ALIASES.get(kind, kind)


def type_allowed(media_type: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns (``image/png``, ``image/*``, ``*/*``) allows the type."""
    family = media_type.partition("/")[0]
    return any(pattern in (media_type, f"{family}/*", "*/*") for pattern in patterns)


def sniff_media_type(start: bytes) -> str | None:
    """What a file is by its first 16 bytes; None where they do not tell."""
    for first, offset, further, kind in _MAGIC:
        if start.startswith(first) and start.startswith(further, offset):
            return kind
    return None


def contradiction(media_type: str, start: bytes) -> str | None:
    """What the first bytes say that the file is, where that cannot be ``media_type``: a type, or "something else".

    Only images and PDF are looked at: a picture that is none, and a picture that says it is none.
    """
    found = sniff_media_type(start)
    if media_type == found:
        return None
    if media_type in CHECKED_TYPES:
        return found or "something else"
    return found if found in CHECKED_TYPES else None
