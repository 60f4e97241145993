"""Small values that every layer shares: names of objects, offsets of streams, shards."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple

from .errors import InvalidName, LimitExceeded, OffsetError

OBJECT_NAME_BYTES_MAX = 512
"""Longest object name, in bytes of UTF-8. Long enough for any URL slug or e-mail address."""

SHARD_COUNT = 256
"""Shards of a data folder; fixed when the folder is made."""

OFFSET_DIGITS = 16
"""Digits of an offset: 10**16 entries a stream, and text order is number order."""


class ObjectId(NamedTuple):
    """The address of a durable object: its class's name and its own name."""

    class_name: str
    name: str

    @property
    def key(self) -> str:
        """``Class/name``: one text for journals, logs and indexes."""
        return f"{self.class_name}/{self.name}"

    @classmethod
    def from_key(cls, key: str) -> ObjectId:
        class_name, _, name = key.partition("/")
        return cls(class_name, name)


def check_object_name(name: str) -> str:
    """Return ``name`` if an object may bear it.

    Raises:
        InvalidName: it is empty, has control characters, or is no valid Unicode text.
        LimitExceeded: it is longer than `OBJECT_NAME_BYTES_MAX` bytes.
    """
    if not isinstance(name, str) or not name:
        raise InvalidName("an object's name must not be empty")
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidName("an object's name must be valid Unicode text") from None
    if size > OBJECT_NAME_BYTES_MAX:
        raise LimitExceeded("object_name_bytes_max", size, OBJECT_NAME_BYTES_MAX)
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        raise InvalidName("an object's name must not hold control characters")
    return name


def shard_of(object_key: str, shard_count: int = SHARD_COUNT) -> int:
    """The shard that an object belongs to: a stable hash of its key, the same on every machine."""
    digest = blake2b(object_key.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "big") % shard_count


def format_offset(position: int) -> str:
    """The opaque, sortable text of a stream position (the number of entries before it)."""
    return f"{position:0{OFFSET_DIGITS}d}"


def encode_offset(position: int) -> bytes:
    """`format_offset` as ASCII bytes, for headers."""
    return b"%016d" % position


def parse_offset(offset: str) -> int:
    """The position behind an offset; ``-1`` is the start.

    Raises:
        OffsetError: no stream ever gave this offset out.
    """
    if offset == "-1":
        return 0
    if len(offset) != OFFSET_DIGITS or not (offset.isascii() and offset.isdigit()):
        raise OffsetError(f"not an offset of a stream: {offset[:80]!r}")
    return int(offset)
