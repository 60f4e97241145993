"""The addresses under which a room's turns are read as streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from secrets import token_urlsafe
from urllib.parse import quote
from weakref import WeakValueDictionary

from starlette.requests import Request

from .access import READ_ONLY, TOKEN_PARAMETER, StreamAccess, UrlSigner
from .service import STREAM_ROOT

TURN_URL_VALID_S = 3_600
"""How long the URL of a turn's stream can be read without signing in."""

POST_PARAMETER = "post"
"""Names the request that an address was given to, where that one waits to be told that it is read."""


class TurnUrls:
    """Makes the URLs, and knows who waits for one to be used."""

    def __init__(
        self,
        access: StreamAccess,
        signer: Callable[[], UrlSigner],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._access = access
        self._signer = signer
        self._clock_s = clock_s
        # Only as long as someone waits: a request whose client is gone at once never gets to `forget_reader`.
        self._awaited: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def turn_url(self, request: Request, room: str, turn: str) -> str:
        """The address of a turn's stream, from the server's root on; with a token where one is needed."""
        root = request.scope.get("root_path", "")
        address = f"{root}{STREAM_ROOT}rooms/{quote(room, safe='')}/turns/{quote(turn, safe='')}"
        if self._access.open:
            return address
        expires_s = int(self._clock_s()) + TURN_URL_VALID_S
        token = self._signer().sign(f"rooms/{room}/turns/{turn}", READ_ONLY, expires_s)
        return f"{address}?{TOKEN_PARAMETER}={token}"

    def await_reader(self, url: str) -> tuple[str, str, asyncio.Event]:
        """The URL with a mark, the mark, and an event that is set when someone reads there.

        Give the mark back with `forget_reader`.
        """
        mark = token_urlsafe(9)
        event = asyncio.Event()
        self._awaited[mark] = event
        return f"{url}{'&' if '?' in url else '?'}{POST_PARAMETER}={mark}", mark, event

    def forget_reader(self, mark: str) -> None:
        """Nobody waits any more."""
        self._awaited.pop(mark, None)

    def reader_came(self, mark: str) -> None:
        """A stream is read at a marked URL."""
        event = self._awaited.pop(mark, None)
        if event is not None:
            event.set()
