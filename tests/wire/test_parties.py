"""durable-chat's frames: their literal bytes, and what counts as one."""

from __future__ import annotations

import pytest

from perdure.wire.parties import (
    Add,
    PartyCommand,
    PartyMessage,
    Update,
    add_frame,
    all_frame,
    is_room_frame,
    parse_party_frame,
    update_frame,
)
from perdure.wire.room import Wait

ADA = PartyMessage("m1", 'Hi "you"', "Ada", "user")


def test_the_server_s_frames() -> None:
    """Byte for byte."""
    assert all_frame([]) == b'{"type":"all","messages":[]}'
    assert all_frame([ADA]) == (
        rb'{"type":"all","messages":[{"id":"m1","content":"Hi \"you\"","user":"Ada","role":"user"}]}'
    )
    assert add_frame(ADA) == rb'{"type":"add","id":"m1","content":"Hi \"you\"","user":"Ada","role":"user"}'
    assert update_frame(ADA) == rb'{"type":"update","id":"m1","content":"Hi \"you\"","user":"Ada","role":"user"}'


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ('{"type":"add","id":"m1","content":"Hi","user":"Ada","role":"user"}', Add("m1", "Hi", "Ada", "user")),
        ('{"type":"update","id":"m1","content":"Hi","user":"Ada","role":"user"}', Update("m1", "Hi", "Ada", "user")),
    ],
)
def test_what_clients_say(data: str, command: PartyCommand) -> None:
    """A message, or another version of one."""
    assert parse_party_frame(data) == command


@pytest.mark.parametrize(
    "data",
    [
        "hello",
        '{"type":"all","messages":[]}',
        '{"type":"add","id":"m1","content":"Hi","user":"AI","role":"assistant"}',
        '{"type":"add","id":"","content":"Hi","user":"Ada","role":"user"}',
        '{"type":"add","id":"m1","user":"Ada","role":"user"}',
        b'{"type":"add","id":"m1","content":"Hi","user":"Ada","role":"user"}',
    ],
)
def test_all_else_is_the_application_s(data: str | bytes) -> None:
    """Also what a client says in the assistant's name."""
    assert parse_party_frame(data) is None


def test_an_answer_that_waits() -> None:
    """Its frame says for what, in a field of its own."""
    answer = PartyMessage("a1", "", "AI", "assistant", [Wait("c1", "refund", "approval", {"order": 17})])
    assert update_frame(answer) == (
        b'{"type":"update","id":"a1","content":"","user":"AI","role":"assistant",'
        b'"waits":[{"id":"c1","tool":"refund","kind":"approval","input":{"order":17}}]}'
    )


@pytest.mark.parametrize(
    ("data", "ours"),
    [
        ('{"type":"stop"}', True),
        ('{"type":"approve","id":"c1","approved":true}', True),
        ('{"type":"regenerate"}', True),
        ('{"type":"result"}', True),
        ('{"type":"retry"}', False),
        ('{"type":"message","content":"Hi"}', False),
        ('{"type":1}', False),
        ("stop", False),
        (b'{"type":"stop"}', False),
    ],
)
def test_frames_of_the_room(data: str | bytes, ours: bool) -> None:
    """Those for which durable-chat has none of its own."""
    assert is_room_frame(data) is ours
