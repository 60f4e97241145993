"""`@tool`: methods of a room that its model may call.

A tool's input is described by the method's annotations, its purpose by the docstring::

    class Support(ChatRoom):
        @tool
        async def weather(self, city: Annotated[str, "like Paris"], days: int = 1) -> str:
            \"""The weather forecast of a city.\"""

How a tool is written says how it is carried out:

================  =====================================================================================
plain ``def``     At one stroke: what it writes into the room and its result are one commit, so it
                  takes effect exactly once, whatever crashes. It must not block.
``async def``     That it begins is durable before it does. Cut off by a crash, it is not run again, since
                  it may have had its effect; the model is told so. ``idempotent=True``: it is run again,
                  with the same `ToolCall.idempotency_key`.
async generator   As ``async def``; each value is shown as a preliminary result, the last one is the result.
``client=True``   Never run here: the client gives the result (the body may be ``...``).
================  =====================================================================================
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args, get_origin, get_type_hints, overload

import msgspec

from ..errors import ConfigError, ToolError
from ..models.base import ToolCall, ToolSpec

Method = TypeVar("Method", bound=Callable[..., Any])

Approval: TypeAlias = bool | Callable[[Any, ToolCall], bool | Awaitable[bool]]
"""Whether a person must agree to a call: always, never, or as ``function(room, call)`` says."""

Kind = Literal["plain", "async", "generator", "client"]

TOOL_TIMEOUT_MS = 300_000
"""Longest run of an ``async`` tool, unless its ``timeout_ms`` says otherwise."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True, slots=True)
class ToolOptions:
    """What `tool` was given."""

    name: str | None = None
    approval: Approval = False
    client: bool = False
    idempotent: bool = False
    timeout_ms: int = TOOL_TIMEOUT_MS


@overload
def tool(method: Method) -> Method: ...


@overload
def tool(
    *,
    name: str | None = None,
    approval: Approval = False,
    client: bool = False,
    idempotent: bool = False,
    timeout_ms: int = TOOL_TIMEOUT_MS,
) -> Callable[[Method], Method]: ...


def tool(
    method: Method | None = None,
    *,
    name: str | None = None,
    approval: Approval = False,
    client: bool = False,
    idempotent: bool = False,
    timeout_ms: int = TOOL_TIMEOUT_MS,
) -> Method | Callable[[Method], Method]:
    """Let the room's model call this method.

    Args:
        method: the method, where the decorator is used without brackets. A parameter annotated with `ToolCall`
            gets the call; ``Annotated[str, "..."]`` describes a parameter to the model.
        name: the tool's name; the method's where None.
        approval: True: a person must agree to each call. A function ``(room, call)``: where it says so.
        client: the client carries it out and gives the result.
        idempotent: it may be run again under the same `ToolCall.idempotency_key` after a crash.
        timeout_ms: an ``async`` tool that takes longer is cancelled, and has failed.
    """
    options = ToolOptions(name, approval, client, idempotent, timeout_ms)

    def mark(marked: Method) -> Method:
        marked.__perdure_tool__ = options  # type: ignore[attr-defined]
        return marked

    return mark if method is None else mark(method)


class Tool:
    """One tool of a class of rooms: what the model is told of it, and how its input becomes arguments."""

    def __init__(self, function: Callable[..., Any], options: ToolOptions) -> None:
        """Raises `ConfigError` where the method's annotations cannot describe an input."""
        self.function = function
        self.options = options
        self.name = options.name or function.__name__
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name!r} is no name for a tool: letters, digits, _ and -, 64 at most")
        self.kind: Kind = _kind(function, options)
        self._arguments, self._call_parameter = _arguments(function, self.name)
        self.spec = ToolSpec(self.name, inspect.getdoc(function) or "", _schema(self._arguments))

    def arguments(self, call: ToolCall) -> dict[str, Any]:
        """The call's input as arguments of the method.

        Raises:
            ToolError: the input does not fit; the text says where.
        """
        try:
            given = msgspec.convert(call.input, self._arguments, strict=False)
        except (msgspec.ValidationError, RecursionError) as error:
            raise ToolError(f"the input does not fit the tool {self.name}: {error}") from error
        arguments = {name: getattr(given, name) for name in self._arguments.__struct_fields__}
        if self._call_parameter is not None:
            arguments[self._call_parameter] = call
        return arguments

    async def needs_approval(self, room: Any, call: ToolCall) -> bool:
        """Whether a person must agree to this call."""
        approval = self.options.approval
        if isinstance(approval, bool):
            return approval
        answer = approval(room, call)
        return bool(await answer) if inspect.isawaitable(answer) else bool(answer)


def tools_of(room_class: type) -> Mapping[str, Tool]:
    """The tools of a class and its bases, by name; made once per class.

    Raises:
        ConfigError: two tools of one name, or one whose annotations cannot be used.
    """
    found: dict[str, Tool] | None = room_class.__dict__.get("_tools_by_name")
    if found is None:
        found = {}
        for attribute in dict.fromkeys(name for base in reversed(room_class.__mro__) for name in vars(base)):
            function = getattr(room_class, attribute, None)
            options = getattr(function, "__perdure_tool__", None)
            if function is None or not isinstance(options, ToolOptions):
                continue
            made = Tool(function, options)
            if made.name in found:
                raise ConfigError(f"{room_class.__name__} has two tools named {made.name}")
            found[made.name] = made
        room_class._tools_by_name = found  # type: ignore[attr-defined]
    return found


def _kind(function: Callable[..., Any], options: ToolOptions) -> Kind:
    if options.client:
        return "client"
    if inspect.isasyncgenfunction(function):
        return "generator"
    return "async" if inspect.iscoroutinefunction(function) else "plain"


def _arguments(function: Callable[..., Any], name: str) -> tuple[type[msgspec.Struct], str | None]:
    """The method's parameters as a Struct, and the one that gets the `ToolCall`."""
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise ConfigError(f"tool {name}: {error}; annotate it with names of its module") from error
    fields: list[Any] = []
    call_parameter = None
    for parameter in list(inspect.signature(function).parameters.values())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise ConfigError(f"tool {name}: the model gives inputs by name, so {parameter} cannot be a parameter")
        annotation = hints.get(parameter.name)
        if annotation is None:
            raise ConfigError(f"tool {name}: parameter {parameter.name} needs an annotation; the model reads it")
        if annotation is ToolCall:
            call_parameter = parameter.name
        elif parameter.default is parameter.empty:
            fields.append((parameter.name, _described(annotation)))
        else:
            fields.append((parameter.name, _described(annotation), _default(parameter.default)))
    try:
        struct = msgspec.defstruct(f"{name}_input", fields, kw_only=True, forbid_unknown_fields=True)
        msgspec.json.schema(struct)
    except TypeError as error:
        raise ConfigError(f"tool {name}: {error}") from error
    return struct, call_parameter


def _described(annotation: Any) -> Any:
    """The annotation, a text in ``Annotated`` as its description."""
    if get_origin(annotation) is not Annotated:
        return annotation
    kind, *extras = get_args(annotation)
    for extra in extras:
        kind = Annotated[kind, msgspec.Meta(description=extra) if isinstance(extra, str) else extra]
    return kind


def _default(value: Any) -> Any:
    """A default that calls cannot change for each other."""
    if isinstance(value, (list, dict, set)):
        return msgspec.field(default_factory=lambda: value.copy())
    return value


def _schema(struct: type[msgspec.Struct]) -> dict[str, Any]:
    """The JSON Schema of an input: the object itself, without a reference at the top."""
    schema = msgspec.json.schema(struct)
    definitions: dict[str, Any] = dict(schema.get("$defs", {}))
    top: dict[str, Any] = definitions.pop(struct.__name__)
    top.pop("title", None)
    top["additionalProperties"] = False
    if definitions:
        top["$defs"] = definitions
    return top
