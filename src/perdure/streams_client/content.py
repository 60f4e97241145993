"""What is in a stream: JSON messages, or bytes. Items to request bodies, bodies to messages.

A JSON stream keeps the boundaries of its messages; a request carries them as one array, whose
elements are the messages. A stream of any other content type is bytes; its items are joined.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Any

import msgspec

from ..errors import LocalProtocolError, RemoteProtocolError
from ..wire.json_text import decode_json, encode_json

DEFAULT_CONTENT_TYPE = "application/octet-stream"


def media_type(content_type: str) -> str:
    """The content type without its parameters, in small letters."""
    return content_type.partition(";")[0].strip().lower()


def is_json(content_type: str) -> bool:
    """Whether a stream of this type has messages."""
    return media_type(content_type) == "application/json"


def is_exact_in_events(content_type: str) -> bool:
    """Whether server-sent events carry the stream unchanged.

    Of text they do not: line ends become ``\\n``, and a character that two appends share is lost.
    """
    return not media_type(content_type).startswith("text/")


def encode_item(item: object, content_type: str) -> bytes:
    """One item as it stands in a request.

    In a JSON stream an item is any value that has JSON; ``bytes`` are JSON text already. In other
    streams it is ``bytes``, or ``str``, which is sent as UTF-8.

    Raises:
        LocalProtocolError: the item cannot be sent to a stream of this type, or is empty.
    """
    if is_json(content_type):
        return _checked_json(bytes(item)) if isinstance(item, bytes | bytearray | memoryview) else encode_json(item)
    if isinstance(item, str):
        try:
            item = item.encode()
        except UnicodeEncodeError as error:
            raise LocalProtocolError(f"this cannot be sent as UTF-8: {error}") from error
    if not isinstance(item, bytes | bytearray | memoryview):
        raise LocalProtocolError(f"a stream of {content_type} takes bytes or str, not {type(item).__name__}")
    data = bytes(item)
    if not data:
        raise LocalProtocolError("there is nothing to append")
    return data


def _checked_json(text: bytes) -> bytes:
    try:
        msgspec.json.decode(text)
    except (ValueError, RecursionError) as error:
        raise LocalProtocolError(f"these bytes are no JSON text: {error}") from error
    return text


def body_of(items: Iterable[bytes], content_type: str) -> bytes:
    """The request body that appends the encoded items."""
    return b"[" + b",".join(items) + b"]" if is_json(content_type) else b"".join(items)


def body_bytes(items_bytes: int, item_count: int, content_type: str) -> int:
    """How long `body_of` so many items of so many bytes together is."""
    return items_bytes + item_count + 1 if is_json(content_type) else items_bytes


def joined(pieces: list[bytes], content_type: str) -> tuple[bytes, list[Any]]:
    """What came in pieces, as one piece, and its messages (none of a stream that is not JSON).

    A piece of a JSON stream is an array of messages; anything else is taken as one message.

    Raises:
        RemoteProtocolError: a piece of a JSON stream is no JSON.
    """
    if not is_json(content_type):
        return b"".join(pieces), []
    messages: list[Any] = []
    texts: list[bytes] = []
    for piece in pieces:
        value = decode_json(piece, "what came from the stream")
        if not isinstance(value, list):
            messages.append(value)
            texts.append(piece)
        elif value:
            messages += value
            texts.append(piece.strip()[1:-1])
    return b"[" + b",".join(texts) + b"]", messages


def decode_base64(text: str) -> bytes:
    """The bytes of one server-sent event that is base64.

    Raises:
        RemoteProtocolError: it is not.
    """
    try:
        return binascii.a2b_base64(text.replace("\n", ""), strict_mode=True)
    except (ValueError, UnicodeError) as error:
        raise RemoteProtocolError(f"what came from the stream is not base64: {error}") from error
