"""`scripted:`: a model that says what its script says, for tests, benchmarks and first runs.

The text after ``scripted:`` is a script and options, joined by ``&``:

======================  ================================================================================
``echo``                ``You said: `` and the newest user message
``count=N``             ``word1 word2 … wordN``
``paced``               a markdown answer to what was asked, at human speed (see `demo_answer`)
----------------------  --------------------------------------------------------------------------------
``delay_ms=F``          time between pieces (0; ``paced`` has its own)
``first_delay_ms=F``    time before the first piece
``piece_bytes=N``       each piece filled up to N bytes with dots (``count`` only)
``speed=F``             ``paced`` F times as fast
``error_at=N``          fail after N pieces
``error=KIND``          how: ``error`` (the default), ``overloaded`` or ``timeout``
``hang_at=N``           say nothing more after N pieces, for ever
``attempts=N``          ``error_at`` and ``hang_at`` only in the first N attempts of a turn (all)
======================  ================================================================================

The same turn gives the same text every time, and pieces are numbered from the start of the script:
an answer continued after 30 pieces goes on with number 30, and `error_at=30` fails at once.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from ..errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from ..wire.ui_chunks import Chunk, TextDelta, TextEnd, TextStart
from .demo_answer import demo_answer

if TYPE_CHECKING:
    from .base import TurnContext

Piece = str | Chunk

YIELD_EVERY = 32
"""Pieces without a delay after which other tasks get the loop."""

PACED_DELAY_MS = 40.0
"""Mean time between the pieces of `paced`: 25 a second, what hosted models do."""

_ERRORS = {"error": ModelError, "overloaded": ModelOverloaded, "timeout": ModelTimeout}
_WORDS = re.compile(r"\s*\S+|\s+\Z")
_TOKENS = re.compile(r"\s*[^\s]{1,7}|\s+\Z")


@dataclass(frozen=True, slots=True)
class ScriptOptions:
    """How a script is spoken; the module's docstring explains each field."""

    delay_ms: float = 0.0
    first_delay_ms: float = 0.0
    piece_bytes: int = 0
    speed: float = 1.0
    error_at: int | None = None
    error: str = "error"
    hang_at: int | None = None
    attempts: int | None = None

    def __post_init__(self) -> None:
        if self.error not in _ERRORS:
            raise ConfigError(f"error={self.error}: a script can fail with {', '.join(_ERRORS)}")
        if self.speed <= 0:
            raise ConfigError(f"speed={self.speed:g}: a script's speed is above 0")


class ScriptedModel:
    """Says its script. ``chunks`` replays recorded pieces (text or chunks) instead of a named script."""

    def __init__(
        self,
        script: str = "echo",
        *,
        count: int = 0,
        chunks: Sequence[Piece] | None = None,
        options: ScriptOptions | None = None,
    ) -> None:
        if script not in ("echo", "count", "paced"):
            raise ConfigError(f"no script is named {script!r}; there are echo, count=N and paced")
        self._script, self._count = script, count
        self._chunks = None if chunks is None else tuple(chunks)
        self._options = options or ScriptOptions()
        self.name = "scripted:chunks" if chunks is not None else f"scripted:{script}"

    @classmethod
    def from_text(cls, text: str) -> ScriptedModel:
        """The model of ``scripted:TEXT``.

        Raises:
            ConfigError: an unknown script or option, or a value that is no number.
        """
        script, count = "echo", 0
        values: dict[str, object] = {}
        for word in filter(None, re.split("[&?]", text)):
            key, equals, value = word.partition("=")
            if not equals:
                script = key
            elif key == "count":
                script, count = "count", int(_number(key, value, whole=True))
            elif key in _OPTION_TYPES:
                kind = _OPTION_TYPES[key]
                values[key] = value if kind is str else kind(_number(key, value, whole=kind is int))
            else:
                raise ConfigError(f"{key!r} is no option of a script; there are {', '.join(_OPTION_TYPES)}")
        model = cls(script, count=count, options=replace(ScriptOptions(), **values))  # type: ignore[arg-type]
        model.name = f"scripted:{text or script}"
        return model

    async def respond(self, turn: TurnContext) -> AsyncIterator[Piece]:
        """Say the rest of the script after ``turn.partial``.

        A ``partial`` that is no beginning of the script is kept, and the script follows from its start.
        """
        options = self._options
        troubled = options.attempts is None or turn.attempt <= options.attempts
        pieces = self._pieces(turn)
        start, rest = _resume(pieces, turn.partial)
        pause = _Pauses(self._delays_ms(turn.text))
        await pause.sleep(options.first_delay_ms)
        for number in range(start, len(pieces) + 1):
            if troubled and number == options.error_at:
                raise _ERRORS[options.error](f"scripted failure after {number} pieces")
            if troubled and number == options.hang_at:
                await asyncio.Event().wait()
            if number < len(pieces):
                if number > start:
                    await pause.before(number)
                for piece in rest[number - start]:
                    yield piece

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _pieces(self, turn: TurnContext) -> Sequence[Piece]:
        if self._chunks is not None:
            return self._chunks
        if self._script == "count":
            return [_numbered_word(number, self._options.piece_bytes) for number in range(1, self._count + 1)]
        if self._script == "paced":
            return _TOKENS.findall(demo_answer(turn.text))
        return _WORDS.findall(f"You said: {turn.text}" if turn.text.strip() else "You said nothing.")

    def _delays_ms(self, text: str) -> Sequence[float]:
        """The delays before pieces, used in a circle."""
        if self._script != "paced" or self._chunks is not None or self._options.delay_ms:
            return [self._options.delay_ms]
        jitter = blake2b(text.encode(errors="replace")).digest()
        return [PACED_DELAY_MS * (0.7 + 0.6 * byte / 255) / self._options.speed for byte in jitter]


class _Pauses:
    """Sleeps to a schedule, so that late wake-ups do not add up over a long answer."""

    def __init__(self, delays_ms: Sequence[float]) -> None:
        self._delays_ms = delays_ms
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()

    async def sleep(self, delay_ms: float) -> None:
        if delay_ms:
            self._due += delay_ms / 1000
            await asyncio.sleep(self._due - self._loop.time())

    async def before(self, number: int) -> None:
        delay_ms = self._delays_ms[number % len(self._delays_ms)]
        if delay_ms:
            # A reader that held the iterator up does not get the missed pieces in one burst.
            self._due = max(self._due, self._loop.time() - delay_ms / 1000)
            await self.sleep(delay_ms)
        elif number % YIELD_EVERY == 0:
            await asyncio.sleep(0)


def _numbered_word(number: int, piece_bytes: int) -> str:
    word = f"word{number}" if number == 1 else f" word{number}"
    return word.ljust(piece_bytes, ".")


def _resume(pieces: Sequence[Piece], partial: str) -> tuple[int, list[list[Piece]]]:
    """The number of the first piece that is not wholly in ``partial``, and what is left to say from there.

    What is left of a recorded text part whose start lies in the said part becomes plain text: its
    ``text-start`` will not be sent again. A recorded chunk that is no text counts as said when text after
    it was said.
    """
    said = partial if _text_of(pieces).startswith(partial) else ""
    start, left = 0, len(said)
    while left and start < len(pieces):
        length = len(_piece_text(pieces[start]))
        if length > left:
            break
        left -= length
        start += 1
    opened = {piece.id for piece in pieces[:start] if isinstance(piece, TextStart)}
    rest: list[list[Piece]] = []
    for piece in pieces[start:]:
        if isinstance(piece, str):
            rest.append([piece[left:]])
        elif isinstance(piece, TextDelta) and (piece.id in opened or left):
            rest.append([piece.delta[left:]])
        elif isinstance(piece, TextEnd) and piece.id in opened:
            rest.append([])
        else:
            rest.append([piece])
        left = max(0, left - len(_piece_text(piece)))
    if partial and not said and rest:
        rest[0].insert(0, "\n\n")
    return start, rest


def _piece_text(piece: Piece) -> str:
    if isinstance(piece, str):
        return piece
    return piece.delta if isinstance(piece, TextDelta) else ""


def _text_of(pieces: Sequence[Piece]) -> str:
    return "".join(map(_piece_text, pieces))


def _number(key: str, value: str, *, whole: bool) -> float:
    try:
        number = int(value) if whole else float(value)
    except ValueError:
        raise ConfigError(f"{key}={value}: a script's {key} is a {'whole ' if whole else ''}number") from None
    if not 0 <= number < 1e9:
        raise ConfigError(f"{key}={value}: a script's {key} is from 0 to a billion")
    return number


_OPTION_TYPES: dict[str, type[float] | type[int] | type[str]] = {
    field.name: str if field.name == "error" else float if field.type == "float" else int
    for field in fields(ScriptOptions)
}
