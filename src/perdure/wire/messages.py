"""A chat message as front ends and storage know it: the AI SDK's `UIMessage`.

::

    {"id": "m1", "role": "assistant", "parts": [{"type": "text", "text": "Hi", "state": "done"}],
     "metadata": {"user": "Ada"}}

Parts stay plain JSON: newer clients send part types that this version does not know, and they
must come back from storage as they were.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from .json_text import decode_json, encode_json

Role = Literal["system", "user", "assistant"]


class ChatMessage(msgspec.Struct, omit_defaults=True):
    """One entry of a conversation.

    Treat it as a value: parts may be shared between copies, so make a new message to change one.
    """

    id: str
    role: Role
    parts: list[dict[str, Any]]
    metadata: dict[str, Any] | None = None

    @property
    def text(self) -> str:
        """The text parts, joined with nothing between them."""
        return "".join(
            part["text"] for part in self.parts if part.get("type") == "text" and isinstance(part.get("text"), str)
        )

    @property
    def user(self) -> str | None:
        """The name of the person who wrote it, where one is known."""
        name = (self.metadata or {}).get("user")
        return name if isinstance(name, str) else None


_DECODER = msgspec.json.Decoder(ChatMessage)


def user_message(id: str, text: str, *, user: str | None = None) -> ChatMessage:
    """A user's text message; ``user`` is the person's name and is kept in the metadata."""
    return ChatMessage(
        id=id,
        role="user",
        parts=[{"type": "text", "text": text}],
        metadata=None if user is None else {"user": user},
    )


def encode_message(message: ChatMessage) -> bytes:
    """The message as compact JSON; an absent ``metadata`` is left out."""
    return encode_json(message)


def decode_message(data: bytes | str) -> ChatMessage:
    """The message in ``data``; fields that are not ours are dropped, parts are kept whole.

    Raises:
        RemoteProtocolError: it is not a message.
    """
    return decode_json(data, "the message", _DECODER)
