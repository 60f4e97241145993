"""Stubs: how code outside an object calls it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import MethodNotFound
from ..values import ObjectId
from .object import DurableObject

if TYPE_CHECKING:
    from .runtime import Runtime


def callable_of(object_class: type[DurableObject], method: str) -> Callable[..., Any]:
    """The class's method of that name that is marked ``@callable``.

    Raises:
        MethodNotFound: there is none, or it is not marked.
    """
    function = getattr(object_class, method, None) if not method.startswith("_") else None
    if function is None or not getattr(function, "__perdure_callable__", False):
        raise MethodNotFound(f"{object_class.__name__} has no callable method {method!r}")
    found: Callable[..., Any] = function
    return found


class ObjectStub:
    """A handle on one object. Making it does nothing; the first call activates the object.

    ``await stub.method(...)`` for methods, ``async for value in stub.method(...)`` for async
    generators. Calls on one stub arrive in order.
    """

    __slots__ = ("_object_class", "_runtime", "object_id")

    def __init__(self, runtime: Runtime, object_class: type[DurableObject], object_id: ObjectId) -> None:
        self._runtime = runtime
        self._object_class = object_class
        self.object_id = object_id

    @property
    def name(self) -> str:
        """The object's name."""
        return self.object_id.name

    def __getattr__(self, method: str) -> Callable[..., Any]:
        if method.startswith("__"):
            raise AttributeError(method)
        try:
            function = callable_of(self._object_class, method)
        except MethodNotFound as error:
            raise AttributeError(str(error)) from error
        runtime, object_id = self._runtime, self.object_id

        def call(*arguments: Any, **named: Any) -> Any:
            return runtime.call(object_id, function, arguments, named)

        return call

    def __repr__(self) -> str:
        return f"<stub of {self.object_id.key}>"
