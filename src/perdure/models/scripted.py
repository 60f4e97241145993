"""`scripted:`: a model that says what its script says, for tests, benchmarks and first runs.

The text after ``scripted:`` is a script and options, joined by ``&``:

======================  ================================================================================
``echo``                ``You said: `` and the newest user message
``count=N``             ``word1 word2 … wordN``
``paced``               a markdown answer to what was asked, at human speed (see `demo_answer`)
``tool=NAME``           a thought, a call of the tool NAME, a sentence about its result (see `demo_tools`)
``tour``                all kinds of parts, at human speed: thought, sources, tool, data, file, text, usage
----------------------  --------------------------------------------------------------------------------
``delay_ms=F``          time between pieces (0; ``paced`` and ``tour`` have their own)
``first_delay_ms=F``    time before the first piece
``piece_bytes=N``       each piece filled up to N bytes with dots (``count`` only)
``speed=F``             ``paced`` and ``tour`` F times as fast
``approval=1``          the tool of ``tool=NAME`` asks first, if the script plays it
``error_at=N``          fail after N pieces
``error=KIND``          how: ``error`` (the default), ``overloaded`` or ``timeout``
``hang_at=N``           say nothing more after N pieces, for ever
``attempts=N``          ``error_at`` and ``hang_at`` only in the first N attempts of a turn (all)
======================  ================================================================================

The same turn gives the same text every time, and pieces are numbered from the start of the script:
an answer continued after 30 pieces goes on with number 30, and `error_at=30` fails at once. A script with
several steps (`script_steps`) numbers the pieces of each step from 0.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import TYPE_CHECKING

from ..errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from .demo_answer import demo_answer
from .demo_tools import tool_steps, tour_steps
from .script_steps import Failure, Hang, Pause, Piece, ScriptPiece, Step, Until, pieces_of_step, resume, tool_part

if TYPE_CHECKING:
    from .base import TurnContext

__all__ = ["Failure", "Hang", "Pause", "Piece", "ScriptOptions", "ScriptedModel", "Step", "Until", "tool_part"]

YIELD_EVERY = 32
"""Pieces without a delay after which other tasks get the loop."""

PACED_DELAY_MS = 40.0
"""Mean time between the pieces of `paced`: 25 a second, what hosted models do."""

_ERRORS = {"error": ModelError, "overloaded": ModelOverloaded, "timeout": ModelTimeout}
_EVENTS = (Pause, Until, Hang, Failure)
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
    """Says its script.

    ``steps`` are said instead of a named script, one a call of the model (`script_steps`); ``chunks`` are the
    only step: text or chunks, as they were recorded.
    """

    def __init__(
        self,
        script: str = "echo",
        *,
        count: int = 0,
        chunks: Sequence[ScriptPiece] | None = None,
        steps: Sequence[Step] | None = None,
        options: ScriptOptions | None = None,
    ) -> None:
        if script not in ("echo", "count", "paced"):
            raise ConfigError(f"no script is named {script!r}; there are echo, count=N, paced, tool=NAME and tour")
        self._script, self._count = script, count
        self._steps = (chunks,) if chunks is not None else None if steps is None else tuple(steps)
        self._options = options or ScriptOptions()
        self._paced = script == "paced" and self._steps is None
        self.name = "scripted:chunks" if chunks is not None else "scripted:steps" if steps else f"scripted:{script}"

    @classmethod
    def from_text(cls, text: str) -> ScriptedModel:
        """The model of ``scripted:TEXT``.

        Raises:
            ConfigError: an unknown script or option, or a value that is no number.
        """
        script, count, tool, approval = "echo", 0, "", False
        values: dict[str, object] = {}
        for word in filter(None, re.split("[&?]", text)):
            key, equals, value = word.partition("=")
            if not equals:
                script = key
            elif key == "count":
                script, count = "count", int(_number(key, value, whole=True))
            elif key == "tool":
                tool = _tool_name(value)
            elif key == "approval":
                approval = _number(key, value, whole=True) > 0
            elif key in _OPTION_TYPES:
                kind = _OPTION_TYPES[key]
                values[key] = value if kind is str else kind(_number(key, value, whole=kind is int))
            else:
                raise ConfigError(f"{key!r} is no option of a script; there are {', '.join(_OPTION_TYPES)}")
        options = replace(ScriptOptions(), **values)  # type: ignore[arg-type]
        if tool:
            model = cls(steps=tool_steps(tool, approval=approval), options=options)
        elif script == "tour":
            model = cls(steps=tour_steps(), options=options)
            model._paced = True
        else:
            model = cls(script, count=count, options=options)
        model.name = f"scripted:{text or script}"
        return model

    async def respond(self, turn: TurnContext) -> AsyncIterator[Piece]:
        """Say the rest of the script, or of its step, after ``turn.partial``.

        A ``partial`` that is no beginning of the script is kept, and the script follows from its start.
        """
        options = self._options
        troubled = options.attempts is None or turn.attempt <= options.attempts
        pieces = self._pieces(turn)
        start, rest = resume(pieces, turn.partial)
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
                    if isinstance(piece, _EVENTS):
                        await _happen(piece, pause, turn.attempt)
                    else:
                        yield piece

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _pieces(self, turn: TurnContext) -> Sequence[ScriptPiece]:
        if self._steps is not None:
            return pieces_of_step(self._steps, turn)
        if self._script == "count":
            return [_numbered_word(number, self._options.piece_bytes) for number in range(1, self._count + 1)]
        if self._script == "paced":
            return _TOKENS.findall(demo_answer(turn.text))
        return _WORDS.findall(f"You said: {turn.text}" if turn.text.strip() else "You said nothing.")

    def _delays_ms(self, text: str) -> Sequence[float]:
        """The delays before pieces, used in a circle."""
        if not self._paced or self._options.delay_ms:
            return [self._options.delay_ms]
        jitter = blake2b(text.encode(errors="replace")).digest()
        return [PACED_DELAY_MS * (0.7 + 0.6 * byte / 255) / self._options.speed for byte in jitter]


async def _happen(event: Pause | Until | Hang | Failure, pause: _Pauses, attempt: int) -> None:
    if isinstance(event, Pause):
        await pause.sleep(event.delay_ms)
    elif isinstance(event, Until):
        await event.wait()
    elif event.attempts is None or attempt <= event.attempts:
        if isinstance(event, Failure):
            raise _ERRORS[event.kind](event.text)
        await asyncio.Event().wait()


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


def _tool_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]{0,63}", value):
        raise ConfigError(f"tool={value}: a tool's name has letters, digits and `_` or `-`, 64 at most")
    return value


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
