"""Files with ``useChat`` of the npm packages: chosen ones as data URLs, uploaded ones by their address."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable
from typing import Any

from tests.e2e.served import Served
from tests.e2e.use_chat import React

RoomOf = Callable[[str], str]

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 400


def _fetch(url: str, data: bytes | None = None, **headers: str) -> bytes:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): text for name, text in headers.items()})
    with urllib.request.urlopen(request, timeout=10) as response:
        body: bytes = response.read()
    return body


def _files(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for message in messages for part in message["parts"] if part["type"] == "file"]


def test_a_chosen_picture_is_sent(react: React, server: Served, room_of: RoomOf) -> None:
    """It goes out as a data URL; who loads the history has its address, and from there the same bytes."""
    room = room_of("echo")
    tab = react.open(server.url, room)
    url = f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"
    tab.do("send", text="Look", files=[{"type": "file", "mediaType": "image/png", "filename": "a.png", "url": url}])
    assert _files(tab.until_ready().messages)[0]["url"] == url
    messages = server.get(f"/api/chat/{room}/messages")
    [part] = _files(messages)
    assert (part["mediaType"], part["filename"]) == ("image/png", "a.png")
    assert len(part["url"]) < 100
    assert _fetch(server.url + part["url"]) == PICTURE
    other = react.open(server.url, room, messages=messages)
    other.do("send", text="I see")
    assert _files(other.until_ready(2).messages) == [part]
    assert [part["type"] for message in server.get(f"/api/chat/{room}/messages") for part in message["parts"]].count(
        "file"
    ) == 1


def test_an_uploaded_picture_is_sent(react: React, server: Served, room_of: RoomOf) -> None:
    """The address that the upload gave is what every client has."""

    room = room_of("echo")
    upload = json.loads(
        _fetch(f"{server.url}/api/chat/{room}/files?filename=b.png", PICTURE, content_type="image/png")
    )
    part = {"type": "file", **{name: upload[name] for name in ("url", "mediaType", "filename")}}
    tab = react.open(server.url, room)
    tab.do("send", text="Look", files=[part])
    assert _files(tab.until_ready().messages) == [part]
    assert _files(server.get(f"/api/chat/{room}/messages")) == [part]
