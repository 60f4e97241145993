"""What TanStack AI's clients post to a session, what apps make of it, and what nobody should post."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.agui_requests import parse_session_request
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_requests import ChatRequest

HI = {"id": "u1", "role": "user", "parts": [{"type": "text", "content": "Hi"}]}
LOOK = {
    "type": "tool-call",
    "id": "c1",
    "name": "look",
    "arguments": '{"at":1}',
    "state": "input-complete",
    "input": {"at": 1},
}


def parse(**fields: Any) -> ChatRequest:
    return parse_session_request(json.dumps(fields).encode(), chat_id="room")


def parts_of(role: str, *parts: dict[str, Any]) -> list[dict[str, Any]]:
    return parse(messages=[{"id": "m1", "role": role, "parts": list(parts)}]).messages[0].parts


def test_a_new_message() -> None:
    """What `sendMessage` of `@tanstack/ai-client` posts through the session transport."""
    request = parse_session_request(
        b'{"messages":[{"id":"u1","role":"user","parts":[{"type":"text","content":"Hi"}],'
        b'"createdAt":"2026-11-21T18:01:04.196Z"}],"data":{"model":"small"}}',
        chat_id="room",
    )
    assert request == ChatRequest(
        chat_id="room",
        trigger="submit-message",
        message_id=None,
        messages=[user_message("u1", "Hi")],
        new_message=user_message("u1", "Hi"),
        extra={"model": "small"},
    )


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ({**HI, "parts": [{"type": "text", "text": "Hi"}]}, user_message("u1", "Hi")),
        ({"role": "user", "content": "Hi"}, user_message("", "Hi")),
        ({"content": [{"type": "text", "content": "Hi"}]}, user_message("", "Hi")),
        ({**HI, "metadata": {"user": "Ada"}}, user_message("u1", "Hi", user="Ada")),
        ({**HI, "metadata": "x", "id": None}, user_message("", "Hi")),
        (
            {**HI, "parts": [{"type": "steering-message", "x": None}]},
            ChatMessage("u1", "user", [{"type": "steering-message", "x": None}]),
        ),
    ],
)
def test_messages_are_read_tolerantly(message: dict[str, Any], expected: ChatMessage) -> None:
    """AI SDK parts, a bare content, no id, no role, metadata that are none, parts of newer versions."""
    request = parse(messages=[message])
    assert request.new_message == expected
    assert request.extra == {}


@pytest.mark.parametrize(
    ("part", "file"),
    [
        (
            {"type": "image", "source": {"type": "data", "value": "AA==", "mimeType": "image/png"}},
            ("image/png", "data:image/png;base64,AA=="),
        ),
        (
            {"type": "image", "source": {"type": "url", "value": "https://a.test/cat"}},
            ("image/*", "https://a.test/cat"),
        ),
        (
            {
                "type": "document",
                "source": {"type": "url", "value": "https://a.test/a", "mimeType": "application/pdf"},
            },
            ("application/pdf", "https://a.test/a"),
        ),
        ({"type": "audio", "source": {"value": "https://a.test/a"}}, ("audio/*", "https://a.test/a")),
    ],
)
def test_files_are_read(part: dict[str, Any], file: tuple[str, str]) -> None:
    """As the AI SDK has them: a media type and an address. A file alone is a message."""
    assert parts_of("user", part) == [{"type": "file", "mediaType": file[0], "url": file[1]}]


CALL = {"type": "tool-look", "toolCallId": "c1", "input": {"at": 1}}


@pytest.mark.parametrize(
    ("parts", "own"),
    [
        ([LOOK], {**CALL, "state": "input-available"}),
        (
            [
                {**LOOK, "state": "complete", "output": {"seen": True}},
                {"type": "tool-result", "toolCallId": "c1", "content": '{"seen":true}', "state": "complete"},
            ],
            {**CALL, "state": "output-available", "output": {"seen": True}},
        ),
        (
            [LOOK, {"type": "tool-result", "toolCallId": "c1", "content": '{"seen":true}', "state": "complete"}],
            {**CALL, "state": "output-available", "output": {"seen": True}},
        ),
        (
            [LOOK, {"type": "tool-result", "toolCallId": "c1", "content": "a cat", "state": "complete"}],
            {**CALL, "state": "output-available", "output": "a cat"},
        ),
        (
            [
                {**LOOK, "state": "error", "output": {"error": "too dark"}},
                {
                    "type": "tool-result",
                    "toolCallId": "c1",
                    "content": "null",
                    "state": "error",
                    "error": "too dark",
                },
            ],
            {**CALL, "state": "output-error", "errorText": "too dark"},
        ),
        (
            [{**LOOK, "state": "error", "output": {"error": "too dark"}}],
            {**CALL, "state": "output-error", "errorText": "too dark"},
        ),
        (
            [{**LOOK, "state": "error", "output": 7}],
            {**CALL, "state": "output-error", "errorText": "the tool failed"},
        ),
        (
            [
                {
                    **LOOK,
                    "state": "approval-responded",
                    "approval": {"id": "p1", "needsApproval": True, "approved": False},
                }
            ],
            {**CALL, "state": "approval-responded", "approval": {"id": "p1", "approved": False}},
        ),
        (
            [{**LOOK, "state": "approval-requested", "approval": {"id": "p1", "needsApproval": True}}],
            {**CALL, "state": "approval-requested", "approval": {"id": "p1"}},
        ),
        (
            [{"type": "tool-call", "id": "c1", "name": "look", "arguments": '{"at":1}', "state": "input-complete"}],
            {**CALL, "state": "input-available"},
        ),
        (
            [{"type": "tool-call", "id": "c1", "name": "look", "arguments": '{"at', "state": "input-streaming"}],
            {"type": "tool-look", "toolCallId": "c1", "state": "input-streaming", "rawInput": '{"at'},
        ),
    ],
)
def test_results_and_approvals_come_back(parts: list[dict[str, Any]], own: dict[str, Any]) -> None:
    """A call and its result are one part of ours, in the state that the AI SDK has for it."""
    request = parse(messages=[HI, {"id": "a1", "role": "assistant", "parts": parts}])
    assert (request.new_message, request.message_id) == (None, "a1")
    assert request.messages[-1].parts == [own]


def test_the_other_parts_of_an_answer() -> None:
    """Thoughts are reasoning; a result without its call and what is the AI SDK's already are kept."""
    lone = {"type": "tool-result", "toolCallId": "c9", "content": "x", "state": "complete"}
    theirs = {"type": "tool-look", "toolCallId": "c1", "state": "output-available", "input": {}, "output": 1}
    assert parts_of("assistant", {"type": "thinking", "content": "Hm", "stepId": "s"}, lone, theirs) == [
        {"type": "reasoning", "text": "Hm", "state": "done"},
        lone,
        theirs,
    ]


def test_a_message_of_a_limits_length_and_one_byte_more() -> None:
    """The limit is for the new message's text, in bytes of UTF-8; what the server has already may be longer."""
    long = {"role": "assistant", "parts": [{"type": "text", "content": "long ago"}]}
    body = json.dumps({"messages": [long, {**HI, "parts": [{"type": "text", "content": "éé"}]}]}).encode()
    request = parse_session_request(body, chat_id="room", message_bytes_max=4)
    assert request.new_message is not None
    assert request.new_message.text == "éé"
    with pytest.raises(LimitExceeded, match="message_bytes_max allows 3 at most, this has 4"):
        parse_session_request(body, chat_id="room", message_bytes_max=3)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{", "the request body is not valid JSON"),
        (b"[]", "the request body is not a JSON object"),
        (b"{}", "`messages` is not an array"),
        (b'{"messages":{}}', "`messages` is not an array"),
        (b'{"messages":[]}', "the request holds no message to answer"),
        (b'{"messages":[7]}', "`messages[0]` is not a message"),
        (b'{"messages":[{"role":"tool","parts":[]}]}', "the role of `messages[0]` is system, user or assistant"),
        (b'{"messages":[{"id":7,"parts":[]}]}', "the id of `messages[0]` is not a text"),
        (b'{"messages":[{}]}', "`messages[0]` has no `parts`"),
        (b'{"messages":[{"parts":[7]}]}', "part 0 of `messages[0]` is not an object with a `type`"),
        (b'{"messages":[{"parts":[{"type":7}]}]}', "part 0 of `messages[0]` is not an object with a `type`"),
        (b'{"messages":[{"parts":[{"type":"text"}]}]}', "part 0 of `messages[0]` is a text part without `content`"),
        (b'{"messages":[{"parts":[{"type":"image"}]}]}', "part 0 of `messages[0]` has no `source` with a `value`"),
        (
            b'{"messages":[{"role":"assistant","parts":[{"type":"tool-call","id":[]}]}]}',
            "part 0 of `messages[0]` is a tool call without `id` or `name`",
        ),
        (
            b'{"messages":[{"parts":[{"type":"text","content":" "}]}]}',
            "a message must not be empty",
        ),
        (b'{"messages":[{"parts":[]}]}', "a message must not be empty"),
        (
            b'{"messages":[{"role":"system","parts":[]}]}',
            "the request ends with a system message; there is nothing to answer",
        ),
        (b'{"messages":[{"content":"Hi"}],"data":7}', "`data` is not a JSON object"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(body: bytes, sentence: str) -> None:
    """The sentence is for the person who wrote the client."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_session_request(body, chat_id="room")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize("value", [None, [], {}, 7, "x"])
def test_odd_values_in_parts_are_no_failures_of_ours(value: Any) -> None:
    """Any JSON in any field of a part is read or refused, never more than that."""
    for kind in ("text", "thinking", "image", "tool-call", "tool-result", "data-x"):
        for name in ("id", "name", "content", "source", "toolCallId", "state", "arguments", "approval", "output"):
            part = {"type": kind, "content": "x", "id": "c1", "name": "look", "toolCallId": "c1", name: value}
            try:
                parts_of("assistant", LOOK, part)
            except RemoteProtocolError:
                continue
