"""`Submitted`: what became of a request to a room."""

from __future__ import annotations

import msgspec

from .transcript import stream_name


class Submitted(msgspec.Struct):
    """A message that the room has taken.

    ``answer_id`` is the id that its answer has or will have (None: the room does not answer), ``leg`` the leg of
    it that the request is about, ``known`` is true when the room knew it all already.
    """

    message_id: str
    answer_id: str | None
    known: bool = False
    leg: int = 1

    @property
    def stream(self) -> str | None:
        """The name of the stream with the leg's chunks."""
        return None if self.answer_id is None else stream_name(self.answer_id, self.leg)
