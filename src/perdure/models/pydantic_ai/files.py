"""Files of users' messages, as providers take them.

What a provider could not take must not end every later turn of the room, since the message stays in the
conversation: such a file becomes a note that says what it was.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic_ai import messages as ai

from ...errors import PerdureError

if TYPE_CHECKING:
    from ...wire.messages import ChatMessage
    from ..base import LoadFile

_TAKEN = re.compile(r"(image|audio|video|text)/|application/(pdf|json|xml|yaml|x-yaml|toml)\b")
"""Media types that a provider is shown; which of them it takes is between it and pydantic-ai."""


async def user_files(message: ChatMessage, load_file: LoadFile | None) -> list[ai.UserContent]:
    """The files of ``message``: data URLs and this server's own files as bytes, web addresses as they are."""
    return [await _file(part, load_file) for part in message.parts if part.get("type") == "file"]


async def load_content(url: str, load_file: LoadFile | None) -> ai.BinaryContent | None:
    """A data URL's or own file's content; None for all other addresses, and where the file is not there."""
    if url.startswith("data:"):
        try:
            return ai.BinaryContent.from_data_uri(url)
        except ValueError:
            return None
    if load_file is None:
        return None
    try:
        data, media_type = await load_file(url)
    except (PerdureError, LookupError):
        return None
    return ai.BinaryContent(data, media_type=media_type)


async def _file(part: dict[str, Any], load_file: LoadFile | None) -> ai.UserContent:
    url, media_type = str(part.get("url", "")), str(part.get("mediaType", ""))
    name = str(part.get("filename") or "a file")
    content = await load_content(url, load_file)
    if content is not None:
        return content if _TAKEN.match(content.media_type) else _note(name, content.media_type, "cannot be shown")
    if not url.startswith(("https://", "http://")):
        return _note(name, media_type, "cannot be read")
    return _note(name, media_type, url) if media_type and not _TAKEN.match(media_type) else _address(url, media_type)


def _address(url: str, media_type: str) -> ai.UserContent:
    kinds = {"image": ai.ImageUrl, "audio": ai.AudioUrl, "video": ai.VideoUrl}
    kind = kinds.get(media_type.partition("/")[0], ai.DocumentUrl)
    made: ai.UserContent = kind(url, media_type=media_type or None)
    return made


def _note(name: str, media_type: str, what: str) -> str:
    return f"[{name}{f' ({media_type})' if media_type else ''}: {what}]"
