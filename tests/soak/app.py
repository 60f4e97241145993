"""The server that the kill test kills: rooms that say exactly what each message asks them to.

python -m tests.soak.app --port 8000 --data DIR
"""

from __future__ import annotations

import argparse
import json
from collections.abc import AsyncIterator
from typing import Any

import uvicorn

from perdure import App, ChatRoom, Limits, TurnContext
from perdure.models.scripted import Piece, ScriptedModel, ScriptOptions
from perdure.wire.ui_chunks import Chunk, ReasoningDelta, ReasoningEnd, ReasoningStart, TextDelta, TextEnd, TextStart


class SoakRoom(ChatRoom):
    """Says the text that is in the message, in the pieces and at the speed that are in the message."""

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        order = json.loads(turn.text)
        if "script" in order:
            model = ScriptedModel.from_text(order["script"])
        else:
            options = ScriptOptions(delay_ms=order["delay_ms"])
            model = ScriptedModel(chunks=_pieces(order), options=options)
        async for piece in model.respond(turn):
            yield piece


def _pieces(order: dict[str, Any]) -> list[Piece]:
    text, size = order["text"], order["piece_characters"]
    words: list[str] = [text[at : at + size] for at in range(0, len(text), size)]
    if not order.get("parts"):
        return list(words)
    half = len(words) // 2
    return [
        ReasoningStart(id="thought"),
        *(ReasoningDelta(id="thought", delta=f"{number} ") for number in range(20)),
        ReasoningEnd(id="thought"),
        TextStart(id="first"),
        *(TextDelta(id="first", delta=word) for word in words[:half]),
        TextEnd(id="first"),
        TextStart(id="second"),
        *(TextDelta(id="second", delta=word) for word in words[half:]),
        TextEnd(id="second"),
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        App([SoakRoom], data=arguments.data, limits=Limits(drain_ms_max=300)),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        ws="websockets-sansio",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
