"""Forms with files, read in whatever pieces they come."""

from __future__ import annotations

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.multipart import MultipartParser, PartEnd, PartStart, boundary_of

CHROMIUM = (
    b"------WebKitFormBoundaryAbc123\r\n"
    b'Content-Disposition: form-data; name="note"\r\n'
    b"\r\n"
    b"two\r\nlines\r\n"
    b"------WebKitFormBoundaryAbc123\r\n"
    b'Content-Disposition: form-data; name="file"; filename="say %22hi%22.txt"\r\n'
    b"Content-Type: text/plain\r\n"
    b"\r\n"
    b"--\r\n----WebKit\r\n\r\n"
    b"------WebKitFormBoundaryAbc123--\r\n"
)
"""A form as Chromium 140 sends it."""


def read(body: bytes, boundary: bytes, sizes: list[int] | None = None) -> list[tuple[PartStart, bytes]]:
    """The fields of a form that comes in pieces of these sizes (again and again)."""
    parser = MultipartParser(boundary)
    found: list[tuple[PartStart, bytes]] = []
    open_part: tuple[PartStart, bytearray] | None = None
    position = turn = 0
    while position < len(body):
        size = sizes[turn % len(sizes)] if sizes else len(body)
        for event in parser.feed(body[position : position + size]):
            if isinstance(event, PartStart):
                assert open_part is None
                open_part = (event, bytearray())
            elif isinstance(event, PartEnd):
                assert open_part is not None
                found.append((open_part[0], bytes(open_part[1])))
                open_part = None
            else:
                assert open_part is not None
                assert event
                open_part[1].extend(event)
        position, turn = position + size, turn + 1
    parser.end()
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 31, 1_000])
def test_a_browsers_form(size: int) -> None:
    """Fields and files, also where the content looks almost like a boundary."""
    assert read(CHROMIUM, b"----WebKitFormBoundaryAbc123", [size]) == [
        (PartStart("note", None, None), b"two\r\nlines"),
        (PartStart("file", 'say "hi".txt', "text/plain"), b"--\r\n----WebKit\r\n"),
    ]


CONTENT = st.lists(st.sampled_from([b"\r", b"\n", b"-", b"--", b"b", b"\r\n--b", b"x", b""]), max_size=12).map(
    b"".join
)


@given(st.lists(CONTENT, min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_any_content_in_any_pieces(contents: list[bytes], sizes: list[int]) -> None:
    """Each field has exactly its bytes, wherever the body is cut."""
    boundary = b"b0undary"
    body = b"".join(
        b'--b0undary\r\nContent-Disposition: form-data; name="%d"\r\n\r\n%b\r\n' % (number, content)
        for number, content in enumerate(contents)
    )
    found = read(body + b"--b0undary--", boundary, sizes)
    assert found == [(PartStart(str(number), None, None), content) for number, content in enumerate(contents)]


@given(st.binary(max_size=300), st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20))
def test_forms_of_an_http_client(content: bytes, filename: str) -> None:
    """What httpx encodes comes out as it went in."""
    request = httpx2.Request("POST", "http://h/", files={"file": (filename, content, "a/b")})
    [(start, found)] = read(request.read(), boundary_of(request.headers["content-type"]), [13])
    assert (start.name, start.media_type, found) == ("file", "a/b", content)
    assert start.filename is not None


def test_what_is_around_the_form_is_passed_over() -> None:
    """A preamble, white space after a boundary, an epilogue."""
    body = b'hello\r\n--b \t\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\nbye'
    for size in (1, 100):
        assert read(body, b"b", [size]) == [(PartStart("a", None, None), b"1")]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"--b\r\n",
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1',
        b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--b',
        b"--bx\r\n\r\n\r\n--b--",
        b"--b\r\n\r\n1\r\n--b--",
        b'--b\r\nContent-Disposition: attachment; name="a"\r\n\r\n1\r\n--b--',
        b"--b\r\nContent-Disposition: form-data\r\n\r\n1\r\n--b--",
        b"--b\r\nno colon\r\n\r\n1\r\n--b--",
        b"--b\r\nA: \xff\r\n\r\n1\r\n--b--",
        b"--b" + b" " * 300 + b"\r\n",
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    """Cut off, without names, without boundaries."""
    for size in (1, 1_000):
        with pytest.raises(RemoteProtocolError):
            read(body, b"b", [size])


def test_heads_are_bounded() -> None:
    """A field's headers have their limit, whether it comes at once or by and by."""

    def body(size: int) -> bytes:
        head = b'Content-Disposition: form-data; name="a"\r\nX: '
        # The line's end before the first header is counted.
        return b"--b\r\n" + head + b"x" * (size - 2 - len(head)) + b"\r\n\r\n1\r\n--b--"

    for sizes in ([8_192], [100]):
        assert read(body(8_192), b"b", sizes) == [(PartStart("a", None, None), b"1")]
        with pytest.raises(LimitExceeded, match="part_head_bytes_max"):
            read(body(8_193), b"b", sizes)


def test_boundaries() -> None:
    """Bare, in quotes, and none."""
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('multipart/form-data; charset=utf-8; boundary="a b"') == b"a b"
    for wrong in (
        "multipart/form-data",
        "multipart/form-data; boundary=",
        f"multipart/form-data; boundary={'x' * 71}",
    ):
        with pytest.raises(RemoteProtocolError):
            boundary_of(wrong)
