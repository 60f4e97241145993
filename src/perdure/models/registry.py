"""From what a room's ``model`` says to the model itself."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from ..errors import ConfigError
from .base import Model
from .scripted import ScriptedModel

HOW_TO_INSTALL_AI = "models of providers need an extra: `pip install 'perdure[ai]'`"


def resolve_model(model: Any) -> Model:
    """The model that ``model`` names or is.

    - ``"scripted:…"``: `scripted.ScriptedModel`; ``"local:…"``: `local.LocalModel`;
    - any other ``"provider:name"``, like ``"anthropic:claude-opus-5-5"``: pydantic-ai's models;
    - an object with `respond` and `aclose`: itself;
    - a pydantic-ai ``Model`` or ``Agent``.

    Each call makes a model of its own: call once and share the result between rooms, a ``local`` model is a
    process. Nothing is loaded for a ``scripted`` model, and a ``local`` one starts at its first turn. A provider's
    library is imported at once (up to a second), so that it does not hold up a room later.

    Raises:
        ConfigError: no such model, or something is not installed or set; the message says what to do.
    """
    if isinstance(model, str):
        kind, colon, name = model.partition(":")
        if kind == "scripted":
            return ScriptedModel.from_text(name)
        if kind == "local":
            from .local import LocalModel

            return LocalModel.from_text(name)
        if not colon or not kind or not name:
            raise ConfigError(
                f"{model!r} names no model; write `provider:name`, like `anthropic:claude-opus-5-5`, "
                f"`openai:gpt-5.6-sol`, `local:smollm2` or `scripted:paced`"
            )
    elif isinstance(model, Model):
        return model
    elif not _is_of_pydantic_ai(model):
        raise ConfigError(f"a {type(model).__name__} is no model: it has no `respond` and `aclose`")
    if find_spec("pydantic_ai") is None:
        raise ConfigError(f"{model!r}: {HOW_TO_INSTALL_AI}")
    from .pydantic_ai import PydanticAIModel

    return PydanticAIModel(model)


def _is_of_pydantic_ai(model: object) -> bool:
    return any(base.__module__.startswith("pydantic_ai") for base in type(model).__mro__)
