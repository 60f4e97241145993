"""The frames between a room and `useAgentChat` of Cloudflare's Agents SDK.

JSON text frames, beside those of `cloudflare` (npm `agents` 0.21.0 with `@cloudflare/ai-chat` 0.10.2, and 0.32.0
with 0.12.2). Client to server::

    {"type":"cf_agent_use_chat_request","id":"R","init":{"method":"POST","body":"{messages, trigger, ...}"}}
    {"type":"cf_agent_chat_request_cancel","id":"R"}
    {"type":"cf_agent_chat_clear"}
    {"type":"cf_agent_chat_messages","messages":[...]}                  the conversation, instead of what is there
    {"type":"cf_agent_stream_resume_request","probeId":"P"?}            is an answer being made?
    {"type":"cf_agent_stream_resume_ack","id":"R"}                      send it, then
    {"type":"cf_agent_tool_result","toolCallId","toolName","output","state"?,"errorText"?,"autoContinue"?,"clientTools"?}
    {"type":"cf_agent_tool_approval","toolCallId","approved","autoContinue"?}

Server to client::

    {"type":"cf_agent_use_chat_response","id":"R","body":"<a chunk as JSON>","done":false,"seq":0,"replay":true?}
    {"type":"cf_agent_use_chat_response","id":"R","body":"","done":false,"replay":true,"replayComplete":true}
    {"type":"cf_agent_use_chat_response","id":"R","body":"<why>","done":true,"error":true,"outcome":"error"}
    {"type":"cf_agent_use_chat_response","id":"R","body":"","done":true,"outcome":"completed","messageIds":[...]}
    {"type":"cf_agent_chat_messages","messages":[...],"connect":true?}
    {"type":"cf_agent_message_updated","message":{...}}
    {"type":"cf_agent_stream_resuming","id":"R","probeId":"P"?}         an answer is being made: ack it to get it
    {"type":"cf_agent_stream_pending","id":"R"?,"probeId":"P"?}         one will be soon: wait
    {"type":"cf_agent_stream_resume_none","reason":"idle" | "continuation-owned","probeId":"P"?}
    {"type":"cf_agent_chat_clear"}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from .cloudflare import REQUEST_ID_BYTES_MAX
from .json_text import encode_json
from .messages import ChatMessage

TurnEnd = Literal["completed", "error", "aborted", "skipped"]


class _Frame(msgspec.Struct, rename="camel", tag_field="type", omit_defaults=True, frozen=True):
    """What all frames share."""


# --- the server's


class Response(_Frame, tag="cf_agent_use_chat_response", frozen=True):
    """A frame of an answer without a chunk: its end, an error, the end of a replay."""

    id: str
    body: str
    done: bool
    error: bool = False
    replay: bool = False
    replay_complete: bool = False
    message_ids: Sequence[str] = ()
    outcome: TurnEnd | None = None


class _Messages(_Frame, tag="cf_agent_chat_messages", frozen=True):
    messages: Sequence[ChatMessage | msgspec.Raw]
    connect: bool = False


class _Updated(_Frame, tag="cf_agent_message_updated", frozen=True):
    message: ChatMessage | msgspec.Raw


class _Resuming(_Frame, tag="cf_agent_stream_resuming", frozen=True):
    id: str
    probe_id: str | None = None


class _Pending(_Frame, tag="cf_agent_stream_pending", frozen=True):
    id: str | None = None
    probe_id: str | None = None


class _None(_Frame, tag="cf_agent_stream_resume_none", frozen=True):
    reason: str
    probe_id: str | None = None


CLEARED = b'{"type":"cf_agent_chat_clear"}'
"""The conversation is empty."""


class Answer:
    """The frames of one answer, as the request ``request_id`` knows it.

    A chunk's frame is made of the chunk's JSON without reading it: one text inside another.
    """

    __slots__ = ("_head", "request_id")

    def __init__(self, request_id: str) -> None:
        self.request_id = request_id
        self._head = b'{"type":"cf_agent_use_chat_response","id":%b,"body":' % encode_json(request_id)

    def chunk(self, data: bytes, seq: int) -> bytes:
        """A chunk; ``seq`` counts them from 0."""
        return b'%b%b,"done":false,"seq":%d}' % (self._head, encode_json(data.decode()), seq)

    def replayed(self, data: bytes, seq: int) -> bytes:
        """A chunk that was sent to others before."""
        return b'%b%b,"done":false,"replay":true,"seq":%d}' % (self._head, encode_json(data.decode()), seq)

    def replay_complete(self) -> bytes:
        """The replay has come to where the answer is now; what follows is live."""
        return encode_json(Response(self.request_id, "", False, replay=True, replay_complete=True))

    def done(self, outcome: TurnEnd, message_ids: Sequence[str] = (), *, replay: bool = False) -> bytes:
        """The end; ``message_ids`` are those of the messages that it answers."""
        return encode_json(
            Response(self.request_id, "", True, replay=replay, message_ids=message_ids, outcome=outcome)
        )

    def failed(self, text: str, message_ids: Sequence[str] = ()) -> bytes:
        """The answer has failed, or the request was refused: why, and the end at once.

        In one frame: older clients take an end that follows an error for another answer.
        """
        return encode_json(
            Response(self.request_id, text, True, error=True, message_ids=message_ids, outcome="error")
        )


def messages_frame(messages: Sequence[ChatMessage | msgspec.Raw], *, connect: bool = False) -> bytes:
    """The conversation; ``connect``: the client has just come, and keeps what it has yet to send."""
    return encode_json(_Messages(messages, connect))


def updated_frame(message: ChatMessage) -> bytes:
    """A message as it is now."""
    return encode_json(_Updated(message))


def resuming_frame(request_id: str, probe_id: str | None = None) -> bytes:
    """An answer is being made, under this id; the client gets it when it acknowledges that."""
    return encode_json(_Resuming(request_id, probe_id))


def pending_frame(probe_id: str | None = None) -> bytes:
    """An answer will begin: the client is told when."""
    return encode_json(_Pending(None, probe_id))


def none_frame(probe_id: str | None = None, *, continuation: bool = False) -> bytes:
    """No answer is being made, and none waits to be.

    ``continuation``: there is one, but it goes on with a message that the client shows already, and the client is
    not to begin that anew.
    """
    return encode_json(_None("continuation-owned" if continuation else "idle", probe_id))


# --- the client's


class _Init(msgspec.Struct, frozen=True):
    body: str = ""
    method: str = "POST"


class ChatPost(_Frame, tag="cf_agent_use_chat_request", frozen=True):
    """A message to answer, or an answer to make again: a request as AI SDK clients post it, in ``init.body``."""

    id: str
    init: _Init


class Cancel(_Frame, tag="cf_agent_chat_request_cancel", frozen=True):
    """Stop the answer that is known by this request."""

    id: str


class Clear(_Frame, tag="cf_agent_chat_clear", frozen=True):
    """Remove all messages."""


class SetMessages(_Frame, tag="cf_agent_chat_messages", frozen=True):
    """Let these be the messages."""

    messages: list[Any]


class ResumeRequest(_Frame, tag="cf_agent_stream_resume_request", frozen=True):
    """Is an answer being made? Answered with exactly one of resuming, pending, none, with the same probe id."""

    probe_id: str | None = None


class ResumeAck(_Frame, tag="cf_agent_stream_resume_ack", frozen=True):
    """Send the answer that was offered under this id."""

    id: str


class ToolResult(_Frame, tag="cf_agent_tool_result", frozen=True):
    """What a client's tool gave; with the state ``output-error`` why it failed.

    ``auto_continue``: the answer is to go on by itself when no other result is missing.
    """

    tool_call_id: str
    tool_name: str = ""
    output: Any = None
    state: str | None = None
    error_text: str | None = None
    auto_continue: bool = False
    client_tools: Any = None


class ToolApproval(_Frame, tag="cf_agent_tool_approval", frozen=True):
    """Someone agrees to a tool call, or not."""

    tool_call_id: str
    approved: bool
    auto_continue: bool = False


ChatCommand: TypeAlias = (
    ChatPost | Cancel | Clear | SetMessages | ResumeRequest | ResumeAck | ToolResult | ToolApproval
)

_commands: msgspec.json.Decoder[ChatCommand] = msgspec.json.Decoder(ChatCommand)


def parse_chat_frame(data: str | bytes) -> ChatCommand | None:
    """What a client asks the room for. None: it is no frame of a chat.

    Like Cloudflare's own server, this refuses nothing: a frame that is not quite one of the protocol is the
    application's.
    """
    if not isinstance(data, str):
        return None
    try:
        command = _commands.decode(data)
    except (ValueError, RecursionError):
        return None
    for name in ("id", "probe_id", "tool_call_id"):
        given = getattr(command, name, None)
        if given is not None and not 0 < len(given.encode()) <= REQUEST_ID_BYTES_MAX:
            return None
    return command
