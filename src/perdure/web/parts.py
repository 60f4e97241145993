"""A message's parts as the templates see them: the same blocks that ``static/parts.js`` draws.

Parts come from models and tools, so nothing of them reaches a page but text, sanitised markdown and addresses
that were looked at.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from perdure.wire.room_parts import tool_name

Part: TypeAlias = Mapping[str, Any]

_TOOL_STATES = {
    "input-streaming": "Preparing…",
    "input-available": "Running…",
    "approval-requested": "Needs approval",
    "approval-responded": "Approved",
    "output-available": "Done",
    "output-error": "Failed",
    "output-denied": "Refused",
}

_WEB = re.compile(r"https?://", re.IGNORECASE)
_DATA = re.compile(r"data:", re.IGNORECASE)
_DATA_PICTURE = re.compile(r"data:image/", re.IGNORECASE)
_OWN_PATH = re.compile(r"/(?!/)")


def _markdown(text: str, settled: bool) -> str:
    # Markdown and its lexers take a fifth of a second to load: with the first page, not with every start.
    from perdure.web.markdown import render_markdown

    return render_markdown(text, settled=settled)


def blocks_of(parts: Sequence[Part], *, settled: bool, waiting: bool) -> list[dict[str, Any]]:
    """What is shown of an answer, in order; sources come together at the end."""
    blocks: list[dict[str, Any]] = []
    sources: list[dict[str, Any]] = []
    for part in parts:
        kind = str(part.get("type", ""))
        if kind == "text":
            if part.get("text"):
                blocks.append({"kind": "text", "html": _markdown(str(part["text"]), settled)})
        elif kind == "reasoning":
            if part.get("text") or part.get("state") == "streaming":
                label = "Thinking…" if part.get("state") == "streaming" else "Thoughts"
                blocks.append({"kind": "reasoning", "label": label, "text": str(part.get("text", ""))})
        elif (name := tool_name(dict(part))) is not None:
            blocks.append(_tool(part, name, waiting))
        elif kind == "file":
            blocks.append(file_block(part))
        elif kind.startswith("source-"):
            sources.append(_source(part))
        elif kind.startswith("data-"):
            blocks.append({"kind": "data", "label": kind.removeprefix("data-"), "text": as_text(part.get("data"))})
    if sources:
        blocks.append({"kind": "sources", "sources": sources})
    return blocks


def as_text(value: object) -> str:
    """A tool's input or output for people: text as it is, all else as indented JSON."""
    return value if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def file_block(part: Part) -> dict[str, Any]:
    """A file: shown where it is a picture that came with the message or lies on this server, else a link.

    A picture from elsewhere is fetched without a click, which tells its server who reads this, and when.
    """
    url, media_type = str(part.get("url", "")), str(part.get("mediaType", ""))
    own = bool(_OWN_PATH.match(url))
    picture = media_type.startswith("image/") and (own or bool(_DATA_PICTURE.match(url)))
    address = url if own or _DATA.match(url) or _WEB.match(url) else ""
    name = str(part.get("filename") or "")
    return {"kind": "picture" if picture else "file", "url": address, "name": name, "media_type": media_type}


def _source(part: Part) -> dict[str, Any]:
    url = str(part.get("url", ""))
    label = part.get("title") or part.get("filename") or url or "Document"
    return {"url": url if _WEB.match(url) and part.get("type") == "source-url" else "", "label": str(label)}


def _tool(part: Part, name: str, waiting: bool) -> dict[str, Any]:
    state = str(part.get("state", ""))
    approval = part.get("approval") or {}
    refused = approval.get("approved") is False
    wanted = state == "input-available" and waiting and not part.get("providerExecuted")
    words = _TOOL_STATES.get(state, state)
    if wanted:
        words = "Waits for a result"
    elif state == "approval-responded" and refused:
        words = "Refused"
    elif state == "output-available" and part.get("preliminary"):
        words = "Running…"
    trouble, raw = "", str(part.get("rawInput", ""))
    if state == "output-error":
        trouble = str(part.get("errorText", ""))
    elif state == "output-denied" or refused:
        trouble = str(approval.get("reason") or "")
    return {
        "kind": "tool",
        "call": str(part["toolCallId"]),
        "name": str(part.get("title") or name),
        "state": state,
        "preliminary": bool(part.get("preliminary")),
        "words": words,
        "input": as_text(part["input"]) if "input" in part and state != "input-streaming" else raw,
        "output": as_text(part.get("output")) if state == "output-available" else "",
        "trouble": trouble,
        "asked": state == "approval-requested" and waiting,
        "wanted": wanted,
    }
