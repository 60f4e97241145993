"""Ranges, entity tags and names of files over HTTP."""

from __future__ import annotations

import pytest

from perdure.wire.downloads import UNSATISFIABLE, base_name, content_disposition, etag_matches, parse_range


@pytest.mark.parametrize(
    ("header", "found"),
    [
        ("bytes=0-4", (0, 4)),
        ("bytes=0-0", (0, 0)),
        ("bytes=5-", (5, 9)),
        ("bytes=5-100", (5, 9)),
        ("bytes=-3", (7, 9)),
        ("bytes=-30", (0, 9)),
        ("Bytes = 1 - 2", (1, 2)),
        ("bytes=10-", UNSATISFIABLE),
        ("bytes=-0", UNSATISFIABLE),
        ("bytes=4-2", None),
        ("bytes=0-1,3-4", None),
        ("items=0-4", None),
        ("bytes=", None),
        ("bytes=-", None),
        ("bytes=a-b", None),
        ("bytes=٠-٤", None),
        ("", None),
        (None, None),
    ],
)
def test_ranges_of_ten_bytes(header: str | None, found: tuple[int, int] | None) -> None:
    """One range of bytes is taken; all else is the whole file."""
    assert parse_range(header, 10) == found


def test_no_range_of_nothing() -> None:
    """An empty file has no byte to give."""
    assert parse_range("bytes=0-", 0) == UNSATISFIABLE
    assert parse_range("bytes=-5", 0) == UNSATISFIABLE
    assert parse_range(None, 0) is None


def test_entity_tags_match() -> None:
    """A list, weak ones, and any."""
    assert etag_matches('"a"', '"a"')
    assert etag_matches('"b", W/"a"', '"a"')
    assert etag_matches("*", '"a"')
    assert not etag_matches('"b"', '"a"')
    assert not etag_matches("a", '"a"')
    assert not etag_matches(None, '"a"')


@pytest.mark.parametrize(
    ("filename", "header"),
    [
        (None, "inline"),
        ("", "inline"),
        ("a.png", 'inline; filename="a.png"'),
        ("two words.txt", 'inline; filename="two words.txt"'),
        ('a".png', "inline; filename=\"a_.png\"; filename*=UTF-8''a%22.png"),
        ("Füße.pdf", "inline; filename=\"F__e.pdf\"; filename*=UTF-8''F%C3%BC%C3%9Fe.pdf"),
        ("100%.txt", "inline; filename=\"100_.txt\"; filename*=UTF-8''100%25.txt"),
        ("a\r\nset-cookie: b", 'inline; filename="aset-cookie: b"'),
        ("a\\b", "inline; filename=\"a_b\"; filename*=UTF-8''a%5Cb"),
    ],
)
def test_names_to_save_under(filename: str | None, header: str) -> None:
    """A name ends neither the quotes nor the header."""
    assert content_disposition("inline", filename) == header


def test_paths_lose_their_folders() -> None:
    """Of what a client calls its file, the last piece."""
    assert base_name("a.png") == "a.png"
    assert base_name("/etc/passwd") == "passwd"
    assert base_name("C:\\Users\\Ann\\a.png") == "a.png"
    assert base_name("a\x00b\n.png") == "ab.png"
    assert base_name("..") == ""
    assert base_name("a/") == ""
