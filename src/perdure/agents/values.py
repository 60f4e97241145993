"""JSON values that an agent keeps: what is taken is what comes back."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import LimitExceeded

_encode = msgspec.json.Encoder().encode


def encode_value(value: Any, what: str, limit: str, bytes_max: int, *, kind: Any = Any) -> str:
    """The value as JSON text.

    Args:
        what: names it in errors, like ``a payload``.
        limit: the name of the limit on its size.
        kind: what it is decoded to when it is read: `Any` for plain JSON, or a type that msgspec knows.

    Raises:
        TypeError: it would not come back as it is: a tuple, bytes, NaN, a key that is no string, an object.
        LimitExceeded: it has more than ``bytes_max`` bytes.
    """
    try:
        data = _encode(value)
        same = msgspec.json.decode(data, type=kind) == value
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise TypeError(f"{what} must be JSON: {error}") from error
    if not same:
        raise TypeError(f"{what} must be JSON: this {type(value).__name__} would come back as something else")
    if len(data) > bytes_max:
        raise LimitExceeded(limit, len(data), bytes_max)
    return data.decode()


def decode_value(text: str | None, kind: Any = Any) -> Any:
    """The value of the text; None of None."""
    return None if text is None else msgspec.json.decode(text, type=kind)
