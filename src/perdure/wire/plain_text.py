"""A message as nothing but text, for clients and terminals that show no other kind of part.

What is no text is a note on a line of its own, in square brackets::

    Let me ask `refund`.
    [refund: order 17 refunded]
    Your money is on its way.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from .room import Wait
from .room_parts import Part, tool_name, waits_of

VALUE_CHARACTERS_SHOWN = 300
"""How much of a tool's input or output a note shows."""


def plain_text(parts: Sequence[Part], *, waiting: bool = False, error: str | None = None) -> str:
    """All parts in their order; ``waiting``: what the answer waits for is said, too; ``error``: why it failed."""
    waits = {wait.id: wait for wait in waits_of(parts) or ()} if waiting else {}
    text = ""
    noted = False
    for part in parts:
        wait = waits.get(part.get("toolCallId", ""))
        note = f"[{wait_sentence(wait)}]" if wait is not None else part_note(part)
        if note is not None:
            text = _on_a_line(text, note)
            noted = True
        elif part.get("type") == "text" and part.get("text"):
            text += f"\n{part['text']}" if noted else part["text"]
            noted = False
    if error is None:
        return text
    return _on_a_line(text, f"[failed: {error}]") if text else error


def part_note(part: Part) -> str | None:
    """What is said of a part that is no text; None where there is nothing to say (yet)."""
    kind = part.get("type")
    if (name := tool_name(part)) is not None:
        return _tool_note(name, part)
    if kind == "source-url":
        return f"[{part.get('title') or 'source'}: {part['url']}]"
    if kind == "file":
        url = part["url"] if not part["url"].startswith("data:") else part["mediaType"]
        return f"[file: {part.get('filename') or url}]"
    return None


def wait_sentence(wait: Wait) -> str:
    """What the answer waits for, with the input of the call."""
    needs = "an approval" if wait.kind == "approval" else "a result from its client"
    return f"{wait.tool} {_short(wait.input)} needs {needs}"


def _tool_note(name: str, part: Part) -> str | None:
    state = part.get("state")
    if state == "output-available":
        return f"[{name}: {_short(part.get('output'))}]"
    if state == "output-error":
        return f"[{name} failed: {part.get('errorText', '')}]"
    if state == "output-denied":
        return f"[{name}: refused]"
    return f"[{name} {_short(part['input'])}]" if state == "input-available" else None


def _on_a_line(text: str, note: str) -> str:
    return f"{text}\n{note}" if text and not text.endswith("\n") else text + note


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= VALUE_CHARACTERS_SHOWN else text[: VALUE_CHARACTERS_SHOWN - 1] + "…"
