"""Arguments that arrive from outside, checked against a method's annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Annotated, Any, TypeAlias, get_type_hints

import msgspec

from ..errors import BadArguments

CALLER = "the caller's name"

CallerName: TypeAlias = Annotated[str | None, CALLER]
"""An argument that says who calls: from outside, the name of an authenticated user goes before any given one."""


@lru_cache(maxsize=1_024)
def _parameters(function: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], dict[str, Any]]:
    signature = inspect.signature(function)
    parameters = dict(list(signature.parameters.items())[1:])  # without self
    return parameters, get_type_hints(function, include_extras=True)


def check_arguments(
    function: Callable[..., Any], given: list[Any] | dict[str, Any], *, caller: str | None = None
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a call, positional (a list) or named, converted to the method's annotations.

    ``caller`` is an authenticated user's name: it takes the place of what is given for a `CallerName`.

    Raises:
        BadArguments: they do not fit the method.
    """
    parameters, hints = _parameters(function)
    signature = inspect.Signature(list(parameters.values()))
    try:
        bound = signature.bind(*given) if isinstance(given, list) else signature.bind(**given)
    except TypeError as error:
        raise BadArguments(f"{function.__name__}: {error}") from error
    for name, value in bound.arguments.items():
        wanted: Any = hints.get(name, Any)
        parameter = parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            wanted = tuple.__class_getitem__((wanted, ...))
        elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
            wanted = dict.__class_getitem__((str, wanted))
        try:
            bound.arguments[name] = msgspec.convert(value, wanted)
        except msgspec.ValidationError as error:
            raise BadArguments(f"{function.__name__}: argument {name}: {error}") from error
    if caller is not None:
        for name, hint in hints.items():
            if CALLER in getattr(hint, "__metadata__", ()):
                bound.arguments[name] = caller
    return bound.args, bound.kwargs
