"""Who may do what with a stream: the application's hook, and signed URLs."""

from __future__ import annotations

import base64
import hmac
import inspect
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Literal

from starlette.requests import HTTPConnection

from ...errors import Forbidden
from ..auth import Door

Action = Literal["read", "append", "create", "delete"]

ACTIONS: tuple[Action, ...] = ("read", "append", "create", "delete")

READ_ONLY: tuple[Action, ...] = ("read",)

ACTION_OF: dict[str, Action] = {
    "GET": "read",
    "HEAD": "read",
    "POST": "append",
    "PUT": "create",
    "DELETE": "delete",
}

Authorize = Callable[[HTTPConnection, str, Action], bool | Awaitable[bool]]
"""An application's hook ``authorize(request, stream, action)``: whether the request may do that. May be ``async``."""

TOKEN_PARAMETER = "token"
SIGNATURE_BYTES = 16


class UrlSigner:
    """Makes and checks the tokens of signed URLs.

    A token is ``<expiry, Unix s>.<actions>.<signature>``; the signature is the first 16 bytes of
    HMAC-SHA256 over ``<path>\\n<actions>\\n<expiry>``, in unpadded base64url.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def sign(self, path: str, actions: Collection[Action], expires_s: int) -> str:
        """A token that allows these actions on one stream until then (Unix seconds)."""
        for action in actions:
            if action not in ACTIONS:
                raise ValueError(f"{action!r} is no action; there are {', '.join(ACTIONS)}")
        words = "-".join(action for action in ACTIONS if action in actions)
        return f"{expires_s}.{words}.{self._signature(path, words, expires_s)}"

    def allows(self, token: str, path: str, action: Action, now_s: float) -> bool:
        """Whether the token is one of ours for this stream and action, and has not expired."""
        expiry, _, rest = token.partition(".")
        words, _, signature = rest.partition(".")
        if not (expiry.isascii() and expiry.isdigit() and len(expiry) < 13):
            return False
        expected = self._signature(path, words, int(expiry))
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "replace")):
            return False
        return action in words.split("-") and now_s < int(expiry)

    def _signature(self, path: str, words: str, expires_s: int) -> str:
        digest = hmac.digest(self._key, f"{path}\n{words}\n{expires_s}".encode("utf-8", "surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(digest[:SIGNATURE_BYTES]).rstrip(b"=").decode()


class StreamAccess:
    """Decides for the stream surface.

    A valid token in the URL is enough. Else the application's ``authorize`` hook decides; without
    one, whoever the `Door` admits may use streams (a `User` with ``rooms``: those paths).
    """

    def __init__(
        self,
        door: Door,
        authorize: Authorize | None,
        signer: Callable[[], UrlSigner],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._door = door
        self._authorize = authorize
        self._signer = signer
        self._clock_s = clock_s

    @property
    def open(self) -> bool:
        """Whether anyone may do anything: no request need be looked at."""
        return self._authorize is None and self._door.open

    def check_origin(self, connection: HTTPConnection) -> None:
        """Raises Forbidden for a page of a site that may not write here."""
        self._door.check_origin(connection)

    async def check(self, connection: HTTPConnection, path: str, action: Action, *, room: str | None = None) -> None:
        """Let the request through. ``room``: the stream belongs to it; who may enter the room may read.

        Raises:
            Unauthenticated, Forbidden.
        """
        token = connection.query_params.get(TOKEN_PARAMETER)
        if token is not None:
            if self._signer().allows(token, path, action, self._clock_s()):
                return
            raise Forbidden("the URL's token is not for this, or it has expired; ask for a new one")
        if self._authorize is not None and room is None:
            self._door.check_origin(connection)
            answer = self._authorize(connection, path, action)
            allowed = await answer if inspect.isawaitable(answer) else answer
            if not allowed:
                raise Forbidden(f"you may not {action} this stream")
            return
        await self._door.admit(connection, path if room is None else room)
