"""Running a model's answer to its end, whatever the end is."""

from __future__ import annotations

from contextlib import aclosing
from typing import Any

from perdure.models.base import Model, TurnContext
from perdure.wire.ui_chunks import Chunk


async def answer(model: Model, turn: TurnContext) -> tuple[list[str | Chunk], Exception | None]:
    """The pieces that were said, and the error that ended them, if one did."""
    said: list[str | Chunk] = []
    response: Any = model.respond(turn)
    try:
        async with aclosing(response):
            async for piece in response:
                said.append(piece)  # noqa: PERF401  (what was said before an error counts)
    except Exception as error:
        return said, error
    return said, None


async def said(model: Model, turn: TurnContext) -> str:
    """The text of an answer that must not fail."""
    pieces, error = await answer(model, turn)
    if error is not None:
        raise error
    return "".join(piece for piece in pieces if isinstance(piece, str))
