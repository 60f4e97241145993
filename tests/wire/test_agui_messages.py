"""Stored messages as events, and as TanStack's own messages."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.wire.agui_messages import client_message, message_events, snapshot_event
from perdure.wire.messages import ChatMessage, user_message


def events(message: ChatMessage) -> list[dict[str, Any]]:
    return [json.loads(event) for event in message_events(message)]


def answer(*parts: dict[str, Any]) -> ChatMessage:
    return ChatMessage("a1", "assistant", list(parts))


def test_a_users_message_byte_for_byte() -> None:
    """Start, text, end, as the session transport's own server tells it; the name is in the metadata."""
    assert message_events(user_message("u1", "Hi", user="Ada")) == [
        b'{"type":"TEXT_MESSAGE_START","messageId":"u1","role":"user","metadata":{"user":"Ada"}}',
        b'{"type":"TEXT_MESSAGE_CONTENT","messageId":"u1","delta":"Hi"}',
        b'{"type":"TEXT_MESSAGE_END","messageId":"u1"}',
    ]


def test_files_of_a_user_are_custom_events() -> None:
    """Without a text there is no empty piece of one; metadata of TanStack's own stay away."""
    file = {"type": "file", "mediaType": "image/png", "url": "https://a.test/cat.png"}
    assert events(ChatMessage("u1", "user", [file], {"tanstack": {"createdAt": "x"}})) == [
        {"type": "TEXT_MESSAGE_START", "messageId": "u1", "role": "user"},
        {"type": "TEXT_MESSAGE_END", "messageId": "u1"},
        {
            "type": "CUSTOM",
            "name": "file",
            "value": {"messageId": "u1", "mediaType": "image/png", "url": "https://a.test/cat.png"},
        },
    ]


def test_an_answer_is_told_without_a_run() -> None:
    """Its parts as they came, once; no client begins to wait or stops waiting."""
    message = answer(
        {"type": "step-start"},
        {"type": "reasoning", "id": "r1", "text": "Hm", "state": "done"},
        {"type": "tool-look", "toolCallId": "c1", "state": "output-available", "input": {}, "output": "seen"},
        {"type": "text", "text": "Yes.", "state": "done"},
        {"type": "source-url", "sourceId": "s1", "url": "https://a.test/"},
        {"type": "data-weather", "id": "w1", "data": -4},
        {"type": "steering-message", "parts": [1]},
        {"type": "file", "of": "a newer version"},
    )
    assert [(event["type"], event.get("name")) for event in events(message)] == [
        ("TEXT_MESSAGE_START", None),
        ("STEP_STARTED", None),
        ("REASONING_START", None),
        ("REASONING_MESSAGE_START", None),
        ("TEXT_MESSAGE_CONTENT", None),
        ("REASONING_MESSAGE_CONTENT", None),
        ("REASONING_MESSAGE_END", None),
        ("REASONING_END", None),
        ("STEP_FINISHED", None),
        ("TOOL_CALL_START", None),
        ("TOOL_CALL_ARGS", None),
        ("TOOL_CALL_END", None),
        ("TOOL_CALL_RESULT", None),
        ("TEXT_MESSAGE_CONTENT", None),
        ("CUSTOM", "source-url"),
        ("CUSTOM", "data-weather"),
        ("TEXT_MESSAGE_END", None),
    ]


def test_a_call_that_waits_is_not_carried_out_again() -> None:
    """A tab that comes later must not run the client's tool for a second time; a question it does ask."""
    waiting = {"type": "tool-look", "toolCallId": "c1", "state": "input-available", "input": {"at": 1}}
    assert "CUSTOM" not in [event["type"] for event in events(answer(waiting))]
    asked = {**waiting, "state": "approval-requested", "approval": {"id": "p1"}}
    assert [event["value"] for event in events(answer(asked)) if event["type"] == "CUSTOM"] == [
        {
            "toolCallId": "c1",
            "toolName": "look",
            "input": {"at": 1},
            "approval": {"id": "p1", "needsApproval": True},
        }
    ]


def test_a_snapshot_byte_for_byte() -> None:
    """Messages with `parts`, as both folds of the conversation take them."""
    assert snapshot_event([user_message("u1", "Hi", user="Ada"), answer({"type": "text", "text": "Yes."})]) == (
        b'{"type":"MESSAGES_SNAPSHOT","messages":['
        b'{"id":"u1","role":"user","parts":[{"type":"text","content":"Hi"}],"metadata":{"user":"Ada"}},'
        b'{"id":"a1","role":"assistant","parts":[{"type":"text","content":"Yes."}]}]}'
    )
    assert snapshot_event([]) == b'{"type":"MESSAGES_SNAPSHOT","messages":[]}'


def test_the_parts_of_a_clients_message() -> None:
    """What has no place there is left out, and so are empty texts and thoughts."""
    message = answer(
        {"type": "step-start"},
        {"type": "reasoning", "id": "r1", "text": "", "state": "done"},
        {"type": "reasoning", "id": "r2", "text": "Hm", "state": "done"},
        {"type": "text", "text": "", "state": "done"},
        {"type": "text", "text": "Yes.", "state": "done"},
        {"type": "source-url", "sourceId": "s1", "url": "https://a.test/"},
        {"type": "data-weather", "data": -4},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
        {"type": "file", "mediaType": "application/pdf", "url": "https://a.test/a.pdf"},
    )
    assert client_message(message) == {
        "id": "a1",
        "role": "assistant",
        "parts": [
            {"type": "thinking", "content": "Hm", "stepId": "thinking-2"},
            {"type": "text", "content": "Yes."},
            {
                "type": "image",
                "source": {"type": "url", "value": "data:image/png;base64,AA==", "mimeType": "image/png"},
            },
            {
                "type": "document",
                "source": {"type": "url", "value": "https://a.test/a.pdf", "mimeType": "application/pdf"},
            },
        ],
    }


CALL = {"type": "tool-call", "id": "c1", "name": "look", "arguments": '{"at":1}', "input": {"at": 1}}
RESULT = {"type": "tool-result", "toolCallId": "c1"}


@pytest.mark.parametrize(
    ("part", "shown"),
    [
        ({"state": "input-available"}, [{**CALL, "state": "input-complete"}]),
        (
            {"state": "output-available", "output": {"seen": True}, "providerExecuted": True},
            [
                {
                    **CALL,
                    "state": "complete",
                    "output": {"seen": True},
                    "metadata": {"providerExecuted": True},
                },
                {**RESULT, "content": '{"seen":true}', "state": "complete"},
            ],
        ),
        (
            {"state": "output-error", "errorText": "too dark"},
            [
                {**CALL, "state": "error", "output": {"error": "too dark"}},
                {**RESULT, "content": '{"error":"too dark"}', "state": "error", "error": "too dark"},
            ],
        ),
        (
            {"state": "output-denied"},
            [
                {**CALL, "state": "error", "output": {"error": "the user did not allow this tool call"}},
                {
                    **RESULT,
                    "content": '{"error":"the user did not allow this tool call"}',
                    "state": "error",
                    "error": "the user did not allow this tool call",
                },
            ],
        ),
        (
            {"state": "approval-requested", "approval": {"id": "p1"}},
            [{**CALL, "state": "approval-requested", "approval": {"id": "p1", "needsApproval": True}}],
        ),
    ],
)
def test_the_states_of_a_clients_call(part: dict[str, Any], shown: list[dict[str, Any]]) -> None:
    """A result is beside its call, and in it."""
    given = {"type": "tool-look", "toolCallId": "c1", "input": {"at": 1}, **part}
    assert client_message(answer(given))["parts"] == shown


def test_calls_of_a_dynamic_tool_and_of_a_used_id() -> None:
    """The name is a dynamic tool's own; ids are told apart as they are live; a cut input is shown as it is."""
    message = answer(
        {"type": "dynamic-tool", "toolName": "look", "toolCallId": "c1", "state": "input-available", "input": None},
        {
            "type": "tool-look",
            "toolCallId": "c1",
            "state": "input-streaming",
            "rawInput": '{"at',
            "input": {},
        },
    )
    assert client_message(message)["parts"] == [
        {"type": "tool-call", "id": "c1", "name": "look", "arguments": "null", "state": "input-complete"},
        {"type": "tool-call", "id": "c1~2", "name": "look", "arguments": '{"at', "state": "input-complete"},
    ]
