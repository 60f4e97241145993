"""Sessions in the style of Helix: an answer is resumed by the number of the last chunk that was seen.

::

    X-Resume-From-Sequence: 42        tell what comes after chunk 42
    X-Existing-Message-Id: msg-123    under this id, whatever the room calls the answer

The chunks of a session are numbered 1, 2, 3 and so on through all its answers. A client that comes in the middle
of a part needs that part opened: AI SDK clients refuse a delta of a part that they have not seen begin.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from ..errors import RemoteProtocolError
from .fold import MessageFold
from .room import CLIENT_ID_BYTES_MAX
from .ui_chunks import (
    Chunk,
    ReasoningStart,
    Start,
    TextStart,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
)

SEQUENCE_HEADER = "x-resume-from-sequence"
MESSAGE_ID_HEADER = "x-existing-message-id"
SEQUENCE_DIGITS_MAX = 15

SessionStatus = Literal["active", "paused", "ended", "failed"]
"""An answer is being made; it waits for a person or a client; there is nothing to do; the last one failed."""


def parse_resume(headers: Mapping[str, str]) -> tuple[int | None, str | None]:
    """The sequence and the message id that a request to resume names; None where it names none.

    ``Last-Event-ID`` stands in for the sequence: the events carry it.

    Raises:
        RemoteProtocolError: the sequence is no number, or the id is too long.
    """
    given = headers.get(SEQUENCE_HEADER) or headers.get("last-event-id")
    if given and not (given.isascii() and given.isdigit() and len(given) <= SEQUENCE_DIGITS_MAX):
        raise RemoteProtocolError("X-Resume-From-Sequence is the number of a chunk")
    message_id = headers.get(MESSAGE_ID_HEADER) or None
    if message_id is not None and len(message_id.encode()) > CLIENT_ID_BYTES_MAX:
        raise RemoteProtocolError(
            f"X-Existing-Message-Id has {CLIENT_ID_BYTES_MAX} bytes at most (client_id_bytes_max)"
        )
    return (int(given) if given else None), message_id


def reopened(fold: MessageFold, message_id: str) -> Iterator[Chunk]:
    """What must be said before the chunk that follows those in ``fold``: ``start``, and the parts that are open."""
    yield Start(message_id=message_id)
    for part_id in fold.open_text_ids:
        yield TextStart(part_id)
    for part_id in fold.open_reasoning_ids:
        yield ReasoningStart(part_id)
    for part in fold.tool_parts:
        yield from _reopened_call(part)


def _reopened_call(part: dict[str, Any]) -> Iterator[Chunk]:
    """A call that has no result yet: the result that comes must find it."""
    call_id, dynamic = part["toolCallId"], part["type"] == "dynamic-tool"
    name = part["toolName"] if dynamic else part["type"].removeprefix("tool-")
    shared = {"dynamic": dynamic or None, "title": part.get("title")}
    if part["state"] == "input-streaming":
        yield ToolInputStart(call_id, name, **shared)
        if part.get("rawInput"):
            yield ToolInputDelta(call_id, part["rawInput"])
    elif part["state"] in ("input-available", "approval-requested", "approval-responded"):
        yield ToolInputAvailable(call_id, name, part.get("input"), **shared)
        if part["state"] != "input-available":
            yield ToolApprovalRequest(part["approval"]["id"], call_id)
