"""Values by key."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from perdure.errors import LimitExceeded
from perdure.storage import kv
from perdure.storage.object_storage import Storage


class Point(msgspec.Struct):
    """A value with a type."""

    x: int
    y: int = 0


def test_what_was_put_is_got(storage: Storage) -> None:
    """Any JSON-like value, and bytes as they are."""
    values: list[Any] = [None, True, 0, -1.5, "text ✓", [1, [2]], {"a": {"b": None}}, b"\x00\xff", ""]
    for number, value in enumerate(values):
        storage.put(f"key {number}", value)
    assert [storage.get(f"key {number}") for number in range(len(values))] == values


def test_a_missing_key_is_the_default(storage: Storage) -> None:
    """None unless told otherwise; a stored None is not missing."""
    storage.put("none", None)
    assert storage.get("nothing") is None
    assert storage.get("nothing", 5) == 5
    assert storage.get("none", 5) is None


def test_a_struct_comes_back_as_its_type(storage: Storage) -> None:
    """``type`` decodes to a Struct; a value that does not fit says so."""
    storage.put("point", Point(1, 2))
    assert storage.get("point", type=Point) == Point(1, 2)
    assert storage.get("point") == {"x": 1, "y": 2}
    storage.put("text", "no point")
    with pytest.raises(msgspec.ValidationError):
        storage.get("text", type=Point)
    assert storage.list("point", type=Point) == {"point": Point(1, 2)}


def test_a_mapping_puts_several_at_once(storage: Storage) -> None:
    """Nothing is put when one of them cannot be."""
    storage.put({"a": 1, "b": [2]})
    assert storage.list() == {"a": 1, "b": [2]}
    with pytest.raises(TypeError):
        storage.put({"c": 1, "d": object()})
    assert storage.get("c") is None


def test_delete_says_how_many_were_there(storage: Storage) -> None:
    """Several keys at once."""
    storage.put({"a": 1, "b": 2, "c": 3})
    assert storage.delete("a", "nothing", "b") == 2
    assert storage.delete("a") == 0
    assert storage.list() == {"c": 3}


def test_list_gives_ranges_in_order(storage: Storage) -> None:
    """Prefix, start (inclusive), end (exclusive), reverse, limit, and any mixture."""
    storage.put({key: key for key in ("a", "b1", "b2", "b3", "c", "B", "b")})
    assert list(storage.list()) == ["B", "a", "b", "b1", "b2", "b3", "c"]
    assert list(storage.list("b")) == ["b", "b1", "b2", "b3"]
    assert list(storage.list(start="b2")) == ["b2", "b3", "c"]
    assert list(storage.list(end="b2")) == ["B", "a", "b", "b1"]
    assert list(storage.list("b", start="b1", end="b3")) == ["b1", "b2"]
    assert list(storage.list("b", reverse=True, limit=2)) == ["b3", "b2"]
    assert list(storage.list(limit=1)) == ["B"]
    assert storage.list("x") == {}
    assert storage.list(limit=0) == {}


def test_keys_are_ordered_by_their_bytes(storage: Storage) -> None:
    """UTF-8 order, also past the Basic Multilingual Plane; a prefix may end in the last character."""
    keys = ["z", "ä", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff", "\U0010ffffx"]
    storage.put(dict.fromkeys(reversed(keys), 1))
    assert list(storage.list()) == keys
    assert list(storage.list("\U0010ffff")) == ["\U0010ffff", "\U0010ffffx"]
    assert list(storage.list("\ud7ff")) == ["\ud7ff"]


def test_a_key_has_a_limit(storage: Storage) -> None:
    """2,048 bytes of UTF-8: that many are accepted, one more is not."""
    storage.put("k" * 2048, 1)
    storage.put("ä" * 1024, 1)
    with pytest.raises(LimitExceeded, match="key_bytes_max allows 2,048 at most, this has 2,049"):
        storage.put("k" * 2049, 1)
    with pytest.raises(LimitExceeded, match="key_bytes_max"):
        storage.put("ä" * 1025, 1)
    assert len(storage.list()) == 2


def test_a_value_has_a_limit(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """As large as allowed is accepted, one byte more is not, and the turn goes on."""
    monkeypatch.setattr(kv, "VALUE_BYTES_MAX", 1_000)
    storage.put("bytes", bytes(1_000))
    storage.put("text", "x" * 998)
    with pytest.raises(LimitExceeded, match="value_bytes_max allows 1,000 at most, this has 1,001"):
        storage.put("bytes", bytes(1_001))
    with pytest.raises(LimitExceeded):
        storage.put("text", "x" * 999)
    assert len(storage.get("bytes")) == 1_000


def test_a_key_is_a_string(storage: Storage) -> None:
    """Anything else is the programmer's error."""
    with pytest.raises(TypeError, match="a key is a string, not int"):
        storage.put({5: 1})  # type: ignore[dict-item]
