"""What clients of a chat room send (room.py has what they are sent)::

    {"type":"message","content":"...","id":"..."?,"user":"..."?,"files":[File...]?}
    {"type":"edit","id":"...","content":"...","user":"..."?,"files":[File...]?}   another version of a message
    {"type":"regenerate","id":"..."?}                       another answer; without an id to the last question
    {"type":"branch","id":"...","index":0}                  show another version of a message
    {"type":"approve","id":"...","approved":true,"reason":"..."?}
    {"type":"result","id":"...","output":...}               what a tool of the clients' has given
    {"type":"result","id":"...","error":"..."}
    {"type":"typing","typing":false?}
    {"type":"stop"}   {"type":"retry"}   {"type":"ping"}

    File = {"url":"https: or data: or a path of this server","mediaType":"image/png","filename":"..."?}

``id`` of ``approve`` and ``result`` is that of the tool call (`Wait.id`); an approval's own will do, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from ..errors import LimitExceeded, RemoteProtocolError
from .json_text import decode_json
from .room import CLIENT_ID_BYTES_MAX, USER_NAME_BYTES_MAX

FRAME_OVERHEAD_BYTES_MAX = 4_096
"""Room in a frame beside its content: the id, the name, keys and braces."""

ESCAPED_BYTES_PER_BYTE_MAX = 6
r"""JSON may write one byte of content as six (``\u0001``)."""

FILES_MAX = 20
"""Files of one message."""

REASON_BYTES_MAX = 1_024
"""Longest reason for an approval or its refusal, and longest error of a clients' tool, in bytes of UTF-8."""


class SentFile(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """A file of a message. ``url``: a data URL, a web address, or the path that an upload was given."""

    url: str
    media_type: str
    filename: str | None = None


class SendMessage(msgspec.Struct, frozen=True):
    """A person says something. ``id`` is the client's own: the same id again is the same message."""

    content: str
    id: str | None = None
    user: str | None = None
    files: tuple[SentFile, ...] = ()


class Edit(msgspec.Struct, frozen=True):
    """A person says it otherwise: a new version of the message ``id``, which is answered again."""

    id: str
    content: str
    user: str | None = None
    files: tuple[SentFile, ...] | None = None


class Regenerate(msgspec.Struct, frozen=True):
    """Make another version of an answer (None: of the last)."""

    id: str | None = None


class ChooseBranch(msgspec.Struct, frozen=True):
    """Show version ``index`` (from 0) of the message ``id``, and what followed it."""

    id: str
    index: int


class Approve(msgspec.Struct, frozen=True):
    """A person agrees to a tool call, or does not."""

    id: str
    approved: bool
    reason: str | None = None


class Result(msgspec.Struct, frozen=True):
    """What a tool call gave that was the clients' to carry out, or why it failed."""

    id: str
    output: Any = None
    error: str | None = None


class Typing(msgspec.Struct, frozen=True):
    """This person is writing (said again every few seconds), or not any more."""

    typing: bool = True


class Stop(msgspec.Struct, frozen=True):
    """Stop the answer that is being made."""


class Retry(msgspec.Struct, frozen=True):
    """Make the last answer again."""


class Ping(msgspec.Struct, frozen=True):
    """Is anyone there? Answered with `PONG`."""


RoomCommand: TypeAlias = (
    SendMessage | Edit | Regenerate | ChooseBranch | Approve | Result | Typing | Stop | Retry | Ping
)

_Fields: TypeAlias = Mapping[str, Any]


def parse_room_frame(data: str | bytes, *, message_bytes_max: int) -> RoomCommand:
    """What a client asks for. Fields that are not part of the protocol are ignored.

    Raises:
        RemoteProtocolError: the frame is not one of the protocol; the text says why.
        LimitExceeded: the content (with its files) or an output is longer than ``message_bytes_max`` bytes of
            UTF-8, or an id, a name or a reason is too long, or there are too many files.
    """
    # Before any parsing: a frame that no encoding of a legal message can be as long as.
    frame_bytes_max = message_bytes_max * ESCAPED_BYTES_PER_BYTE_MAX + FRAME_OVERHEAD_BYTES_MAX
    if len(data) > frame_bytes_max:
        raise LimitExceeded("message_bytes_max", len(data), message_bytes_max)
    fields = decode_json(data, "the frame")
    if not isinstance(fields, dict):
        raise RemoteProtocolError(f"a frame is a JSON object, not {_json_kind(fields)}")
    kind = fields.get("type")
    if not isinstance(kind, str):
        raise RemoteProtocolError("a frame has a `type`, and it is text")
    parse = _PARSERS.get(kind)
    if parse is None:
        known = list(_PARSERS)
        raise RemoteProtocolError(
            f"there is no frame of type {kind[:80]!r}; a client sends {', '.join(known[:-1])} or {known[-1]}"
        )
    return parse(fields, message_bytes_max)


def _parse_message(fields: _Fields, message_bytes_max: int) -> SendMessage:
    files = _files(fields, "a message", message_bytes_max) or ()
    return SendMessage(
        _content(fields, "a message", message_bytes_max, files),
        _optional_text(fields, "a message", "id", "client_id_bytes_max", CLIENT_ID_BYTES_MAX),
        _optional_text(fields, "a message", "user", "user_name_bytes_max", USER_NAME_BYTES_MAX),
        files,
    )


def _parse_edit(fields: _Fields, message_bytes_max: int) -> Edit:
    files = _files(fields, "an edit", message_bytes_max)
    return Edit(
        _id(fields, "an edit"),
        _content(fields, "an edit", message_bytes_max, files or ()),
        _optional_text(fields, "an edit", "user", "user_name_bytes_max", USER_NAME_BYTES_MAX),
        files,
    )


def _content(fields: _Fields, what: str, message_bytes_max: int, files: tuple[SentFile, ...]) -> str:
    content = fields.get("content", "" if files else None)
    if not isinstance(content, str):
        raise RemoteProtocolError(f"{what} has `content`, and it is text")
    size = len(content.encode()) + sum(len(file.url) for file in files)
    if size > message_bytes_max:
        raise LimitExceeded("message_bytes_max", size, message_bytes_max)
    if not content.strip() and not files:
        raise RemoteProtocolError("a message must not be empty")
    return content


def _files(fields: _Fields, what: str, message_bytes_max: int) -> tuple[SentFile, ...] | None:
    given = fields.get("files")
    if given is None:
        return None
    if not isinstance(given, list):
        raise RemoteProtocolError(f"{what}'s `files`, where there are some, are an array")
    if len(given) > FILES_MAX:
        raise LimitExceeded("files_max", len(given), FILES_MAX)
    try:
        return tuple(msgspec.convert(given, list[SentFile]))
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(f"{what}'s `files` are not what they should be: {error}") from error


def _parse_regenerate(fields: _Fields, _message_bytes_max: int) -> Regenerate:
    return Regenerate(_optional_text(fields, "a regenerate", "id", "client_id_bytes_max", CLIENT_ID_BYTES_MAX))


def _parse_branch(fields: _Fields, _message_bytes_max: int) -> ChooseBranch:
    index = fields.get("index")
    if not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise RemoteProtocolError("a branch has an `index`, and it is a whole number from 0")
    return ChooseBranch(_id(fields, "a branch"), index)


def _parse_approve(fields: _Fields, _message_bytes_max: int) -> Approve:
    approved = fields.get("approved")
    if not isinstance(approved, bool):
        raise RemoteProtocolError("an approve has `approved`, and it is true or false")
    reason = _optional_text(fields, "an approve", "reason", "reason_bytes_max", REASON_BYTES_MAX)
    return Approve(_id(fields, "an approve"), approved, reason)


def _parse_result(fields: _Fields, message_bytes_max: int) -> Result:
    tool_call_id = _id(fields, "a result")
    error = _optional_text(fields, "a result", "error", "reason_bytes_max", REASON_BYTES_MAX)
    if error is None and "output" not in fields:
        raise RemoteProtocolError("a result has an `output`, or an `error` that is text")
    output = fields.get("output")
    size = len(msgspec.json.encode(output))
    if size > message_bytes_max:
        raise LimitExceeded("message_bytes_max", size, message_bytes_max)
    return Result(tool_call_id, None if error is not None else output, error)


def _parse_typing(fields: _Fields, _message_bytes_max: int) -> Typing:
    typing = fields.get("typing", True)
    if not isinstance(typing, bool):
        raise RemoteProtocolError("`typing`, where it is said, is true or false")
    return Typing(typing)


def _always(command: RoomCommand) -> Callable[[_Fields, int], RoomCommand]:
    return lambda _fields, _message_bytes_max: command


_PARSERS: dict[str, Callable[[_Fields, int], RoomCommand]] = {
    "message": _parse_message,
    "edit": _parse_edit,
    "regenerate": _parse_regenerate,
    "branch": _parse_branch,
    "approve": _parse_approve,
    "result": _parse_result,
    "typing": _parse_typing,
    "stop": _always(Stop()),
    "retry": _always(Retry()),
    "ping": _always(Ping()),
}


def _id(fields: _Fields, what: str) -> str:
    value = _optional_text(fields, what, "id", "client_id_bytes_max", CLIENT_ID_BYTES_MAX)
    if value is None:
        raise RemoteProtocolError(f"{what} has an `id`, and it is text")
    return value


def _optional_text(fields: _Fields, what: str, name: str, limit: str, bytes_max: int) -> str | None:
    """A field that may be absent (or null: clients in many languages send that for "none")."""
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise RemoteProtocolError(f"{what}'s `{name}`, where there is one, is text that is not empty")
    size = len(value.encode())
    if size > bytes_max:
        raise LimitExceeded(limit, size, bytes_max)
    return value


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return "text"
    return "true or false" if isinstance(value, bool) else "a number"
