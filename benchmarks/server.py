"""perdure as it is measured: one room class, whose model is the script.

python -m benchmarks.server --port 8000 --data DIR [--room scripted|silent|sleepy|full]
"""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from typing import Any

from perdure import App, ChatRoom, Limits

from .script import is_command, speak
from .serve import serve


class ScriptedRoom(ChatRoom):
    """Answers commands (see script.py), and nothing else."""

    async def respond(self, turn: Any) -> AsyncIterator[str]:
        if is_command(turn.text):
            async for piece in speak(turn.text):
                yield piece


class SilentRoom(ChatRoom):
    """Has no model: a message is stored and shown to everyone, and that is all."""

    model = None


class SleepyRoom(SilentRoom):
    """Hibernates soon."""

    hibernate_after_ms = 1_000


class FullRoom(SilentRoom):
    """Its server lets the journal fill: no checkpoint shrinks it."""


ROOMS = {"scripted": ScriptedRoom, "silent": SilentRoom, "sleepy": SleepyRoom, "full": FullRoom}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--room", choices=ROOMS, default="scripted")
    options = parser.parse_args()
    # Checkpoints begin at half of the bound: with four times the bound, none comes before it is reached.
    limits = Limits(journal_bytes_max=4 * Limits().journal_bytes_max) if options.room == "full" else Limits()
    serve(App([ROOMS[options.room]], data=options.data, limits=limits), options.port)
