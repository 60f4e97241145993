"""A world for the cores whose time and chance the test owns."""

from __future__ import annotations

from itertools import count

from perdure.streams_client.core import Surroundings

NOON_S = 1_784_116_800.0
"""Wed, 15 Jul 2026 12:00:00 GMT"""


class World:
    """Time stands still until the test moves it; chance is always the same."""

    def __init__(self, *, retry_for_s: float | None = 120, random: float = 0.5) -> None:
        self.now_ms = 1_000_000.0
        ids = count(1)
        self.around = Surroundings(
            lambda: self.now_ms,
            lambda: NOON_S,
            lambda: random,
            lambda: f"id{next(ids)}",
            retry_for_s,
        )
