"""`perdure demo`: the chat page with the best model that is at hand."""

from __future__ import annotations

from importlib.util import find_spec
from typing import NamedTuple

import typer

from ..app import App
from ..chat.room import ChatRoom
from ..models.local import missing_for_local
from ..models.registry import HOW_TO_INSTALL_AI
from ..server.config import provider_model
from .logs import LogFormat
from .serving import AccessLog, Data, Host, LogStyle, Port, Reload, ServeOptions, serve

ROOM = "general"


class Room(ChatRoom):
    """The demo's rooms. Their model is chosen at start."""


class ModelChoice(NamedTuple):
    """A model, and why it was taken."""

    model: str
    reason: str


def choose_model() -> ModelChoice:
    """A provider's model if there is a key, else the local one if it is installed, else a script."""
    notes = []
    found = provider_model()
    if found is not None:
        variable, model = found
        provider = model.partition(":")[0]
        if find_spec("pydantic_ai") and find_spec(provider):
            return ModelChoice(model, f"{variable} is set")
        notes.append(f"{variable} is set, but {HOW_TO_INSTALL_AI}")
    else:
        notes.append("no provider's key is set")
    missing = missing_for_local()
    if missing is None:
        return ModelChoice("local:smollm2", f"{notes[0]}; it runs on this machine, without a network")
    notes.append(missing)
    return ModelChoice("scripted:paced", f"{'; '.join(notes)}; until then answers are from a script")


def demo(
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Data = None,
    reload: Reload = False,
    access_log: AccessLog = False,
    log_format: LogStyle = LogFormat.CONSOLE,
) -> None:
    """Open a chat page with the best model at hand: a provider's if its key is in the environment
    (ANTHROPIC_API_KEY, OPENAI_API_KEY), else a small local one if it is installed, else a script."""
    options = ServeOptions(host, port, data, reload, access_log, log_format)
    serve(make_app, options, _say_url)


def make_app() -> App:
    """The demo's app."""
    choice = choose_model()
    Room.model = choice.model
    typer.echo(f"Model: {choice.model} ({choice.reason})")
    return App([Room])


def _say_url(url: str) -> None:
    typer.echo(f"\n  Chat at  {url}/chat/{ROOM}\n\n  Ctrl-C ends it; everything is kept. Rooms: {url}/\n")
