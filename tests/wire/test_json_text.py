"""JSON from peers: one error for everything that can be wrong with it."""

from __future__ import annotations

import msgspec
import pytest

from perdure.errors import LocalProtocolError, RemoteProtocolError
from perdure.wire.json_text import decode_json, encode_json


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the frame is not valid JSON: Input data was truncated"),
        (b'{"a":1', "the frame is not valid JSON: Input data was truncated"),
        (b'{"a":1}x', "the frame is not valid JSON: JSON is malformed: trailing characters (byte 8)"),
        (b"NaN", "the frame is not valid JSON: JSON is malformed: invalid character (byte 0)"),
        (b'"\xff"', "the frame is not valid UTF-8 text"),
        (b'"\xed\xa0\xbd"', "the frame is not valid UTF-8 text"),
        ("\ud83d", "the frame is not valid UTF-8 text"),
        pytest.param(b"[" * 100_000, "the frame is nested too deeply", id="deep"),
    ],
)
def test_bad_json_is_a_remote_protocol_error(data: bytes | str, message: str) -> None:
    """Cut, malformed, mis-encoded and too deeply nested text all end as one kind of error."""
    with pytest.raises(RemoteProtocolError) as caught:
        decode_json(data, "the frame")
    assert str(caught.value) == message


def test_a_typed_decoder_names_the_field_that_is_wrong() -> None:
    """With a type to decode to, the error says where the JSON departs from it."""
    decoder = msgspec.json.Decoder(dict[str, int])
    assert decode_json(b'{"a":1}', "the map", decoder) == {"a": 1}
    with pytest.raises(RemoteProtocolError, match="the map is not what it should be: Expected `int`, got `str`"):
        decode_json(b'{"a":"1"}', "the map", decoder)


@pytest.mark.parametrize("value", ["\ud83d", object(), {1.5: "a", (): "b"}])
def test_what_has_no_json_is_a_local_protocol_error(value: object) -> None:
    """Half a surrogate pair and foreign objects cannot be sent, and that is our fault."""
    with pytest.raises(LocalProtocolError, match="cannot be sent as JSON"):
        encode_json(value)
