"""Cut JSON: what a front end shows of a tool's input while the model still writes it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from perdure.wire.partial_json import parse_partial_json


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", UNSET),
        (" ", UNSET),
        ("{", {}),
        ('{"', {}),
        ('{"ci', {}),
        ('{"city"', {}),
        ('{"city":', {}),
        ('{"city": "', {"city": ""}),
        ('{"city": "Par', {"city": "Par"}),
        ('{"city": "Par\\', {"city": "Par"}),
        ('{"city": "Par\\n', {"city": "Par\n"}),
        ('{"city": "Par\\u00e', {"city": "Par"}),
        ('{"city": "Par\\u00e9', {"city": "Paré"}),
        ('{"city": "Paris"', {"city": "Paris"}),
        ('{"city": "Paris",', {"city": "Paris"}),
        ('{"city": "Paris", "n": -', {"city": "Paris"}),
        ('{"n": -1', {"n": -1}),
        ('{"n": 1.', {"n": 1}),
        ('{"n": 1.5e', {"n": 1.5}),
        ('{"n": 12, ', {"n": 12}),
        ('{"n": 12}', {"n": 12}),
        ('{"a": [1, {"b": tr', {"a": [1, {"b": True}]}),
        ('{"a": [fal', {"a": [False]}),
        ('{"a": n', {"a": None}),
        ('{"a": null, "b": {', {"a": None, "b": {}}),
        ("[", []),
        ("[[", [[]]),
        ("[1", [1]),
        ("[1,", [1]),
        ("[1, -", [1]),
        ("[-", UNSET),
        ("[1e+", [1]),
        ('["a"]', ["a"]),
        ('"ab', "ab"),
        ("tru", True),
        ("-", UNSET),
        ("nonsense", UNSET),
        ('{"a": }', {}),
        ('{"__proto__": 1}', UNSET),
        ('{"a": {"constructor": {"prototype": 1', UNSET),
        pytest.param("[" * 100_000, UNSET, id="deep"),
    ],
)
def test_cut_json_is_completed(text: str, value: Any) -> None:
    """Open texts are closed, begun words finished; half keys, numbers and escapes are left out."""
    assert parse_partial_json(text) == value


_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


# Keys without quotes: clients take an escaped quote for a key's end, and so does this.
@settings(deadline=None)
@given(st.dictionaries(st.text("abc", max_size=3), _values, max_size=3))
def test_every_cut_of_an_object_is_an_object(value: dict[str, Any]) -> None:
    """From its first brace on, a cut object shows its whole keys in order, and nothing else."""
    text = json.dumps(value, ensure_ascii=False)
    for length in range(1, len(text) + 1):
        partial = parse_partial_json(text[:length])
        if partial is UNSET:
            assert text[:length].endswith("[-")  # an array's lone minus: clients show nothing either
        else:
            assert list(partial) == list(value)[: len(partial)]
    assert parse_partial_json(text) == value


def test_a_long_text_takes_one_pass() -> None:
    """A megabyte in one string is skipped over, not walked through."""
    text = '{"essay": "' + "x" * 1_000_000
    assert parse_partial_json(text) == {"essay": "x" * 1_000_000}
