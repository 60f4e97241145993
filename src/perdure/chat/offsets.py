"""Where a room client stands: one opaque text that a reconnect hands back.

``<cuts>.<last seq>.<seq of the answer that was streaming, or 0>.<characters of it>``, each with
leading zeros, so that later offsets of one answer are also greater as text.

It says which messages the client has, and how much of the one answer that was growing. It is
made anew for each frame from what the room knows anyway, so resuming needs no second log.
"""

from __future__ import annotations

from typing import NamedTuple


class RoomOffset(NamedTuple):
    """A client's position in a room."""

    last_seq: int
    answer_seq: int = 0
    characters: int = 0
    cuts: int = 0

    def __str__(self) -> str:
        return f"{self.cuts:05d}.{self.last_seq:09d}.{self.answer_seq:09d}.{self.characters:08d}"


def parse_room_offset(text: str) -> RoomOffset | None:
    """The position behind the text; None when it is none (the client then gets everything)."""
    pieces = text.split(".")
    if len(pieces) != 4 or not all(piece.isascii() and piece.isdigit() and len(piece) < 16 for piece in pieces):
        return None
    cuts, last_seq, answer_seq, characters = map(int, pieces)
    return RoomOffset(last_seq, answer_seq, characters, cuts)
