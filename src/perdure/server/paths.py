"""Names in addresses: each percent-encoded as one segment, whatever it holds, a slash too.

ASGI servers decode the path before anyone can see which slashes were part of a name. The raw path
still tells; `protect_slashes` marks those slashes so that routing leaves them alone, and
`restore_slashes` gives routes' endpoints the names as they are.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

SLASH = "\udc2f"
"""Stands for a slash inside a name. Half a surrogate pair: no decoded path can hold it."""


def protect_slashes(scope: Scope) -> Scope:
    """The scope with its path decoded anew, where that makes a difference."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" not in raw.lower():
        return scope
    # A trailing slash would make the router redirect, to an address with the mark in it.
    segments = raw.split(b"?")[0].rstrip(b"/").decode("latin-1").split("/")
    return {**scope, "path": "/".join(unquote(segment).replace("/", SLASH) for segment in segments)}


def split_path(scope: Scope) -> list[str]:
    """The decoded segments of a path, below the application's own."""
    return [segment.replace(SLASH, "/") for segment in route_path(scope).strip("/").split("/")]


def route_path(scope: Scope) -> str:
    """The path below the one that the application is mounted at."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root) else path


def restore_slashes(route: BaseRoute) -> BaseRoute:
    """The route, whose endpoint then sees no marks."""
    if isinstance(route, Route):
        route.app = _Restored(route.app)
    return route


class _Restored:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if SLASH in scope["path"]:
            scope["path"] = scope["path"].replace(SLASH, "/")
            scope["path_params"] = {name: _restored(value) for name, value in scope["path_params"].items()}
        await self._app(scope, receive, send)


def _restored(value: Any) -> Any:
    return value.replace(SLASH, "/") if isinstance(value, str) else value
