"""Which agent the running code belongs to, and for whom it runs.

A context variable: set around an agent's handlers, its callable methods, its background tasks and its
timed work, and inherited by every task that these start.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..objects.connections import Connection

if TYPE_CHECKING:
    from .agent import Agent


@dataclass(frozen=True, slots=True)
class CurrentAgent:
    """What `current_agent` says.

    ``connection`` is the client whose frame or call is handled, ``request`` the HTTP request in `on_request`;
    ``work`` the `Schedule`, `QueueItem` or `Fiber` that runs. Each is None where there is none.
    """

    agent: Agent
    connection: Connection | None = None
    request: Any = None
    work: Any = None


_current: ContextVar[CurrentAgent | None] = ContextVar("perdure_current_agent", default=None)


def current_agent() -> CurrentAgent | None:
    """The agent whose code runs here, with its connection, request or work; None outside of agents."""
    return _current.get()


@contextmanager
def acting(
    agent: Agent, *, connection: Connection | None = None, request: Any = None, work: Any = None
) -> Iterator[None]:
    """``with``: what runs inside, and every task started there, is this agent's, for this connection, and so on."""
    token = _current.set(CurrentAgent(agent, connection, request, work))
    thrown_away = False
    try:
        yield
    except GeneratorExit:
        # A coroutine that its loop left behind is closed in whatever context collects it; its own is gone.
        thrown_away = True
        raise
    finally:
        if not thrown_away:
            _current.reset(token)


HOOKS: dict[str, str] = {
    "on_start": "",
    "on_connect": "connection",
    "on_message": "connection",
    "on_close": "connection",
    "on_error": "connection",
    "on_alarm": "",
    "on_request": "request",
}
"""The application's handlers, and what the first argument of each is."""


def enter_methods(agent_class: type) -> None:
    """Let the handlers and callable methods that the class defines know their agent."""
    for name, member in list(vars(agent_class).items()):
        if inspect.isfunction(member) and (name in HOOKS or hasattr(member, "__perdure_callable__")):
            setattr(agent_class, name, _entered(member, HOOKS.get(name, "")))


def _entered(method: Callable[..., Any], first: str) -> Callable[..., Any]:
    """The method, run as its agent's. A callable method that the agent itself calls is for whom its caller is."""

    def enter(agent: Agent, arguments: tuple[Any, ...]) -> AbstractContextManager[None]:
        around = _current.get()
        if first and arguments:
            return acting(agent, **{first: arguments[0]})
        return acting(agent) if around is None or around.agent is not agent else nullcontext()

    if inspect.isasyncgenfunction(method):

        @functools.wraps(method)
        async def stream(self: Agent, *arguments: Any, **options: Any) -> Any:
            around = _current.get()
            if around is None or around.agent is not self:
                # Not reset: a generator may be closed from another context, and its task ends with it.
                _current.set(CurrentAgent(self))
            async with aclosing(method(self, *arguments, **options)) as values:
                async for value in values:
                    yield value

        return stream
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def run(self: Agent, *arguments: Any, **options: Any) -> Any:
            with enter(self, arguments):
                return await method(self, *arguments, **options)

        return run

    @functools.wraps(method)
    def call(self: Agent, *arguments: Any, **options: Any) -> Any:
        with enter(self, arguments):
            return method(self, *arguments, **options)

    return call
