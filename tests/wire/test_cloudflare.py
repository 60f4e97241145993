"""The frames of `AgentClient` and `useAgent`: their literal bytes, and what falls through to the application."""

from __future__ import annotations

import msgspec
import pytest

from perdure.errors import LocalProtocolError
from perdure.wire.cloudflare import (
    MCP_SERVERS,
    READ_ONLY,
    REQUEST_ID_BYTES_MAX,
    STATE_REJECTED,
    AgentCommand,
    Call,
    SetState,
    failure_frame,
    identity_frame,
    kebab_case,
    parse_agent_frame,
    result_frame,
    state_error_frame,
    state_frame,
)


@pytest.mark.parametrize(
    ("frame", "data"),
    [
        (
            identity_frame("n1", "my-agent", state_follows=False),
            b'{"type":"cf_agent_identity","name":"n1","agent":"my-agent"}',
        ),
        (
            identity_frame("n1", "my-agent", state_follows=True),
            b'{"type":"cf_agent_identity","name":"n1","agent":"my-agent","stateFollows":true}',
        ),
        (
            MCP_SERVERS,
            b'{"type":"cf_agent_mcp_servers","mcp":{"servers":{},"tools":[],"prompts":[],"resources":[]}}',
        ),
        (state_frame({"count": 1}), b'{"type":"cf_agent_state","state":{"count":1}}'),
        (state_frame(None), b'{"type":"cf_agent_state","state":null}'),
        (state_frame(msgspec.Raw(b"[1]")), b'{"type":"cf_agent_state","state":[1]}'),
        (
            state_error_frame(STATE_REJECTED),
            b'{"type":"cf_agent_state_error","error":"State update rejected"}',
        ),
        (state_error_frame(READ_ONLY), b'{"type":"cf_agent_state_error","error":"Connection is readonly"}'),
        (result_frame("r1", 7), b'{"type":"rpc","id":"r1","success":true,"result":7,"done":true}'),
        (result_frame("r1", None), b'{"type":"rpc","id":"r1","success":true,"result":null,"done":true}'),
        (
            result_frame("r1", "a", done=False),
            b'{"type":"rpc","id":"r1","success":true,"result":"a","done":false}',
        ),
        (failure_frame("r1", "no"), b'{"type":"rpc","id":"r1","success":false,"error":"no"}'),
    ],
)
def test_the_server_s_frames(frame: bytes, data: bytes) -> None:
    """Byte for byte."""
    assert frame == data


def test_a_result_without_json_is_our_mistake() -> None:
    """It is refused before it is sent."""
    with pytest.raises(LocalProtocolError):
        result_frame("r1", object())


@pytest.mark.parametrize(
    ("data", "command"),
    [
        ('{"state":{"count":2},"type":"cf_agent_state"}', SetState({"count": 2})),
        ('{"state":null,"type":"cf_agent_state"}', SetState(None)),
        ('{"args":[1,"b"],"id":"r1","method":"add","type":"rpc"}', Call("r1", "add", [1, "b"])),
        ('{"args":[],"id":"r1","method":"add","type":"rpc","extra":true}', Call("r1", "add", [])),
    ],
)
def test_what_clients_ask_for(data: str, command: AgentCommand) -> None:
    """As `AgentClient` writes it, and with fields that a newer one may add."""
    assert parse_agent_frame(data) == command


@pytest.mark.parametrize(
    "data",
    [
        "hello",
        "",
        "[1,2]",
        "null",
        '{"type":"mine","state":1}',
        '{"type":"cf_agent_state"}',
        '{"type":"rpc","id":"r1","method":"add"}',
        '{"type":"rpc","id":"r1","method":"add","args":{}}',
        '{"type":"rpc","id":7,"method":"add","args":[]}',
        '{"type":"rpc","id":"","method":"add","args":[]}',
        '{"state":' + "[" * 3_000 + "]" * 3_000 + ',"type":"cf_agent_state"}',
        b'{"state":1,"type":"cf_agent_state"}',
    ],
)
def test_all_else_is_the_application_s(data: str | bytes) -> None:
    """Nothing is refused: no JSON, other types, calls that are not quite calls, binary frames."""
    assert parse_agent_frame(data) is None


def test_the_longest_id_of_a_call() -> None:
    """``request_id_bytes_max``, on both sides, in bytes."""
    longest = "é" * (REQUEST_ID_BYTES_MAX // 2)
    frame = '{"type":"rpc","id":"%s","method":"add","args":[]}'
    assert parse_agent_frame(frame % longest) == Call(longest, "add", [])
    assert parse_agent_frame(frame % (longest + "x")) is None


@pytest.mark.parametrize(
    ("class_name", "kebab"),
    [
        ("ChatRoom", "chat-room"),
        ("Counter", "counter"),
        ("counter", "counter"),
        ("CHAT", "chat"),
        ("CHAT_ROOM", "chat-room"),
        ("Chat_Room", "chat--room"),
        ("HTTPAgent", "h-t-t-p-agent"),
        ("Agent2", "agent2"),
        ("agent_", "agent"),
    ],
)
def test_names_of_classes_in_addresses(class_name: str, kebab: str) -> None:
    """The same as `camelCaseToKebabCase` of npm `agents` 0.32.0 gives for these."""
    assert kebab_case(class_name) == kebab
