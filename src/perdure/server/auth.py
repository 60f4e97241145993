"""Who is asking, and from where: the one door that every surface passes through."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from fnmatch import fnmatchcase
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from ..errors import Forbidden, Unauthenticated


@dataclass(frozen=True, slots=True)
class User:
    """Someone who was let in.

    ``name`` is shown with their messages. ``rooms`` limits which rooms (and other objects) they
    may enter: names or patterns like ``"team-*"``; None is all.
    """

    name: str | None = None
    rooms: Collection[str] | None = None

    def may_enter(self, room: str) -> bool:
        """Whether the user may enter the room of that name."""
        return self.rooms is None or any(fnmatchcase(room, pattern) for pattern in self.rooms)


Authenticate = Callable[[HTTPConnection], User | Awaitable[User | None] | None]
"""An application's hook: the request's user, or None (401). It may be ``async``."""

ANYONE = User()


class Door:
    """Checks users and origins for all surfaces."""

    def __init__(self, authenticate: Authenticate | None, origins: Collection[str]) -> None:
        self._authenticate = authenticate
        self._origins = frozenset(origin.rstrip("/") for origin in origins)

    @property
    def open(self) -> bool:
        """Whether anyone may come in."""
        return self._authenticate is None

    async def admit(self, connection: HTTPConnection, room: str | None = None) -> User:
        """The user behind a request, allowed to enter ``room``.

        Raises:
            Unauthenticated, Forbidden.
        """
        self.check_origin(connection)
        user: User | None = ANYONE
        if self._authenticate is not None:
            answer = self._authenticate(connection)
            user = await answer if inspect.isawaitable(answer) else answer
        if user is None:
            raise Unauthenticated("sign in to use this")
        if room is not None:
            self.enter(user, room)
        return user

    def enter(self, user: User, room: str) -> None:
        """Raises Forbidden when an admitted user may not enter the room."""
        if not user.may_enter(room):
            raise Forbidden("you may not enter this room")

    def check_origin(self, connection: HTTPConnection) -> None:
        """Browsers say which site a request comes from; only our own and the listed ones may talk to rooms.

        A page elsewhere could otherwise open sockets (and post) with its visitor's cookies. Programs that
        are no browsers send no Origin and are not affected.
        """
        if connection.scope["type"] == "http" and connection.scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return
        origin = connection.headers.get("origin")
        if origin is None or origin.rstrip("/") in self._origins or "*" in self._origins:
            return
        if _host_of(origin) != connection.headers.get("host"):
            raise Forbidden(f"pages of {origin[:100]} may not connect; list it in App(origins=[...])")


def _host_of(origin: str) -> str:
    """Host and port of an origin; empty where it is none."""
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def is_loopback(host: str) -> bool:
    """Whether a server bound to ``host`` can be reached from this machine only."""
    if host in ("localhost", "localhost.localdomain"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
