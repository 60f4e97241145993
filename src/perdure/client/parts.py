"""Answers that grow by chunks, for a client that asks for parts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from ..wire.fold import MessageFold
from ..wire.messages import ChatMessage
from ..wire.room import RoomMessage
from ..wire.room_parts import Part, parts_beside_text
from ..wire.ui_chunks import TextDelta, decode_chunk
from .events import Message, PartChanged


class GrowingAnswer:
    """One answer, from what it was in a frame on."""

    def __init__(self, sent: RoomMessage) -> None:
        parts = sent.parts if sent.parts is not None else _text_parts(sent.content)
        self._fold = MessageFold.taking_up(ChatMessage(sent.id, "assistant", parts, sent.metadata))

    def push(self, chunks: Sequence[msgspec.Raw]) -> tuple[str, bool]:
        """Add chunks; return the text that they brought, and whether that was all.

        Raises:
            RemoteProtocolError: one may not come here.
        """
        gained = []
        for raw in chunks:
            chunk = decode_chunk(bytes(raw))
            self._fold.push(chunk)
            if isinstance(chunk, TextDelta):
                gained.append(chunk.delta)
        return "".join(gained), len(gained) == len(chunks)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts, where they say more than the text."""
        return tuple(parts_beside_text(self._fold.message().parts) or ())

    @property
    def metadata(self) -> dict[str, object] | None:
        """What was said about the answer."""
        return self._fold.message().metadata


def changed_parts(known: Message, now: Message) -> Iterable[PartChanged]:
    """What is new or other in the parts that are no text: that comes as text."""
    for index, part in enumerate(now.parts):
        before = known.parts[index] if index < len(known.parts) else None
        if part != before and part.get("type") not in ("text", "step-start"):
            yield PartChanged(now.id, index, part)


def _text_parts(content: str) -> list[Part]:
    return [{"type": "text", "text": content, "state": "done"}] if content else []
