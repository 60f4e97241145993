"""Where a room client stands: one opaque text that a reconnect hands back.

``<cuts>.<changes>.<last seq>.<seq of the answer that was growing, or 0>.<characters of it>.<its leg>.<chunks of
the leg>``, each with leading zeros, so that later offsets of one answer are also greater as text.

It says which messages the client has, up to which change of older ones, and how much of the one answer that was
growing: in characters for clients of text, in chunks for clients of parts. Each frame carries both, so a client
may come back in the other mode. It is made anew for each frame from what the room knows anyway, so resuming
needs no second log.
"""

from __future__ import annotations

from typing import NamedTuple

_PIECES = 7


class RoomOffset(NamedTuple):
    """A client's position in a room."""

    last_seq: int
    answer_seq: int = 0
    characters: int = 0
    cuts: int = 0
    changes: int = 0
    leg: int = 0
    position: int = 0

    def __str__(self) -> str:
        growth = f"{self.characters:08d}.{self.leg:03d}.{self.position:07d}"
        return f"{self.before_growth}{growth}"

    @property
    def before_growth(self) -> str:
        """The part of the text that stays the same while one leg of an answer grows."""
        return f"{self.cuts:05d}.{self.changes:06d}.{self.last_seq:08d}.{self.answer_seq:08d}."

    def settled(self) -> RoomOffset:
        """The same place, with the answer that was growing at its end."""
        return self._replace(answer_seq=0, characters=0, leg=0, position=0)


def parse_room_offset(text: str) -> RoomOffset | None:
    """The position behind the text; None when it is none (the client then gets everything)."""
    pieces = text.split(".")
    if len(pieces) != _PIECES or not all(piece.isascii() and piece.isdigit() and len(piece) < 16 for piece in pieces):
        return None
    cuts, changes, last_seq, answer_seq, characters, leg, position = map(int, pieces)
    return RoomOffset(last_seq, answer_seq, characters, cuts, changes, leg, position)
