"""HTTP transcripts on the pages: a request and its answer in one fenced block.

::

    POST /v1/stream/orders                       the request; headers, a blank line, the body
    Content-Type: application/json

    {"order": 2}

    HTTP/1.1 204 No Content                      the answer
    Stream-Next-Offset: 0000000000000002

``<name>`` stands for what differs from run to run: in an answer it takes what is there, in later
requests it is that. Times are equal to all times.
"""

from __future__ import annotations

import json
import re
from http import HTTPStatus
from typing import Any, NamedTuple

_NAME = re.compile(r"<([a-z][a-z-]*)>")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
_TIMES_MS = range(1_700_000_000_000, 4_000_000_000_000)

NAMED_HEADERS = re.compile("stream-|producer-|location$|retry-after$|etag$")
"""Headers that a transcript must show when they come; others may be left out."""


class Request(NamedTuple):
    """What is sent."""

    method: str
    path: str
    headers: dict[str, str]
    body: str


class Answer(NamedTuple):
    """What comes back. Headers have their names in small letters."""

    status: int
    headers: dict[str, str]
    body: str


def parse(text: str) -> tuple[Request, Answer]:
    """The two halves of a block."""
    asked, mark, answered = text.partition("\nHTTP/1.1 ")
    assert mark, f"no answer in {text!r}"
    first, headers, body = _message(asked)
    method, path = first.split(" ")
    status, headers_back, body_back = _message(answered)
    code, _, phrase = status.partition(" ")
    assert HTTPStatus(int(code)).phrase == phrase, status
    return Request(method, path, headers, body.rstrip("\n")), Answer(int(code), headers_back, body_back.rstrip("\n"))


def _message(text: str) -> tuple[str, dict[str, str], str]:
    head, _, body = text.partition("\n\n")
    first, *lines = head.strip("\n").splitlines()
    headers = {}
    for line in lines:
        name, colon, value = line.partition(": ")
        assert colon, line
        assert name.lower() not in headers, line
        headers[name.lower()] = value
    return first, headers, body


def filled(text: str, known: dict[str, str]) -> str:
    """The text of a request with what has been learned."""
    return _NAME.sub(lambda match: known[match[1]], text)


def compare(shown: Answer, came: Answer, known: dict[str, str]) -> None:
    """Assert that the answer is the one that the page shows; learn what its names stand for."""
    assert came.status == shown.status, came.body
    for name, value in shown.headers.items():
        assert name in came.headers, f"{name} did not come"
        _same_text(value, came.headers[name], known)
    assert [name for name in came.headers if NAMED_HEADERS.match(name) and name not in shown.headers] == []
    if came.headers.get("content-type") == "text/event-stream":
        match = _pattern(shown.body, known).match(came.body)
        assert match, came.body
        _learn(match, known)
    elif shown.body.startswith(("{", "[")):
        _same(json.loads(shown.body), json.loads(came.body), known)
    else:
        _same_text(shown.body, came.body, known)


def _same(shown: Any, came: Any, known: dict[str, str]) -> None:
    if isinstance(shown, dict) and isinstance(came, dict):
        assert list(shown) == list(came)
        for key in shown:
            _same(shown[key], came[key], known)
    elif isinstance(shown, list) and isinstance(came, list):
        assert len(shown) == len(came)
        for one, other in zip(shown, came, strict=True):
            _same(one, other, known)
    elif isinstance(shown, str) and isinstance(came, str):
        _same_text(shown, came, known)
    elif not (_is_time_ms(shown) and _is_time_ms(came)):
        assert shown == came


def _is_time_ms(value: object) -> bool:
    return isinstance(value, int) and value in _TIMES_MS


def _same_text(shown: str, came: str, known: dict[str, str]) -> None:
    if _TIME.fullmatch(shown) and _TIME.fullmatch(came):
        return
    match = _pattern(shown, known).fullmatch(came)
    assert match, f"{came!r} is not {shown!r}"
    _learn(match, known)


def _learn(match: re.Match[str], known: dict[str, str]) -> None:
    known |= {name.replace("_", "-"): value for name, value in match.groupdict().items()}


def _pattern(shown: str, known: dict[str, str]) -> re.Pattern[str]:
    """What the text matches: names that are known stand for what they are, others for anything."""
    pattern, at = "", 0
    for match in _NAME.finditer(shown):
        pattern += re.escape(shown[at : match.start()])
        at = match.end()
        name = match[1].replace("-", "_")
        if match[1] in known:
            pattern += re.escape(known[match[1]])
        else:
            pattern += f"(?P={name})" if f"(?P<{name}>" in pattern else f"(?P<{name}>[^\n]+?)"
    return re.compile(pattern + re.escape(shown[at:]))
