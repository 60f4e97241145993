"""A message's parts as clients of ``?parts=1`` get them, and what a waiting answer waits for.

A snapshot of an answer that is still being made must be one that its next chunks can be added to: a chunk names
the text that it continues by an id, which a `UIMessage` does not have. So a text part that is still open
(``state`` is ``streaming``) carries its ``id`` here; all the rest says itself what is open::

    {"type":"text","text":"Hel","state":"streaming","id":"text-1-1"}
    {"type":"reasoning","id":"r1","text":"Hm","state":"streaming"}
    {"type":"tool-order","toolCallId":"c1","state":"input-streaming","rawInput":"{\\"order\\":4","input":{"order":4}}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

from .fold import MessageFold
from .room import Wait

Part: TypeAlias = dict[str, Any]

_DYNAMIC = "dynamic-tool"


def parts_beside_text(parts: Sequence[Part]) -> list[Part] | None:
    """The parts, or None where they say nothing that the message's text does not."""
    shown = [part for part in parts if part.get("type") != "step-start"]
    if not shown:
        return None
    only = shown[0]
    if len(shown) == 1 and only.get("type") == "text" and only.keys() <= {"type", "text", "state"}:
        return None
    return list(parts)


def growing_parts(fold: MessageFold) -> list[Part]:
    """The parts of an answer that is being made, so that its next chunks can be added to them."""
    parts = fold.message().parts
    ids = list(fold.open_text_ids)
    for part in reversed(parts):
        if not ids:
            break
        if part.get("type") == "text" and part.get("state") == "streaming":
            part["id"] = ids.pop()
    return parts


def tool_name(part: Part) -> str | None:
    """The tool that the part is a call of; None when it is none."""
    kind = part.get("type")
    if not isinstance(kind, str) or not isinstance(part.get("toolCallId"), str):
        return None
    if kind == _DYNAMIC:
        return str(part.get("toolName", ""))
    return kind.removeprefix("tool-") if kind.startswith("tool-") else None


def waits_of(parts: Sequence[Part]) -> list[Wait] | None:
    """What a waiting answer waits for: calls to be approved, calls that are the clients' to carry out."""
    waits = []
    for part in parts:
        name = tool_name(part)
        state = part.get("state")
        if name is None or part.get("providerExecuted"):
            continue
        if state == "approval-requested":
            waits.append(Wait(part["toolCallId"], name, "approval", part.get("input")))
        elif state == "input-available":
            waits.append(Wait(part["toolCallId"], name, "result", part.get("input")))
    return waits or None
