"""What AI SDK clients post: ``{"id", "messages", "trigger", "messageId"}`` and whatever an app adds.

Read tolerantly: newer clients send part types and fields that this version does not know, apps
leave the list out and send a lone ``message``. Only what is new in a request is to be trusted;
the transcript is the server's.

===================  ============  ==================================================
``trigger``          ``messageId``  what is asked
===================  ============  ==================================================
submit-message       absent        answer the new user message
submit-message       a user's      that message was edited: cut after it, answer again
submit-message       an answer's   a tool's result or an approval came back in it
regenerate-message   an answer's   make that answer again (the last one where absent)
===================  ============  ==================================================
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from ..errors import LimitExceeded, RemoteProtocolError
from .json_text import decode_json
from .messages import ChatMessage, Role

Trigger = Literal["submit-message", "regenerate-message"]

_TRIGGERS: tuple[Trigger, ...] = ("submit-message", "regenerate-message")
_ROLES: tuple[Role, ...] = ("system", "user", "assistant")
_OWN_FIELDS = frozenset({"id", "messages", "message", "trigger", "messageId"})


class ClientTool(msgspec.Struct, frozen=True):
    """A tool that the client carries out: its name, what it is for, the JSON Schema of its input."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = msgspec.field(default_factory=lambda: {"type": "object", "properties": {}})


class ChatRequest(msgspec.Struct, frozen=True):
    """A parsed request.

    ``new_message`` is the user's message to add or, where ``message_id`` is its id, to edit. Without an
    id it has ``""``: give it one. ``returned`` is the assistant message that came back with results in its
    parts: the last one or, where ``message_id`` names it, an earlier one. A regenerate has neither.
    ``extra`` holds the fields that are the application's.
    """

    chat_id: str
    trigger: Trigger
    message_id: str | None
    messages: list[ChatMessage]
    new_message: ChatMessage | None
    extra: dict[str, Any]
    returned: ChatMessage | None = None


def parse_chat_request(
    body: bytes, *, chat_id: str | None = None, message_bytes_max: int | None = None
) -> ChatRequest:
    """The request in ``body``. ``chat_id`` is the id that the URL names, where it names one.

    Raises:
        RemoteProtocolError: it is not a chat request; the text says why.
        LimitExceeded: the new message's text is longer than ``message_bytes_max`` bytes of UTF-8.
    """
    fields = decode_json(body, "the request body")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("the request body is not a JSON object")
    return read_chat_request(fields, chat_id=chat_id, message_bytes_max=message_bytes_max)


def read_chat_request(
    fields: dict[str, Any], *, chat_id: str | None = None, message_bytes_max: int | None = None
) -> ChatRequest:
    """The request that these decoded fields are; as `parse_chat_request`."""
    trigger = _trigger(fields)
    messages = _messages(fields)
    message_id = _optional_id(fields, "messageId")
    new_message = returned = None
    if trigger == "submit-message":
        if not messages:
            raise RemoteProtocolError("the request holds no message to answer")
        newest = _returned(messages, message_id) or messages[-1]
        if newest.role == "system":
            raise RemoteProtocolError("the request ends with a system message; there is nothing to answer")
        if newest.role == "assistant":
            returned = newest
        else:
            new_message = newest
            _check_new(newest, message_bytes_max)
    return ChatRequest(
        chat_id=chat_id if chat_id is not None else _required_id(fields),
        trigger=trigger,
        message_id=message_id,
        messages=messages,
        new_message=new_message,
        extra={name: value for name, value in fields.items() if name not in _OWN_FIELDS},
        returned=returned,
    )


def _returned(messages: list[ChatMessage], message_id: str | None) -> ChatMessage | None:
    """The assistant message that the request names; later ones may have been said since."""
    named = (message for message in messages if message.role == "assistant" and message.id == message_id)
    return next(named, None)


def client_tools(extra: dict[str, Any]) -> list[ClientTool] | None:
    """The tools that the client offers to carry out, in the application's fields of a request; None: it says nothing.

    Either ``clientTools``, a list of ``{name, description?, parameters?}``, or ``tools``, an object of
    ``{description?, parameters?}`` by name. ``inputSchema`` stands in for ``parameters``. What is neither is the
    application's own.

    Raises:
        RemoteProtocolError: ``clientTools`` is something else.
    """
    given = extra.get("clientTools")
    named = extra.get("tools")
    if given is None and isinstance(named, dict) and all(isinstance(tool, dict) for tool in named.values()):
        given = [{**tool, "name": name} for name, tool in named.items()]
    if given is None:
        return None
    if not isinstance(given, list):
        raise RemoteProtocolError("`clientTools` is not an array")
    return [_client_tool(item, f"`clientTools[{index}]`") for index, item in enumerate(given)]


def _client_tool(item: Any, where: str) -> ClientTool:
    if not isinstance(item, dict) or not isinstance(item.get("name"), str) or not item["name"]:
        raise RemoteProtocolError(f"{where} is not a tool with a `name`")
    schema = item.get("parameters", item.get("inputSchema"))
    description = item.get("description")
    if not isinstance(description, str | None) or not isinstance(schema, dict | None):
        raise RemoteProtocolError(f"{where} has a `description` that is no text, or `parameters` that are no object")
    tool = ClientTool(item["name"], description or "")
    return tool if schema is None else ClientTool(tool.name, tool.description, schema)


def _trigger(fields: dict[str, Any]) -> Trigger:
    given = fields.get("trigger")
    if given is None:
        return "submit-message"
    for trigger in _TRIGGERS:
        if given == trigger:
            return trigger
    raise RemoteProtocolError(f"`trigger` is submit-message or regenerate-message, not {str(given)[:80]!r}")


def _required_id(fields: dict[str, Any]) -> str:
    chat_id = _optional_id(fields, "id")
    if chat_id is None:
        raise RemoteProtocolError("the request has no `id`: the chat that it is for")
    return chat_id


def _optional_id(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise RemoteProtocolError(f"`{name}` is not a text")
    return value


def _messages(fields: dict[str, Any]) -> list[ChatMessage]:
    given = fields.get("messages")
    if given is None:
        alone = fields.get("message")
        return [] if alone is None else [_message(alone, "`message`")]
    if not isinstance(given, list):
        raise RemoteProtocolError("`messages` is not an array")
    messages = [_message(item, f"`messages[{index}]`") for index, item in enumerate(given)]
    if fields.get("message") is not None:
        messages.append(_message(fields["message"], "`message`"))
    return messages


def _message(item: Any, where: str) -> ChatMessage:
    """One message; a bare text is a user's, and ``content`` stands in for absent ``parts``."""
    if isinstance(item, str):
        return ChatMessage("", "user", [{"type": "text", "text": item}])
    if not isinstance(item, dict):
        raise RemoteProtocolError(f"{where} is not a message")
    role = next((known for known in _ROLES if item.get("role", "user") == known), None)
    if role is None:
        raise RemoteProtocolError(f"the role of {where} is system, user or assistant")
    metadata = item.get("metadata")
    return ChatMessage(
        id=_optional_id(item, "id") or "",
        role=role,
        parts=_parts(item, where),
        metadata=metadata if isinstance(metadata, dict) else None,
    )


def _parts(item: dict[str, Any], where: str) -> list[dict[str, Any]]:
    parts = item.get("parts")
    if parts is None and isinstance(item.get("content"), str):
        return [{"type": "text", "text": item["content"]}]
    if not isinstance(parts, list):
        raise RemoteProtocolError(f"{where} has no `parts`")
    for index, part in enumerate(parts):
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise RemoteProtocolError(f"part {index} of {where} is not an object with a `type`")
        if part["type"] == "text" and not isinstance(part.get("text"), str):
            raise RemoteProtocolError(f"part {index} of {where} is a text part without `text`")
    return parts


def _check_new(message: ChatMessage, message_bytes_max: int | None) -> None:
    text = message.text
    size = len(text.encode())
    if message_bytes_max is not None and size > message_bytes_max:
        raise LimitExceeded("message_bytes_max", size, message_bytes_max)
    if not text.strip() and all(part["type"] == "text" for part in message.parts):
        raise RemoteProtocolError("a message must not be empty")
