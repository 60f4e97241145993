"""Chat requests as the AI SDK posts them, as apps cut them down, and as nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_requests import ChatRequest, ClientTool, client_tools, parse_chat_request

HI = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hi"}]}
HELLO = {"id": "a1", "role": "assistant", "parts": [{"type": "step-start"}, {"type": "text", "text": "Hello"}]}


def parse(**fields: Any) -> ChatRequest:
    return parse_chat_request(json.dumps(fields).encode())


def test_a_new_message() -> None:
    """The request that `sendMessage` makes, with an app's own field."""
    request = parse_chat_request(
        b'{"id":"chat-1","model":"small","trigger":"submit-message","messages":'
        b'[{"id":"u1","role":"user","metadata":{"user":"Ada"},"parts":[{"type":"text","text":"Hi"}]}]}'
    )
    assert request == ChatRequest(
        chat_id="chat-1",
        trigger="submit-message",
        message_id=None,
        messages=[user_message("u1", "Hi", user="Ada")],
        new_message=user_message("u1", "Hi", user="Ada"),
        extra={"model": "small"},
    )


def test_an_edit_names_the_message() -> None:
    """The edited message is the last of the list and the one that `messageId` names."""
    request = parse(id="c", trigger="submit-message", messageId="u1", messages=[HI])
    assert request.message_id == "u1"
    assert request.new_message == user_message("u1", "Hi")


def test_a_regenerate_brings_nothing_new() -> None:
    """With the cut list, or with no list at all."""
    request = parse(id="c", trigger="regenerate-message", messageId="a1", messages=[HI])
    assert (request.trigger, request.message_id, request.new_message) == ("regenerate-message", "a1", None)
    assert parse(id="c", trigger="regenerate-message").messages == []


def test_a_tool_result_comes_in_the_answer() -> None:
    """The last message is the assistant's; nothing is added to the conversation."""
    request = parse(id="c", trigger="submit-message", messageId="a1", messages=[HI, HELLO])
    assert request.new_message is None
    assert request.returned == request.messages[-1]
    assert request.returned.id == "a1"


def test_a_tool_result_may_come_after_a_later_question() -> None:
    """`messageId` names the answer that it is in; the question that follows it is not said again."""
    request = parse(id="c", trigger="submit-message", messageId="a1", messages=[HELLO, {**HI, "id": "u2"}])
    assert request.new_message is None
    assert request.returned is not None
    assert request.returned.id == "a1"


def test_without_a_name_the_last_message_came_back() -> None:
    """An app's own transport may leave `messageId` out."""
    request = parse(id="c", messages=[HI, HELLO])
    assert request.returned is not None
    assert request.returned.id == "a1"
    assert parse(id="c", trigger="regenerate-message", messages=[HI, HELLO]).returned is None


@pytest.mark.parametrize(
    "fields",
    [
        {"clientTools": [{"name": "locate", "description": "Where?", "parameters": {"type": "object"}}]},
        {"clientTools": [{"name": "locate", "description": "Where?", "inputSchema": {"type": "object"}}]},
        {"tools": {"locate": {"description": "Where?", "parameters": {"type": "object"}}}},
    ],
)
def test_a_client_offers_tools(fields: dict[str, Any]) -> None:
    """As a list, with either name of the schema, or by name."""
    request = parse(id="c", message="Hi", **fields)
    assert client_tools(request.extra) == [ClientTool("locate", "Where?", {"type": "object"})]


def test_most_requests_offer_no_tools() -> None:
    """An app's own `tools` field of another shape is left alone; the least tool has a name alone."""
    assert client_tools({}) is None
    assert client_tools({"tools": ["web"]}) is None
    assert client_tools({"tools": "all"}) is None
    assert client_tools({"clientTools": []}) == []
    assert client_tools({"clientTools": [{"name": "beep"}]}) == [
        ClientTool("beep", "", {"type": "object", "properties": {}})
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"locate": {}}, "`clientTools` is not an array"),
        ([{"description": "x"}], "`clientTools[0]` is not a tool with a `name`"),
        ([{"name": ""}], "`clientTools[0]` is not a tool with a `name`"),
        ([{"name": "a"}, {"name": "b", "description": 1}], "`clientTools[1]` has a `description` that is no text"),
        ([{"name": "a", "parameters": []}], "`clientTools[0]` has a `description` that is no text, or `parameters`"),
    ],
)
def test_what_is_no_tool_is_refused(given: Any, message: str) -> None:
    """Each with its reason."""
    with pytest.raises(RemoteProtocolError) as caught:
        client_tools({"clientTools": given})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"message": HI}, user_message("u1", "Hi")),
        ({"messages": [HELLO], "message": HI}, user_message("u1", "Hi")),
        ({"message": "Hi"}, user_message("", "Hi")),
        ({"messages": [{"role": "user", "content": "Hi"}]}, user_message("", "Hi")),
        ({"messages": [{"parts": [{"type": "text", "text": "Hi"}]}]}, user_message("", "Hi")),
        ({"messages": [{**HI, "createdAt": 1, "metadata": "x"}]}, user_message("u1", "Hi")),
        (
            {"messages": [{**HI, "parts": [{"type": "steering-message", "parts": [1], "x": None}]}]},
            ChatMessage("u1", "user", [{"type": "steering-message", "parts": [1], "x": None}]),
        ),
        (
            {"messages": [{**HI, "parts": [{"type": "file", "url": "data:,x", "mediaType": "text/plain"}]}]},
            ChatMessage("u1", "user", [{"type": "file", "url": "data:,x", "mediaType": "text/plain"}]),
        ),
    ],
)
def test_requests_are_read_tolerantly(fields: dict[str, Any], message: ChatMessage) -> None:
    """A lone message, a bare text, no ids, no trigger, parts and fields of newer versions."""
    request = parse(id="c", messageId=None, **fields)
    assert request.trigger == "submit-message"
    assert request.new_message == message
    assert request.extra == {}


def test_the_id_in_the_url_wins() -> None:
    """Routes that name the chat in their path need no `id`, and ignore it."""
    body = json.dumps({"id": "other", "message": HI}).encode()
    assert parse_chat_request(body, chat_id="mine").chat_id == "mine"
    assert parse_chat_request(json.dumps({"message": HI}).encode(), chat_id="mine").chat_id == "mine"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the request body is not valid JSON: Input data was truncated"),
        (b'{"id":"\xff"}', "the request body is not valid UTF-8 text"),
        pytest.param(b"[" * 100_000, "the request body is nested too deeply", id="deep"),
        (b"[]", "the request body is not a JSON object"),
        (b'{"message":"Hi"}', "the request has no `id`: the chat that it is for"),
        (b'{"id":7,"message":"Hi"}', "`id` is not a text"),
        (b'{"id":"","message":"Hi"}', "`id` is not a text"),
        (b'{"id":"c","message":"Hi","messageId":7}', "`messageId` is not a text"),
        (b'{"id":"c"}', "the request holds no message to answer"),
        (b'{"id":"c","messages":[]}', "the request holds no message to answer"),
        (
            b'{"id":"c","trigger":"resume-stream"}',
            "`trigger` is submit-message or regenerate-message, not 'resume-stream'",
        ),
        (b'{"id":"c","messages":{}}', "`messages` is not an array"),
        (b'{"id":"c","messages":[7]}', "`messages[0]` is not a message"),
        (b'{"id":"c","message":[]}', "`message` is not a message"),
        (
            b'{"id":"c","messages":[{"role":"tool","parts":[]}]}',
            "the role of `messages[0]` is system, user or assistant",
        ),
        (
            b'{"id":"c","messages":[{"role":["user"],"parts":[]}]}',
            "the role of `messages[0]` is system, user or assistant",
        ),
        (b'{"id":"c","messages":[{"role":"user"}]}', "`messages[0]` has no `parts`"),
        (
            b'{"id":"c","messages":[{"role":"user","parts":["Hi"]}]}',
            "part 0 of `messages[0]` is not an object with a `type`",
        ),
        (
            b'{"id":"c","messages":[{"role":"user","parts":[{"type":"text","text":7}]}]}',
            "part 0 of `messages[0]` is a text part without `text`",
        ),
        (b'{"id":"c","messages":[{"role":"user","parts":[]}]}', "a message must not be empty"),
        (b'{"id":"c","message":" \\n "}', "a message must not be empty"),
        (
            b'{"id":"c","messages":[{"role":"system","parts":[]}]}',
            "the request ends with a system message; there is nothing to answer",
        ),
    ],
)
def test_a_bad_request_is_told_what_is_wrong(body: bytes, message: str) -> None:
    """Each kind of bad request has its own sentence."""
    with pytest.raises(RemoteProtocolError) as caught:
        parse_chat_request(body)
    assert str(caught.value) == message


def test_a_long_message_names_its_limit() -> None:
    """The new message's text counts, in bytes of UTF-8; the history does not."""
    body = json.dumps({"id": "c", "messages": [HELLO, {**HI, "parts": [{"type": "text", "text": "äää"}]}]}).encode()
    assert parse_chat_request(body, message_bytes_max=6).new_message is not None
    with pytest.raises(LimitExceeded, match="message_bytes_max allows 5 at most, this has 6"):
        parse_chat_request(body, message_bytes_max=5)
