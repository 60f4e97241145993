"""What TanStack AI's clients post over HTTP, as captured from them, and what nobody should post."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.agui_run_input import (
    RUN_ID_BYTES_MAX,
    RunInput,
    assistants,
    awaited_results,
    is_run_input,
    parse_run_input,
)
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_requests import ClientTool

HI = {
    "id": "u1",
    "metadata": {"tanstack": {"createdAt": "2026-11-21T21:17:52.082Z"}},
    "role": "user",
    "content": "hi",
}
CALLS: list[dict[str, Any]] = [
    {"id": "c1", "type": "function", "function": {"name": "where", "arguments": '{"who":"me"}'}},
    {"id": "c2", "type": "function", "function": {"name": "fail", "arguments": "{}"}},
    {"id": "c3", "type": "function", "function": {"name": "pay", "arguments": "{}"}},
]
ANCHOR = {"id": "a1", "role": "assistant", "content": "Let me see.", "toolCalls": CALLS}
APPROVED = '{"approved":true,"pendingExecution":true,"message":"User approved this action"}'
DENIED = '{"approved":false,"message":"User denied this action"}'
RESULTS: list[dict[str, Any]] = [
    {"role": "tool", "id": "tool-c3", "toolCallId": "c3", "content": APPROVED, "metadata": {"tanstack": {}}},
    {"role": "tool", "id": "tool-c1", "toolCallId": "c1", "content": '{"city":"Oslo"}'},
    {"role": "tool", "id": "tool-c2", "toolCallId": "c2", "content": "null", "error": "no gps"},
]
"""The answers to three calls by `@tanstack/ai-client` 0.33.2: approved, done, failed."""

OLD_ANCHOR = {
    **ANCHOR,
    "parts": [
        {"type": "text", "content": "Let me see."},
        {
            "type": "tool-call",
            "id": "c1",
            "name": "where",
            "arguments": '{"who":"me"}',
            "state": "complete",
            "input": {"who": "me"},
            "output": {"city": "Oslo"},
        },
        {
            "type": "tool-call",
            "id": "c2",
            "name": "fail",
            "arguments": "{}",
            "state": "error",
            "input": {},
            "output": {"error": "no gps"},
        },
        {
            "type": "tool-call",
            "id": "c3",
            "name": "pay",
            "arguments": "{}",
            "state": "approval-responded",
            "input": {},
            "approval": {"id": "p1", "needsApproval": True, "approved": True},
        },
        {"type": "tool-result", "toolCallId": "c1", "content": '{"city":"Oslo"}', "state": "complete"},
        {"type": "tool-result", "toolCallId": "c2", "content": "null", "state": "error", "error": "no gps"},
    ],
}
"""The same by 0.23.2, which sent its own parts as well; its approvals have no message of their own."""

WAITING = ChatMessage(
    "a1",
    "assistant",
    [
        {"type": "text", "text": "Let me see."},
        {"type": "tool-where", "toolCallId": "c1", "state": "input-available", "input": {"who": "me"}},
        {"type": "dynamic-tool", "toolName": "fail", "toolCallId": "c2", "state": "input-available", "input": {}},
        {
            "type": "tool-pay",
            "toolCallId": "c3",
            "state": "approval-requested",
            "input": {},
            "approval": {"id": "p1"},
        },
    ],
)


def parse(**fields: Any) -> RunInput:
    body = {"threadId": "room", "runId": "run-1", "messages": [HI], **fields}
    return parse_run_input(json.dumps(body).encode())


def test_a_new_message() -> None:
    """What `sendMessage` posts: TanStack's own metadata are not the application's, ``data`` repeats the props."""
    assert parse(
        state={},
        tools=[{"name": "where", "description": "d", "parameters": {"type": "object", "required": ["who"]}}],
        context=[],
        forwardedProps={"model": "small"},
        data={"model": "small"},
    ) == RunInput(
        thread_id="room",
        run_id="run-1",
        messages=[user_message("u1", "hi")],
        new_message=user_message("u1", "hi"),
        tools=[ClientTool("where", "d", {"type": "object", "required": ["who"]})],
        extra={"model": "small"},
    )


def test_a_tool_may_say_little() -> None:
    """A name is enough."""
    assert parse(tools=[{"name": "where"}]).tools == [ClientTool("where", "", {"type": "object", "properties": {}})]


def test_a_picture() -> None:
    """AG-UI's parts are TanStack's, but for the name of a text."""
    image = {"type": "image", "source": {"type": "data", "value": "AA==", "mimeType": "image/png"}}
    message = {"id": "u1", "role": "user", "content": [{"type": "text", "text": "Look"}, image]}
    new_message = parse(messages=[message]).new_message
    assert new_message is not None
    assert new_message.parts == [
        {"type": "text", "text": "Look"},
        {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="},
    ]


@pytest.mark.parametrize("anchor", [ANCHOR, OLD_ANCHOR], ids=["0.33.2", "0.23.2"])
def test_results_come_back(anchor: dict[str, Any]) -> None:
    """An output, an error and an approval, with what each was asked for: an assistant's message put together."""
    thought = {"role": "reasoning", "id": "r", "content": "Hm"}
    results = RESULTS if anchor is ANCHOR else RESULTS[1:]
    request = parse(messages=[HI, thought, anchor, *results])
    assert request.new_message is None
    (came_back,) = assistants(request.messages)
    assert came_back.text == "Let me see."
    assert awaited_results(came_back, WAITING) == ChatMessage(
        "a1",
        "assistant",
        [
            {
                "type": "tool-where",
                "toolCallId": "c1",
                "input": {"who": "me"},
                "state": "output-available",
                "output": {"city": "Oslo"},
            },
            {
                "type": "dynamic-tool",
                "toolName": "fail",
                "toolCallId": "c2",
                "input": {},
                "state": "output-error",
                "errorText": "no gps",
            },
            {
                "type": "tool-pay",
                "toolCallId": "c3",
                "input": {},
                "state": "approval-responded",
                "approval": {"id": "p1", "approved": True},
            },
        ],
    )


def test_a_denial() -> None:
    """It is no output, though it looks like one."""
    request = parse(messages=[HI, ANCHOR, {**RESULTS[0], "content": DENIED}])
    taken = awaited_results(request.messages[-1], WAITING)
    assert taken is not None
    assert [(part["toolCallId"], part["state"], part["approval"]) for part in taken.parts] == [
        ("c3", "approval-responded", {"id": "p1", "approved": False})
    ]


def test_only_what_is_awaited_is_taken() -> None:
    """An output is no approval, an approval no output, and what has ended takes nothing more."""
    swapped = [{**RESULTS[0], "content": "1"}, {"role": "tool", "id": "t", "toolCallId": "c9", "content": "1"}]
    assert awaited_results(parse(messages=[ANCHOR, *swapped]).messages[-1], WAITING) is None
    settled = ChatMessage(
        "a1",
        "assistant",
        [{"type": "tool-where", "toolCallId": "c1", "state": "output-available", "input": {}, "output": 1}],
    )
    came_back = parse(messages=[ANCHOR, *RESULTS]).messages[-1]
    assert awaited_results(came_back, settled) is None
    answered = ChatMessage(
        "a1",
        "assistant",
        [{"type": "tool-where", "toolCallId": "c1", "state": "approval-responded", "approval": {"approved": True}}],
    )
    assert awaited_results(answered, WAITING) is None


def test_an_approval_with_a_reason() -> None:
    """Where it comes back as a part, its reason is kept."""
    part = {
        "type": "tool-pay",
        "toolCallId": "c3",
        "state": "approval-responded",
        "approval": {"id": "x", "approved": False, "reason": "too much"},
    }
    taken = awaited_results(ChatMessage("a1", "assistant", [part]), WAITING)
    assert taken is not None
    assert taken.parts[0]["approval"] == {"id": "p1", "approved": False, "reason": "too much"}


def test_a_call_whose_id_came_twice() -> None:
    """Clients know the second one by another name; it is the room's second one."""
    call = {"type": "tool-where", "toolCallId": "c1", "input": {}}
    stored = ChatMessage(
        "a1", "assistant", [{**call, "state": "output-available", "output": 1}, {**call, "state": "input-available"}]
    )
    calls = [{**CALLS[0], "id": "c1"}, {**CALLS[0], "id": "c1~2"}]
    results = [{"role": "tool", "id": f"tool-{name}", "toolCallId": name, "content": "2"} for name in ("c1", "c1~2")]
    came_back = parse(messages=[{**ANCHOR, "toolCalls": calls}, *results]).messages[-1]
    taken = awaited_results(came_back, stored)
    assert taken is not None
    assert taken.parts == [{**call, "state": "output-available", "output": 2}]


def test_messages_without_calls_bring_nothing() -> None:
    """Only those with a result are worth a look."""
    request = parse(messages=[{"id": "a0", "role": "assistant", "content": "Hello"}, ANCHOR, HI])
    assert assistants(request.messages) == []
    assert [message.role for message in request.messages] == ["assistant", "assistant", "user"]


def test_other_roles() -> None:
    """A developer's message is a system message; activities are not said."""
    request = parse(
        messages=[
            {"id": "d", "role": "developer", "content": "Be brief"},
            {"id": "x", "role": "activity", "activityType": "t", "content": {}},
            HI,
        ]
    )
    assert [(message.role, message.text) for message in request.messages] == [("system", "Be brief"), ("user", "hi")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"messages": None}, "`messages` is not an array"),
        ({"messages": []}, "the request holds no message to answer"),
        ({"messages": [{"id": "x", "role": "activity"}]}, "the request holds no message to answer"),
        ({"messages": ["hi"]}, "`messages[0]` is not a message"),
        ({"messages": [{"id": "s", "role": "system", "content": "x"}]}, "the request ends with a system message"),
        ({"messages": [{**HI, "content": " "}]}, "a message must not be empty"),
        ({"messages": [HI, {"role": "tool", "content": "1"}]}, "`messages[1]` is a tool's message without"),
        ({"messages": [{**ANCHOR, "toolCalls": {}}]}, "`toolCalls` of `messages[0]` is not an array"),
        ({"messages": [{**ANCHOR, "toolCalls": [{"id": "c1"}]}]}, "a tool call of `messages[0]` has no `function`"),
        (
            {"messages": [{**ANCHOR, "toolCalls": [{"id": 1, "function": {"name": "x"}}]}]},
            "part 1 of `messages[0]` is a tool call without `id` or `name`",
        ),
        ({"threadId": ""}, "`threadId` is not a text of printable characters"),
        ({"runId": 7}, "`runId` is not a text of printable characters"),
        ({"runId": "a\nb"}, "`runId` is not a text of printable characters"),
        ({"tools": {}}, "`tools` is not an array"),
        ({"tools": [{"name": ""}]}, "`tools[0]` has no `name`"),
        ({"forwardedProps": []}, "`forwardedProps` is not a JSON object"),
    ],
)
def test_what_is_refused(fields: dict[str, Any], reason: str) -> None:
    """Each with what is wrong about it."""
    with pytest.raises(RemoteProtocolError, match=r".*") as refused:
        parse(**fields)
    assert str(refused.value).startswith(reason)


def test_the_body_is_an_object() -> None:
    """Not a list, not half of one."""
    for body in (b"[]", b"{"):
        with pytest.raises(RemoteProtocolError):
            parse_run_input(body)


def test_the_limits() -> None:
    """Of a run's name and of the new message: the greatest is taken, one more is not."""
    assert parse(runId="r" * RUN_ID_BYTES_MAX).run_id == "r" * 512
    with pytest.raises(RemoteProtocolError, match="longer than 512 bytes"):
        parse(runId="r" * (RUN_ID_BYTES_MAX + 1))
    body = json.dumps({"threadId": "t", "runId": "r", "messages": [HI]}).encode()
    assert parse_run_input(body, message_bytes_max=2).new_message is not None
    with pytest.raises(LimitExceeded, match="message_bytes_max"):
        parse_run_input(body, message_bytes_max=1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"threadId": "t", "runId": "r", "messages": []}, True),
        ({"threadId": "t", "runId": "r", "messages": [{**HI, "content": '"trigger"'}]}, True),
        ({"threadId": "t", "runId": "r", "messages": [{**HI, "content": "trigger"}]}, True),
        ({"threadId": "t", "runId": "r", "trigger": "submit-message"}, False),
        ({"threadId": "t", "runId": "r", "forwardedProps": {"trigger": "x"}}, True),
        ({"id": "r", "messages": [], "trigger": "submit-message"}, False),
        ({"id": "r", "messages": [{"parts": [{"type": "data-run", "runId": 1}]}]}, False),
    ],
)
def test_whose_request_it_is(body: dict[str, Any], expected: bool) -> None:
    """AI SDK's clients post to the same address; they say what triggered it and name no run."""
    assert is_run_input(json.dumps(body).encode()) is expected
