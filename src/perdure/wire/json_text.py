"""JSON as peers send it: one way to decode it, one way to refuse it.

`msgspec` and the standard library report bad text through five different exceptions; every
protocol here wants one, with a sentence that can be shown to the peer.
"""

from __future__ import annotations

from typing import Any, TypeVar, overload

import msgspec

from ..errors import LocalProtocolError, RemoteProtocolError

T = TypeVar("T")

_ENCODER = msgspec.json.Encoder()


@overload
def decode_json(data: bytes | str, what: str) -> Any: ...
@overload
def decode_json(data: bytes | str, what: str, decoder: msgspec.json.Decoder[T]) -> T: ...
def decode_json(data: bytes | str, what: str, decoder: msgspec.json.Decoder[Any] | None = None) -> Any:
    """Decode a peer's JSON; ``what`` names it in the error (``"the frame"``).

    Raises:
        RemoteProtocolError: it is no JSON, no UTF-8, nested too deeply, or not what ``decoder`` expects.
    """
    try:
        return msgspec.json.decode(data) if decoder is None else decoder.decode(data)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"{what} is not what it should be: {error}") from error
    except UnicodeError as error:
        raise RemoteProtocolError(f"{what} is not valid UTF-8 text") from error
    except ValueError as error:
        raise RemoteProtocolError(f"{what} is not valid JSON: {error}") from error
    except RecursionError as error:
        raise RemoteProtocolError(f"{what} is nested too deeply") from error


def encode_json(value: object) -> bytes:
    """Compact UTF-8 JSON.

    Raises:
        LocalProtocolError: it holds something that has no JSON, such as half a surrogate pair.
    """
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise LocalProtocolError(f"this cannot be sent as JSON: {error}") from error


def has_prototype_key(value: object) -> bool:
    """Whether an object in ``value`` has a key that JavaScript clients refuse: ``__proto__``, or a
    ``constructor`` with a ``prototype``. One such key ends a client's whole stream.
    """
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            if "__proto__" in item:
                return True
            constructor = item.get("constructor")
            if isinstance(constructor, dict) and "prototype" in constructor:
                return True
            waiting.extend(item.values())
        elif isinstance(item, list | tuple):
            waiting.extend(item)
    return False
