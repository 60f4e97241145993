"""What `useAgentChat` asks of a room: its frames, taken to the room's methods.

A request brings the client's whole list of messages. What counts is what is new in it; the transcript is the room's:

=====================  =======================  ==========================================================
``trigger``            the list ends with       what is asked
=====================  =======================  ==========================================================
submit-message         a user's new message     answer it
submit-message         one that is changed      it was edited: answer the new version
submit-message         one that is known        its answer, again: nothing is said twice
submit-message         an assistant's message   results of tools, or approvals, came back in it
regenerate-message     a user's message         make its answer again; what came after it goes
=====================  =======================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import structlog

from ..errors import Busy, Forbidden, PerdureError, RemoteProtocolError
from ..models.base import ToolSpec
from ..objects.connections import Connection
from ..wire.cloudflare_chat import (
    Answer,
    Cancel,
    ChatCommand,
    ChatPost,
    Clear,
    ResumeAck,
    ResumeRequest,
    SetMessages,
    ToolApproval,
    ToolResult,
    parse_chat_frame,
    updated_frame,
)
from ..wire.json_text import decode_json
from ..wire.messages import ChatMessage
from ..wire.ui_requests import ChatRequest, client_tools, read_chat_request
from .cloudflare import CloudflareChat
from .cloudflare_conversation import room_history
from .cloudflare_peers import Request
from .submitted import Submitted
from .tool_calls import StoredCall

if TYPE_CHECKING:
    from .room import ChatRoom

log = structlog.get_logger("perdure.chat")


class CloudflareSurface:
    """One room's clients of this kind. A `Surface`."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._chat = CloudflareChat(room)
        room.add_listener(self._chat)

    def connect(self, connection: Connection) -> None:
        """A client has come."""
        self._chat.connect(connection)

    async def handle(self, connection: Connection, data: str | bytes) -> bool:
        """Do what a client's frame asks for. False: it is no frame of a chat."""
        command = parse_chat_frame(data)
        if command is None:
            return False
        _obey(self._room, self._chat, connection, command)
        return True

    def gone(self, connection: Connection) -> None:
        """A client has left."""
        self._chat.gone(connection)


def _obey(room: ChatRoom, chat: CloudflareChat, connection: Connection, command: ChatCommand) -> None:
    if isinstance(command, ChatPost):
        _submit(room, chat, connection, command)
    elif isinstance(command, Cancel):
        chat.cancel(connection, command.id)
    elif isinstance(command, ResumeRequest):
        chat.probe(chat.peer(connection), command.probe_id)
    elif isinstance(command, ResumeAck):
        chat.acknowledge(chat.peer(connection), command.id)
    elif isinstance(command, (ToolResult, ToolApproval)):
        _settle(room, chat, connection, command)
    elif isinstance(command, Clear):
        with chat.acting_for(connection):
            room.clear()
            chat.show_cleared()
    elif isinstance(command, SetMessages):
        _replace(room, chat, connection, command)


# --- requests


def _submit(room: ChatRoom, chat: CloudflareChat, connection: Connection, post: ChatPost) -> None:
    answer = Answer(post.id)
    try:
        request = _read(room, post)
        room.check_request_body(_body(request))
        with chat.acting_for(connection):
            submitted = _take(room, request, connection.user)
            if submitted is None or submitted.answer_id is None:
                connection.send_frame(answer.done("completed"))
            else:
                if body := _body(request):
                    room.keep_request_body(submitted.answer_id, body)
                chat.add(_request(post.id, connection, request, submitted))
    except Busy:
        chat.show_conversation(connection)  # the client shows its message already
        connection.send_frame(answer.done("skipped"))
    except PerdureError as error:
        connection.send_frame(answer.failed(str(error)))
    except Exception:
        connection.send_frame(answer.failed("something went wrong in the room; it has been logged"))
        raise


def _read(room: ChatRoom, post: ChatPost) -> ChatRequest:
    fields = decode_json(post.init.body, "the request's body")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("the request's body is not a JSON object")
    limit = room.context.runtime.limits.message_bytes_max
    return read_chat_request(fields, chat_id=room.name, message_bytes_max=limit)


def _body(request: ChatRequest) -> dict[str, Any]:
    """What the application's page sent with a request."""
    return {name: value for name, value in request.extra.items() if name != "clientTools"}


def _request(request_id: str, connection: Connection, request: ChatRequest, submitted: Submitted) -> Request:
    assert submitted.answer_id is not None
    return Request(
        request_id,
        connection,
        submitted.message_id,
        submitted.answer_id,
        submitted.leg,
        whole=request.returned is None,
        message_ids=tuple(item.id for item in _newest_of_user(request)) or (submitted.message_id,),
    )


def _newest_of_user(request: ChatRequest) -> list[ChatMessage]:
    """The user's messages that the list ends with."""
    newest: list[ChatMessage] = []
    for message in reversed(request.messages):
        if message.role != "user":
            break
        newest.insert(0, message)
    return [message for message in newest if message.id]


def _take(room: ChatRoom, request: ChatRequest, user: str | None) -> Submitted | None:
    offered = client_tools(request.extra)
    tools = None if offered is None else [ToolSpec(tool.name, tool.description, tool.parameters) for tool in offered]
    if tools is not None:
        room.set_client_tools(tools)
    if request.returned is not None:
        return room.take_results(request.returned, user=user)
    if request.trigger == "regenerate-message":
        last = request.messages[-1] if request.messages else None
        known = room.transcript.find(last.id) if last is not None and last.role == "user" else None
        if last is None or last.role != "user" or known is not None:
            return room.regenerate(known.answer_id if known is not None else None)
        message = last  # the room refused it, or has never heard of it
    else:
        assert request.new_message is not None
        message = request.new_message
    return _take_message(room, message, user)


def _take_message(room: ChatRoom, message: ChatMessage, user: str | None) -> Submitted:
    metadata = message.metadata if user is None else {**(message.metadata or {}), "user": user}
    message = ChatMessage(message.id or room.context.new_id(), message.role, message.parts, metadata)
    known = room.transcript.find(message.id)
    if known is not None and known.role == "user" and _content(known.message) != _content(message):
        return room.edit(message)
    return room.submit_message(message)


def _content(message: ChatMessage) -> tuple[str, int]:
    """What a message says. Its files may have got other addresses in the room than its client has for them."""
    return message.text, sum(part.get("type") == "file" for part in message.parts)


# --- results and approvals


def _settle(room: ChatRoom, chat: CloudflareChat, connection: Connection, command: ToolResult | ToolApproval) -> None:
    """The first response counts; what comes after it is one that was sent twice, or lost a race."""
    owed = room.tool_calls.owed(command.tool_call_id)
    with chat.acting_for(connection):
        try:
            taken = _give(room, connection.user, command)
        except Forbidden:
            taken = False
            _take_back(room, connection, owed)
    if taken and command.auto_continue and owed is not None:
        chat.peer(connection).expects = owed.answer_id


def _give(room: ChatRoom, user: str | None, command: ToolResult | ToolApproval) -> bool:
    call_id, go_on = command.tool_call_id, command.auto_continue
    if isinstance(command, ToolApproval):
        return room.answer_approval(call_id, command.approved, user=user, go_on=go_on)
    error = (command.error_text or "the tool failed") if command.state == "output-error" else None
    return room.tool_result(call_id, command.output, error=error, user=user, go_on=go_on)


def _take_back(room: ChatRoom, connection: Connection, owed: StoredCall | None) -> None:
    """The client shows the result already, and may not give one."""
    stored = room.transcript.find(owed.answer_id) if owed is not None else None
    if stored is not None:
        connection.send_frame(updated_frame(stored.message))


# --- the conversation


def _replace(room: ChatRoom, chat: CloudflareChat, connection: Connection, command: SetMessages) -> None:
    try:
        # Read as the list of a request is; one to make an answer again needs no new message.
        given = read_chat_request({"messages": command.messages, "trigger": "regenerate-message"}, chat_id=room.name)
        if given.messages == room_history(room):
            return
        with chat.acting_for(connection):
            room.replace_messages(given.messages)
    except PerdureError as error:
        log.info("messages refused", room=room.name, error=str(error))
        chat.show_conversation(connection)
