"""The accelerator: a frame's bytes as RFC 6455 wants them, and nothing that depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.types import Send
from tests.chat.rooms import Echo
from tests.running import serving
from tests.server.apps import counted
from tests.server.clients import room

from perdure.server.accelerator import Shortcut, encode_frame, find_shortcut


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x81\x00"),
        (125, b"\x81\x7d"),
        (126, b"\x81\x7e\x00\x7e"),
        (65_535, b"\x81\x7e\xff\xff"),
        (65_536, b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_a_frame_begins_with_its_length(size: int, head: bytes) -> None:
    """In 7, 16 or 64 bits, unmasked, final."""
    assert encode_frame(b"x" * size, True) == head + b"x" * size


def test_binary_frames_say_so() -> None:
    """By their opcode."""
    assert encode_frame(b"\xff", False) == b"\x82\x01\xff"


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("setting", "compression", "taken"), [("1", None, True), ("0", None, False), ("1", "deflate", False)]
)
async def test_clients_see_the_same_with_it_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, compression: str | None, taken: bool
) -> None:
    """Switched off, or where a connection is compressed, frames go through ASGI."""
    monkeypatch.setenv("PERDURE_ACCELERATOR", setting)
    found: list[Shortcut | None] = []

    def watched(send: Send) -> Shortcut | None:
        found.append(find_shortcut(send))
        return found[-1]

    monkeypatch.setattr("perdure.server.websocket.find_shortcut", watched)
    async with serving(counted(tmp_path, Echo)) as address, room(address, compression=compression) as client:
        await client.next("init")
        await client.say("é" * 70_000, id="m1")
        assert (await client.next("message"))["message"]["content"] == "é" * 70_000
        assert (await client.next("complete"))["content"] == "You said: " + "é" * 70_000
    assert [shortcut is not None for shortcut in found] == [taken]
