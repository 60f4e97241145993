"""Items to request bodies, and what comes from a stream to messages."""

from __future__ import annotations

import pytest

from perdure.errors import LocalProtocolError, RemoteProtocolError
from perdure.streams_client.content import body_bytes, body_of, decode_base64, encode_item, is_exact_in_events, joined

JSON = "application/json"
BYTES = "application/octet-stream"


@pytest.mark.parametrize("content_type", [JSON, "Application/JSON; charset=utf-8"])
def test_a_json_streams_item_is_any_value(content_type: str) -> None:
    """A list is one message: the array around it is the request's."""
    items = [encode_item(item, content_type) for item in ({"a": 1}, [1, 2], "é", None)]
    assert body_of(items, content_type) == '[{"a":1},[1,2],"é",null]'.encode()


def test_bytes_are_json_text_already() -> None:
    """They stand in the request as they are, and must be one value."""
    assert encode_item(b'{"a": 1}', JSON) == b'{"a": 1}'
    for wrong in (b"1,2", b"", b"{"):
        with pytest.raises(LocalProtocolError, match="no JSON text"):
            encode_item(wrong, JSON)


def test_what_has_no_json_is_refused() -> None:
    """Before anything is sent."""
    with pytest.raises(LocalProtocolError):
        encode_item(object(), JSON)


def test_other_streams_take_bytes_and_text() -> None:
    """Items are joined without anything between them."""
    items = [encode_item(item, BYTES) for item in (b"a", "é", bytearray(b"c"), memoryview(b"d"))]
    assert body_of(items, BYTES) == b"a\xc3\xa9cd"
    for wrong in (1, {"a": 1}, None, b"", "", "\ud800"):
        with pytest.raises(LocalProtocolError):
            encode_item(wrong, BYTES)


@pytest.mark.parametrize("content_type", [JSON, BYTES])
def test_a_bodys_length_is_known_before_it_is_made(content_type: str) -> None:
    """Batches are measured by it."""
    for items in ([b"1"], [b"12", b"3"], [b"1", b"2", b"345"]):
        size = body_bytes(sum(map(len, items)), len(items), content_type)
        assert size == len(body_of(items, content_type))


def test_pieces_of_json_become_one_array() -> None:
    """Empty ones leave no comma; a value that is no array is one message."""
    pieces = [b"[]", b' [1, "a,b"]\n', b"[[2]]", b'{"x": 3}', b"[]"]
    assert joined(pieces, JSON) == (b'[1, "a,b",[2],{"x": 3}]', [1, "a,b", [2], {"x": 3}])
    assert joined([], JSON) == (b"[]", [])


def test_broken_json_is_an_error() -> None:
    """It must not be taken for an end."""
    with pytest.raises(RemoteProtocolError, match="what came from the stream"):
        joined([b'[{"a":1},'], JSON)


def test_pieces_of_bytes_are_joined() -> None:
    """Whatever they look like."""
    assert joined([b"[]", b"", b"\x00"], BYTES) == (b"[]\x00", [])


def test_base64_may_stand_in_lines() -> None:
    """Anything that is not base64 is an error, missing padding too."""
    assert decode_base64("AQIDBAUG\nBwgJCg==") == bytes(range(1, 11))
    assert decode_base64("") == b""
    for wrong in ("aGk", "a b=", "ä", "aGk=x"):
        with pytest.raises(RemoteProtocolError, match="not base64"):
            decode_base64(wrong)


def test_text_is_not_exact_in_events() -> None:
    """Its line ends would change; JSON's cannot, and bytes are encoded."""
    assert [is_exact_in_events(name) for name in ("text/plain", "TEXT/html; a=b", JSON, BYTES)] == [
        False,
        False,
        True,
        True,
    ]
