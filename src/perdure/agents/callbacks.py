"""Callbacks of durable work: methods of an agent, kept by name, called with a JSON payload."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, get_type_hints

import msgspec

from .current import acting
from .values import encode_value

if TYPE_CHECKING:
    from .agent import Agent

PAYLOAD_BYTES_MAX = 1024 * 1024
"""Largest payload of a schedule, a queue's item or a fiber, as JSON."""


def method_name(agent: Agent, callback: str | Callable[..., Any]) -> str:
    """The name of the agent's method that ``callback`` is or names.

    Raises:
        TypeError: it is neither. A function or lambda would be gone after a restart.
    """
    if isinstance(callback, str):
        name = callback
    elif getattr(callback, "__self__", None) is agent:
        name = callback.__name__
    else:
        raise TypeError(
            "a callback is a method of the agent, or its name: anything else would be gone after a restart"
        )
    if not inspect.isroutine(getattr(agent, name, None)) or name.startswith("__"):
        raise TypeError(f"{type(agent).__name__} has no method {name!r}")
    if inspect.isasyncgenfunction(getattr(agent, name)):
        raise TypeError(f"{type(agent).__name__}.{name} is an async generator: nobody would take its values")
    return name


def encode_payload(agent: Agent, callback: str | None, payload: Any) -> str:
    """The payload as JSON text.

    Raises:
        TypeError: it is not JSON, or the method (where one is named) takes none.
        LimitExceeded: ``payload_bytes_max``.
    """
    text = encode_value(payload, "a payload", "payload_bytes_max", PAYLOAD_BYTES_MAX)
    if callback is not None and payload is not None and _parameter(getattr(type(agent), callback)) is None:
        raise TypeError(f"{type(agent).__name__}.{callback} takes no payload")
    return text


async def call_method(agent: Agent, callback: str, payload: str, work: Any) -> Any:
    """Call the method with the payload, converted to its annotation; without, where it takes none."""
    method = getattr(agent, callback, None)
    if method is None:
        raise LookupError(f"{type(agent).__name__} has no method {callback!r} any more")
    parameter = _parameter(getattr(type(agent), callback))
    arguments = () if parameter is None else (msgspec.json.decode(payload, type=parameter),)
    with acting(agent, work=work):
        result = method(*arguments)
        return await result if inspect.isawaitable(result) else result


@lru_cache(maxsize=1_024)
def _parameter(method: Callable[..., Any]) -> Any:
    """What the method's first parameter is annotated with (`Any`: nothing); None when it has no parameter."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = [item.name for item in inspect.signature(method).parameters.values() if item.kind in positional]
    if len(parameters) < 2:
        return None
    return get_type_hints(method).get(parameters[1], Any)
