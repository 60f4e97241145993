"""The frames of the AI SDK's `WebSocketChatTransport` (`ai` 7.0.135 and newer): many chats over one socket.

::

    client   {"type": "send", "requestId", "id", "trigger", "messageId"?, "messages", "headers", "body", "metadata"?}
             {"type": "resume", "requestId", "id", "headers", "body", "metadata"?}
             {"type": "abort", "requestId"}
    server   {"type": "start", "requestId"}
             {"type": "chunk", "requestId", "sequence": 0, "chunk": {...}}     sequence: 0, 1, 2 and so on
             {"type": "end", "requestId"}
             {"type": "error", "requestId", "errorText"}
             {"type": "no-active", "requestId"}                                answers a resume

Each is one JSON object in a text frame. The client breaks the socket off over a frame that it does not
understand, a chunk that its version does not know, and a gap in the sequence; frames of requests that it has
forgotten are ignored. ``id`` is the chat. ``headers`` are those of the request, not of the handshake.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from ..errors import LimitExceeded, RemoteProtocolError
from .json_text import decode_json
from .ui_requests import ChatRequest, read_chat_request

REQUEST_ID_BYTES_MAX = 256
"""Bytes of the id that a client gives a request."""


class SendFrame(msgspec.Struct, frozen=True):
    """Answer a message, edit one, make an answer again, or take results in."""

    request_id: str
    headers: dict[str, str]
    request: ChatRequest


class ResumeFrame(msgspec.Struct, frozen=True):
    """Tell the running answer from its start."""

    request_id: str
    headers: dict[str, str]
    chat_id: str


class AbortFrame(msgspec.Struct, frozen=True):
    """End what the request began."""

    request_id: str


SocketFrame: TypeAlias = SendFrame | ResumeFrame | AbortFrame


class BadRequest(msgspec.Struct, frozen=True):
    """A frame that can be answered, with the reason why it is refused."""

    request_id: str
    error: RemoteProtocolError | LimitExceeded


def parse_socket_frame(data: bytes | str, *, message_bytes_max: int | None = None) -> SocketFrame | BadRequest:
    """A client's frame, or what is wrong with a request whose id is known.

    Raises:
        RemoteProtocolError: it is no frame of this protocol; the socket cannot be used any further.
    """
    fields = decode_json(data, "the frame")
    if not isinstance(fields, dict):
        raise RemoteProtocolError("the frame is not a JSON object")
    request_id, kind = fields.get("requestId"), fields.get("type")
    if not isinstance(request_id, str) or len(request_id.encode()) > REQUEST_ID_BYTES_MAX:
        raise RemoteProtocolError(f"`requestId` is a text of up to {REQUEST_ID_BYTES_MAX} bytes")
    if kind == "abort":
        return AbortFrame(request_id)
    if kind not in ("send", "resume"):
        raise RemoteProtocolError("the type of a frame is send, resume or abort")
    headers = _headers(fields.get("headers"))
    body = fields.get("body", {})
    if not isinstance(body, dict):
        raise RemoteProtocolError("`body` is not an object")
    try:
        if kind == "resume":
            return ResumeFrame(request_id, headers, _chat_id(fields))
        asked = {name: fields[name] for name in ("id", "trigger", "messageId", "messages") if name in fields}
        return SendFrame(request_id, headers, read_chat_request(body | asked, message_bytes_max=message_bytes_max))
    except (RemoteProtocolError, LimitExceeded) as error:
        return BadRequest(request_id, error)


def _headers(given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise RemoteProtocolError("`headers` is not an object of texts")
    return {name.lower(): value for name, value in given.items()}


def _chat_id(fields: dict[str, Any]) -> str:
    chat_id = fields.get("id")
    if not isinstance(chat_id, str) or not chat_id:
        raise RemoteProtocolError("the request has no `id`: the chat that it is for")
    return chat_id


class ChunkFrames:
    """Makes the frames that answer one request."""

    def __init__(self, request_id: str) -> None:
        self.sequence = 0
        self._id = msgspec.json.encode(request_id)
        self._head = b'{"type":"chunk","requestId":' + self._id + b',"sequence":'

    def chunk(self, data: bytes) -> bytes:
        """The next chunk, given as JSON."""
        frame = b'%b%d,"chunk":%b}' % (self._head, self.sequence, data)
        self.sequence += 1
        return frame

    def start(self) -> bytes:
        """There is an answer; its chunks follow."""
        return b'{"type":"start","requestId":' + self._id + b"}"

    def end(self) -> bytes:
        """The answer is told to its end."""
        return b'{"type":"end","requestId":' + self._id + b"}"

    def no_active(self) -> bytes:
        """There is nothing to resume."""
        return b'{"type":"no-active","requestId":' + self._id + b"}"

    def error(self, text: str) -> bytes:
        """The request failed; ``text`` is for people."""
        return b'{"type":"error","requestId":' + self._id + b',"errorText":' + msgspec.json.encode(text) + b"}"
