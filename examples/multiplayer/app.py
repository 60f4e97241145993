"""Several people and two models in one room: a message is answered by those that it names with an @.

    cd examples/multiplayer && uvicorn app:site

Open http://127.0.0.1:8000/?name=Ann in one window, ?name=Ben in another, and write ``@claude @gpt hello``. Without
keys two stand-ins answer; ``CLAUDE=anthropic:claude-haiku-4-5`` and ``GPT=openai:gpt-5.6-sol`` take their places.
"""

import os
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Mount, Route

from perdure import App, ChatRoom, TurnContext
from perdure.models.scripted import Pause, Piece, ScriptedModel


def stand_in(turn: TurnContext) -> list[Piece]:
    heard = turn.messages[-1]
    words = f"{turn.model} here. I heard {heard.user or 'somebody'} say: {heard.text}".split(" ")
    return [piece for word in words for piece in (Pause(20), f"{word} ")]


MODELS = {
    "claude": os.environ.get("CLAUDE") or ScriptedModel(steps=[stand_in]),
    "gpt": os.environ.get("GPT") or ScriptedModel(steps=[stand_in]),
}


class Table(ChatRoom):
    models = MODELS
    instructions = "You sit at a table with friends. Be brief."


async def page(_request: Request) -> FileResponse:
    return FileResponse(Path(__file__).with_name("page.html"))


rooms = App([Table], pages=False)
site = Starlette(routes=[Route("/", page), Mount("/", rooms)], lifespan=rooms.lifespan)
