"""Media types, data URLs and first bytes of files."""

from __future__ import annotations

import base64
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.files import (
    contradiction,
    is_data_url,
    parse_data_url,
    parse_media_type,
    sniff_media_type,
    type_allowed,
)

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"


@pytest.mark.parametrize(
    ("url", "media_type", "data"),
    [
        ("data:image/png;base64,iVBORw0KGgo=", "image/png", b"\x89PNG\r\n\x1a\n"),
        ("data:text/plain,Hello%20there", "text/plain", b"Hello there"),
        ("data:,", "text/plain", b""),
        ("data:;base64,QQ==", "text/plain", b"A"),
        ("DATA:Text/HTML;charset=utf-8;base64,PGI+", "text/html", b"<b>"),
        ("data:image/jpg;base64,/9j/", "image/jpeg", b"\xff\xd8\xff"),
        ("data:application/vnd.oai.openapi+json,{}", "application/vnd.oai.openapi+json", b"{}"),
    ],
)
def test_data_urls_are_decoded(url: str, media_type: str, data: bytes) -> None:
    """The type without its parameters, under its usual name, and the bytes."""
    parsed = parse_data_url(url)
    assert (parsed.media_type, parsed.decode()) == (media_type, data)
    assert is_data_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "https://example.com/a.png",
        "data:image/png;base64",
        "data:image;base64,QQ==",
        "data:image/p ng,QQ",
        "data:" + "x" * 600 + "/y,",
        "data:text/plain;base64,QQ",
        "data:text/plain;base64,Q",
        "data:text/plain;base64,QQ==\n",
        "data:text/plain;base64,Q Q=",
        "data:text/plain;base64,QQ==QQ==",
        "data:text/plain;base64,QQ-_",
        "data:text/plain;base64,é",
        "data:text/plain,100%",
        "data:text/plain,a b",
        "data:text/plain,é",
    ],
)
def test_what_is_no_data_url_is_refused(url: str) -> None:
    """No comma, no type, a long head, Base64 that is not whole, characters that no URL has."""
    with pytest.raises(RemoteProtocolError):
        parse_data_url(url).decode()
    with pytest.raises(RemoteProtocolError):
        list(parse_data_url(url).pieces(3))


@given(st.binary(max_size=200))
def test_any_bytes_come_back(data: bytes) -> None:
    """In both encodings; and how large a file is can be told before it is decoded."""
    encoded = parse_data_url(f"data:a/b;base64,{base64.b64encode(data).decode()}")
    assert (encoded.decode(), encoded.size) == (data, len(data))
    pieces = list(encoded.pieces(6))
    assert (b"".join(pieces), {len(piece) for piece in pieces[:-1]} | {6}) == (data, {6})
    percent = parse_data_url(f"data:a/b,{quote_from_bytes(data)}")
    assert (percent.decode(), percent.size) == (data, len(data))
    assert b"".join(percent.pieces(6)) == data


def test_only_base64_is_long() -> None:
    """``percent_data_characters_max``: what is not Base64 is for short texts."""
    assert len(parse_data_url("data:text/plain," + "x" * 262_144).decode()) == 262_144
    longer = parse_data_url("data:text/plain," + "x" * 262_145)
    with pytest.raises(LimitExceeded, match="percent_data_characters_max"):
        longer.decode()
    with pytest.raises(LimitExceeded, match="percent_data_characters_max"):
        list(longer.pieces(3))


def test_patterns_allow_types() -> None:
    """A type by itself, a family, or all."""
    assert type_allowed("image/png", ["image/png"])
    assert type_allowed("image/png", ["text/plain", "image/*"])
    assert type_allowed("image/png", ["*/*"])
    assert not type_allowed("image/png", ["image/p*", "imag/*", "png", "text/*"])
    assert not type_allowed("image/png", [])


@pytest.mark.parametrize(
    ("start", "media_type"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "image/jpeg"),
        (b"GIF89a\x01\x00", "image/gif"),
        (b"RIFF\x24\x00\x00\x00WEBPVP8 ", "image/webp"),
        (b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav"),
        (b"RIFF\x24\x00\x00\x00AVI LIST", None),
        (b"\x00\x00\x00\x20ftypavif", "image/avif"),
        (b"%PDF-1.7\n", "application/pdf"),
        (b"Hello", None),
        (b"", None),
    ],
)
def test_first_bytes_tell(start: bytes, media_type: str | None) -> None:
    """What a file is by its own account."""
    assert sniff_media_type(start) == media_type


def test_a_picture_is_what_it_says() -> None:
    """A type and first bytes that contradict each other are told; what cannot be known is not."""
    assert contradiction("image/png", PNG) is None
    assert contradiction("image/jpeg", PNG) == "image/png"
    assert contradiction("text/plain", PNG) == "image/png"
    assert contradiction("image/png", b"<script>") == "something else"
    assert contradiction("application/pdf", b"Hello") == "something else"
    assert contradiction("text/plain", b"Hello") is None
    assert contradiction("audio/mpeg", b"Hello") is None
    assert contradiction("image/svg+xml", b"<svg>") is None


def test_media_types_have_one_name() -> None:
    """Lower case, no parameters, no old names."""
    assert parse_media_type(" Text/Plain ; charset=utf-8") == "text/plain"
    assert parse_media_type("audio/x-wav") == "audio/wav"
    for wrong in ("", "image", "image/", "/png", "image/*", "a/b/c", "image/png, text/plain", "ä/b"):
        with pytest.raises(RemoteProtocolError):
            parse_media_type(wrong)
