"""What the measured rooms say: both the floor and perdure speak from here, and the clients check it.

A chunk is 24 bytes of ASCII, so that joined or cut chunks can be told apart again:

    0        8 9            23 24
    +--------+-+--------------+-+
    | number | | created, us  |;|      number: 8 digits, counts from 0 within one answer
    +--------+-+--------------+-+      created: 14 digits of the machine's monotonic clock

A user's message is the command: ``pace 50 for 10`` (chunks a second, seconds), ``flat 2000``
(chunks, as fast as they go), ``first 20`` (think for so many ms, then say one chunk whose number is
the time really thought, in us). Anything else is not answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

CHUNK_BYTES = 24
FIRST_PAUSE_MS = 5


def chunk(number: int) -> str:
    """A chunk that is created now."""
    return f"{number:08d} {int(monotonic() * 1e6):014d};"


def parse_chunk(text: str) -> tuple[int, float]:
    """A chunk's number and its time of creation in seconds; ValueError when it is no chunk."""
    if len(text) != CHUNK_BYTES or text[8] != " " or text[23] != ";":
        raise ValueError(f"not a chunk: {text!r}")
    return int(text[:8]), int(text[9:23]) / 1e6


def is_command(text: str) -> bool:
    """Whether a room answers this message."""
    return text.startswith(("pace ", "flat ", "first "))


_beats: dict[int, list[asyncio.Future[None]]] = {}


def beat(due: float) -> asyncio.Future[None]:
    """Comes at the next whole millisecond after ``due``, of the monotonic clock.

    One timer for all who wait for the same millisecond, which is the resolution of the loop's timers, too: a
    timer for each would cost as much as a third of what is measured.
    """
    loop = asyncio.get_running_loop()
    at_ms = int(due * 1000) + 1
    waiting = _beats.get(at_ms)
    if waiting is None:
        waiting = _beats[at_ms] = []
        loop.call_later(at_ms / 1000 - monotonic(), _strike, at_ms)
    future = loop.create_future()
    waiting.append(future)
    return future


def _strike(at_ms: int) -> None:
    for future in _beats.pop(at_ms):
        if not future.done():
            future.set_result(None)


async def speak(command: str) -> AsyncIterator[str]:
    """The answer to a command, chunk by chunk."""
    match command.split():
        case ["pace", rate, "for", seconds]:
            started = monotonic()
            for number in range(int(rate) * int(seconds)):
                # Against the start, not the last chunk: a late wake-up does not slow the pace.
                due = started + number / int(rate)
                if due > monotonic():
                    await beat(due)
                yield chunk(number)
        case ["flat", count]:
            for number in range(int(count)):
                yield chunk(number)
                await asyncio.sleep(0)  # a model reads a socket: it gives way between chunks
        case ["first", think_ms]:
            started = monotonic()
            await asyncio.sleep(int(think_ms) / 1000)
            yield chunk(int((monotonic() - started) * 1e6))
            await asyncio.sleep(FIRST_PAUSE_MS / 1000)  # a model goes on; what the end costs is not the first token's
        case _:
            raise ValueError(f"not a command: {command!r}")
