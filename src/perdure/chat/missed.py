"""What a room client missed since its offset: the rest of the answer that was growing, then whole messages.

Each frame says where its reader stands after it: the next cut may come between any two of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import OffsetError
from ..values import format_offset
from ..wire.room import (
    FinalStatus,
    RoomMessage,
    chunks_frame,
    complete_frame,
    delta_frame,
    message_frame,
    update_frame,
)
from ..wire.ui_chunks import TextDelta, decode_chunk
from .offsets import RoomOffset
from .transcript import StoredMessage
from .turn import Turn

View = Callable[[StoredMessage], RoomMessage]


def missed_frames(
    given: RoomOffset,
    now: RoomOffset,
    *,
    growing: StoredMessage | None,
    messages: Sequence[StoredMessage],
    turn: Turn | None,
    view: View,
    kind: str,
) -> list[bytes] | None:
    """The frames; None where they cannot be told from here and the client must have everything.

    ``growing`` is the answer that the offset stands in, ``messages`` are those that changed or came since,
    ``turn`` is the one that runs now, ``kind`` one of ``parts``, ``delta``, ``update``.
    """
    at = given
    frames: list[bytes] = []
    if growing is not None:
        rest = _Rest(growing, view(growing), turn)
        told = rest.chunks(at) if kind == "parts" else rest.text(at, delta=kind == "delta")
        if told is None:
            return None
        more, at = told
        frames += more
    elif at.answer_seq:
        at = at.settled()  # what became of it is among the messages
    for number, stored in enumerate(messages, 1):
        shown = view(stored)
        at = at._replace(last_seq=max(at.last_seq, stored.seq))
        if turn is not None and turn.answer.seq == stored.seq:
            at = at._replace(
                answer_seq=stored.seq, characters=len(shown.content), leg=turn.leg, position=turn.position
            )
        if number == len(messages):
            at = at._replace(changes=now.changes)  # cut before this, the client is told of them again
        frames.append(message_frame(shown, str(at)))
    return frames


class _Rest:
    """What an answer gained while its reader was away."""

    def __init__(self, answer: StoredMessage, shown: RoomMessage, turn: Turn | None) -> None:
        self._answer = answer
        self._shown = shown
        self._turn = turn if turn is not None and turn.answer.seq == answer.seq else None

    def text(self, at: RoomOffset, *, delta: bool) -> tuple[list[bytes], RoomOffset]:
        """For clients of text."""
        content, had = self._shown.content, at.characters
        at = at._replace(characters=max(len(content), had))
        if self._turn is not None:
            at = at._replace(leg=self._turn.leg, position=self._turn.position)
        frames = []
        if len(content) > had and delta:
            frames.append(delta_frame(self._answer.id, content[had:], str(at)))
        elif len(content) > had:
            frames.append(update_frame(self._answer.id, content, str(at)))
        if self._turn is None:
            at = at.settled()
            frames.append(self._end(str(at)))
        return frames, at

    def _end(self, offset: str) -> bytes:
        shown = self._shown
        status: FinalStatus = shown.status  # type: ignore[assignment]
        return complete_frame(shown.id, shown.content, status, offset, error=shown.error, waits=shown.waits)

    def chunks(self, at: RoomOffset) -> tuple[list[bytes], RoomOffset] | None:
        """For clients of parts: chunks while the leg runs; of one that has ended, the message."""
        turn = self._turn
        if turn is None:
            at = at.settled()
            return [message_frame(self._shown, str(at))], at
        if turn.leg != at.leg or turn.position < at.position:
            return None
        frames = []
        position = at.position
        while position < turn.position:
            try:
                entries = turn.stream.read(format_offset(position)).entries
            except OffsetError:
                return None
            position += len(entries)
            gained = sum(len(chunk.delta) for chunk in map(decode_chunk, entries) if type(chunk) is TextDelta)
            at = at._replace(characters=at.characters + gained, position=position)
            frames.append(chunks_frame(self._answer.id, entries, str(at)))
        return frames, at
