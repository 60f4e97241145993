"""The pages as pure functions: values in, HTML out. Routes, sockets and clocks live in the server.

Addresses that the pages use, each below ``base_path`` (the ASGI ``root_path`` of a mounted app):

=========================================  ==================================================
``GET /``                                  :func:`render_index`
``GET /chat?room=NAME``                    303 to ``/chat/NAME``; no name: to a new, random one
``GET /chat/{room}``                       :func:`render_chat`; ``?before=ID`` gives an older page
``GET /chat/{room}/messages/{id}``         :func:`render_message`, one HTML fragment
``GET /chat/{room}/messages?before=&limit=``  :func:`render_messages`, header ``X-Perdure-More: true|false``
``GET /_perdure/static/{name}``            :func:`perdure.web.assets.find_asset`
``WS /ws/{room}``                          the room protocol, ``?parts=1&presence=1&offset=...&user=...``
``POST /api/chat/{room}/files``            an upload, where the server takes them
=========================================  ==================================================

Messages are the room protocol's message objects. Send :data:`PAGE_HEADERS` with every page.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict
from urllib.parse import quote

from perdure.web.assets import SCRIPTS, STATIC_PATH, asset_url
from perdure.web.parts import blocks_of, file_block

if TYPE_CHECKING:
    from jinja2 import Environment

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

PAGE_HEADERS: Mapping[str, str] = {
    "content-type": "text/html; charset=utf-8",
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
}

USER_COOKIE = "perdure_user"
"""Where the page keeps the reader's name (percent-encoded), so that the first paint knows it too."""

_PERSON_COLOURS = 8
_EMPTY_PARTS = [
    *blocks_of(
        [
            {"type": "reasoning", "text": " "},
            {"type": "tool-", "toolCallId": "", "state": ""},
            {"type": "data-", "data": ""},
            {"type": "source-document"},
        ],
        settled=True,
        waiting=False,
    ),
    {"kind": "text", "html": ""},
    file_block({"type": "file"}),
    {**file_block({"type": "file"}), "kind": "picture"},
]
"""One of each kind, for the templates that the page's script clones."""

_MESSAGE_BYTES_MAX = 1 << 20

_UNITS = (("minute", 60, 3_600), ("hour", 3_600, 86_400), ("day", 86_400, 2_592_000))
"""Each with its seconds, and the age in seconds up to which it is used."""

_MARKS = re.compile(r"\*\*|~~|`+|^[ \t]*(?:#{1,6}|>|[-*+]|\|)[ \t]", re.MULTILINE)

_STATUSES = frozenset({"streaming", "waiting", "complete", "aborted", "failed"})


class RoomEntry(TypedDict):
    """A room as the index lists it. ``preview`` is the newest message's text."""

    name: str
    last_active_ms: NotRequired[int | None]
    preview: NotRequired[str]
    streaming: NotRequired[bool]


def render_index(rooms: Sequence[RoomEntry], *, now_ms: int, base_path: str = "") -> str:
    """The list of rooms, in the order given, and the form for a new one."""
    entries = [
        {
            "name": room["name"],
            "url": _room_url(room["name"], base_path),
            "preview": _preview(room.get("preview", "")),
            "streaming": room.get("streaming", False),
            "active": _ago(room.get("last_active_ms"), now_ms),
            "active_iso": _iso(room.get("last_active_ms")),
        }
        for room in rooms
    ]
    return _render("index.html", base_path, rooms=entries)


def render_chat(
    room: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    offset: str,
    streaming_message_id: str | None = None,
    user: str | None = None,
    user_fixed: bool = False,
    more: bool = False,
    model: str | None = None,
    message_bytes_max: int = _MESSAGE_BYTES_MAX,
    base_path: str = "",
) -> str:
    """A room's page: its newest messages as they were at ``offset``, then live from there.

    ``offset`` must be read together with ``messages``, from one state of the room. ``more`` says
    that there are older ones. ``user`` is the reader's name; ``user_fixed`` that an authenticator
    gave it and the reader cannot change it. ``model`` is shown below the room's name.
    """
    views = [_view(message, user, streaming_message_id) for message in messages]
    empty_user = _view({"id": "", "role": "user", "content": ""}, user, None)
    empty_answer = _view({"id": "", "role": "assistant", "content": ""}, user, None)
    return _render(
        "chat.html",
        base_path,
        room=room,
        room_url=_room_url(room, base_path),
        socket_path=f"{base_path}/ws/{quote(room, safe='')}",
        files_url=f"{base_path}/api/chat/{quote(room, safe='')}/files",
        messages=views,
        empty_user=empty_user,
        empty_answer=empty_answer,
        empty_parts=_EMPTY_PARTS,
        offset=offset,
        user=user or "",
        user_fixed=user_fixed,
        more=more,
        model=model or "",
        message_bytes_max=message_bytes_max,
        cookie=USER_COOKIE,
        imports=SCRIPTS[1:],
        static_path=STATIC_PATH,
    )


def render_message(message: Mapping[str, Any], *, user: str | None = None) -> str:
    """One message as an HTML fragment, the same that :func:`render_chat` has for it."""
    return render_messages([message], user=user)


def render_messages(messages: Iterable[Mapping[str, Any]], *, user: str | None = None) -> str:
    """Several messages, oldest first, as one HTML fragment."""
    views = [_view(message, user, None) for message in messages]
    return _environment().get_template("_messages.html").render(messages=views)


def render_error(status: int, title: str, sentence: str, *, base_path: str = "") -> str:
    """An error as a page. ``sentence`` says in plain words what happened and what to do."""
    return _render("error.html", base_path, status=status, title=title, sentence=sentence)


def _view(message: Mapping[str, Any], user: str | None, streaming_message_id: str | None) -> dict[str, Any]:
    """What the templates see of a message."""
    content = str(message.get("content", ""))
    role = "assistant" if message.get("role") == "assistant" else "user"
    status = message.get("status", "complete")
    if status not in _STATUSES:
        status = "complete"
    if streaming_message_id is not None and message["id"] == streaming_message_id:
        status = "streaming"
    name = str(message.get("user") or "")
    parts = message.get("parts") or ([{"type": "text", "text": content}] if content else [])
    answer = role == "assistant"
    branches = message.get("branches") or {}
    return {
        "id": message["id"],
        "role": role,
        "user": name,
        "colour": _colour(name),
        "theirs": bool(name) and name != (user or ""),
        "status": status,
        "error": str(message.get("error") or ""),
        "text": content,
        "blocks": blocks_of(parts, settled=status != "streaming", waiting=status == "waiting") if answer else [],
        "files": [] if answer else [file_block(part) for part in parts if part.get("type") == "file"],
        "parts_json": json.dumps(parts, separators=(",", ":")) if status == "streaming" else "",
        "usage": _usage(message.get("metadata") or {}) if answer else "",
        "version": int(branches.get("index", 0)),
        "versions": int(branches.get("count", 0)),
        "iso": _iso(message.get("timestamp")),
        "time": _clock(message.get("timestamp")),
    }


def _usage(metadata: Mapping[str, Any]) -> str:
    """What an answer cost, in words; "" where that is not known."""
    usage = metadata.get("usage")
    if not isinstance(usage, Mapping):
        return ""
    counts = (
        [usage.get("totalTokens")]
        if "totalTokens" in usage
        else [usage.get("inputTokens"), usage.get("outputTokens")]
    )
    total = sum(count for count in counts if isinstance(count, int))
    return f"{total:,} tokens" if total > 0 else ""


def _colour(name: str) -> int:
    """A person's colour, the same in every browser: ``chat.js`` computes it the same way."""
    value = 0
    for character in name:
        value = (value * 31 + ord(character)) % 9973
    return value % _PERSON_COLOURS


def _room_url(room: str, base_path: str) -> str:
    return f"{base_path}/chat/{quote(room, safe='')}"


def _preview(text: str) -> str:
    """The start of a message on one line, without the marks of markdown."""
    return " ".join(_MARKS.sub("", text[:400]).split())[:160]


def _iso(timestamp_ms: int | None) -> str:
    if timestamp_ms is None:
        return ""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).isoformat(timespec="seconds")


def _clock(timestamp_ms: int | None) -> str:
    if timestamp_ms is None:
        return ""
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%H:%M UTC")


def _ago(timestamp_ms: int | None, now_ms: int) -> str:
    """How long ago, in the words a person would use."""
    if timestamp_ms is None:
        return ""
    seconds = max(0, now_ms - timestamp_ms) // 1000
    if seconds < 60:
        return "just now"
    for unit, unit_seconds, limit in (
        ("minute", 60, 3600),
        ("hour", 3600, 86_400),
        ("day", 86_400, 2_592_000),
    ):
        if seconds < limit:
            count = seconds // unit_seconds
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return datetime.fromtimestamp(timestamp_ms / 1000, UTC).strftime("%d %b %Y").lstrip("0")


def _render(template: str, base_path: str, **values: Any) -> str:
    return (
        _environment()
        .get_template(template)
        .render(base_path=base_path, asset=lambda name: asset_url(name, base_path), **values)
    )


@cache
def _environment() -> Environment:
    """The templates, read and compiled at the first page. That takes a while: render in a thread."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("perdure.web"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        auto_reload=False,
    )
    for name in environment.list_templates(extensions=["html"]):
        environment.get_template(name)
    return environment
