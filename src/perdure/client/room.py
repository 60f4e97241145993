"""`RoomClient`: a room over a WebSocket that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import random
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit
from uuid import uuid4

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, InvalidURI

from ..errors import BadArguments, ConfigError, PerdureError
from ..wire.room import Wait
from ..wire.room_client import (
    NOT_TYPING,
    RETRY,
    STOP,
    TYPING,
    branch_frame,
    edit_frame,
    regenerate_frame,
)
from ..wire.room_commands import SentFile
from .core import RoomCore
from .events import Here, Message, Refused, RoomEvent

BACKOFF_MS = (100, 250, 500, 1_000, 2_000, 5_000)
"""Waits between attempts; the last one goes on for ever. Half of each is random, so that a crowd spreads."""

FRAME_BYTES_MAX = 256 * 1024 * 1024
"""Largest frame that is taken: an ``init`` may hold a thousand long messages."""

OPEN_TIMEOUT_S = 10
"""Seconds that a connection attempt may take."""

CLOSE_REASONS = {1001: "the server goes away", 1012: "the server is restarting"}
"""What codes mean that come without a reason."""

FINAL_CLOSE_CODES = (1002, 1003, 1008)
"""The server will not have us: trying again would end the same way."""


class RoomUnreachable(PerdureError):
    """The server cannot be reached, or does not let us in."""

    code = "room_unreachable"


@dataclass(frozen=True, slots=True)
class Disconnected:
    """The connection is gone; the next attempt is made in ``retry_in_ms``. Nothing that was said is lost."""

    reason: str
    retry_in_ms: int


@dataclass(frozen=True, slots=True)
class Connected:
    """The connection is there again; what was missed follows."""


ClientEvent: TypeAlias = RoomEvent | Disconnected | Connected


class RoomClient:
    """A client of one room.

    Iterate it for the room's events, in one place; `say`, `stop` and the others may be called from
    anywhere. It reconnects for ever, goes on from the exact character, and sends what was said
    until the room shows it, which is once, whatever the network does::

        async with RoomClient("ws://127.0.0.1:8000/ws/general", user="Ann") as room:
            await room.say("Hello")
            async for event in room:
                ...

    Args:
        url: the room's address (``ws``, ``wss``, ``http`` or ``https``).
        user: the name that our messages carry (an authenticator's name goes before it).
        limit: messages in the first greeting; None leaves it to the server.
        parts: take whole messages and not their text alone: tools, thoughts, sources, files (`Message.parts`,
            `PartChanged`), and which version of a message is shown.
        presence: be told who is here (`Here`).
        headers: of the handshake, for authentication.
    """

    def __init__(
        self,
        url: str,
        *,
        user: str | None = None,
        limit: int | None = None,
        parts: bool = False,
        presence: bool = False,
        headers: Mapping[str, str] | None = None,
        new_id: Callable[[], str] = lambda: uuid4().hex,
        random: Callable[[], float] = random,
    ) -> None:
        self._url = url
        self._headers = dict(headers or {})
        self._random = random
        self._core = RoomCore(new_id, user=user, limit=limit, parts=parts, presence=presence)
        self._user = user
        self._socket: ClientConnection | None = None
        self._said: set[str] = set()
        self._events = self._run()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The transcript as far as this client has it, oldest first."""
        return self._core.messages

    @property
    def streaming(self) -> Message | None:
        """The answer that is being made, as far as it is known."""
        return self._core.streaming

    @property
    def unacknowledged(self) -> tuple[str, ...]:
        """Ids of the messages that the room has not shown yet."""
        return self._core.unacknowledged

    def is_own(self, message_id: str) -> bool:
        """Whether the message was said through this client."""
        return message_id in self._said

    @property
    def waits(self) -> tuple[Wait, ...]:
        """What the room's answers wait for: approvals, results of clients' tools."""
        return self._core.waits

    @property
    def here(self) -> Here:
        """Who is in the room; of clients that asked for ``presence``."""
        return self._core.here

    async def say(self, text: str, *, files: Sequence[SentFile] = ()) -> str:
        """Say something; return its id. It is sent now or when there is a connection, and exactly once.

        Raises:
            BadArguments: there is neither text nor a file.
        """
        if not text.strip() and not files:
            raise BadArguments("a message must not be empty")
        message_id, frame = self._core.say(text, files)
        self._said.add(message_id)
        await self._send(frame)
        return message_id

    async def approve(self, id: str, approved: bool = True, *, reason: str | None = None) -> None:
        """Agree to a tool call (`Wait.id`), or do not. The first response counts, whoever gives it.

        Like what is said, it is sent until the room has it.
        """
        await self._send(self._core.approve(id, approved, reason))

    async def give_result(self, id: str, output: Any = None, *, error: str | None = None) -> None:
        """Give what a tool of the clients' gave (`Wait.id`), or why it failed. The first response counts."""
        await self._send(self._core.give_result(id, output, error))

    async def edit(self, message_id: str, text: str) -> None:
        """Make a new version of a message, which is answered (nothing happens without a connection)."""
        await self._send(edit_frame(message_id, text, user=self._user))

    async def regenerate(self, answer_id: str | None = None) -> None:
        """Have another version of an answer made (None: the last); nothing happens without a connection."""
        await self._send(regenerate_frame(answer_id))

    async def choose_branch(self, message_id: str, index: int) -> None:
        """Show version ``index`` (from 0) of a message (nothing happens without a connection)."""
        await self._send(branch_frame(message_id, index))

    async def typing(self, typing: bool = True) -> None:
        """Tell the others that one is writing: it holds for six seconds (nothing happens without a connection)."""
        await self._send(TYPING if typing else NOT_TYPING)

    async def stop(self) -> None:
        """Stop the answer that is being made (nothing happens without a connection)."""
        await self._send(STOP)

    async def retry(self) -> None:
        """Make the last answer again (nothing happens without a connection)."""
        await self._send(RETRY)

    async def _send(self, frame: bytes) -> None:
        if self._socket is not None and self._core.greeted:
            with suppress(ConnectionClosed):
                await self._socket.send(frame.decode())

    # --- events

    def __aiter__(self) -> AsyncGenerator[ClientEvent, None]:
        return self._events

    async def __aenter__(self) -> RoomClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Leave the room. A running `__aiter__` must have been ended or cancelled before."""
        await self._events.aclose()

    async def _run(self) -> AsyncGenerator[ClientEvent, None]:
        """The events.

        Raises:
            RoomUnreachable: at the first connection, or when the server will not have us.
            RemoteProtocolError: what answers there is no room.
            ConfigError: the address is none.
        """
        attempt = 0
        joined = False
        while True:
            refused: Refused | None = None
            try:
                async with self._connect() as socket, _goodbye(socket):
                    self._socket = socket
                    async for data in socket:
                        greeting = not self._core.greeted
                        events = self._core.receive(data)
                        if greeting and self._core.greeted:
                            if joined:
                                yield Connected()
                            joined = True
                            unsent = self._core.unsent()
                            if not unsent:
                                attempt = 0
                            for frame in unsent:
                                await socket.send(frame.decode())
                        for event in events:
                            refused = event if isinstance(event, Refused) else None
                            if refused is None:
                                attempt = 0
                            yield event
                        if refused is not None and refused.retryable and self._core.unacknowledged:
                            # Busy: coming back after a while sends again what was not taken.
                            await socket.close()
                reason = refused.message if refused is not None else "the server closed the connection"
            except ConnectionClosed as error:
                reason = _close_reason(error, refused)
            except InvalidURI:
                raise _no_address(self._url) from None
            except (OSError, InvalidHandshake, TimeoutError) as error:
                reason = _plain(error)
                if not joined:
                    raise RoomUnreachable(f"cannot reach {self._url}: {reason}") from None
            finally:
                self._socket = None
            wait_ms = self._backoff_ms(attempt)
            attempt += 1
            yield Disconnected(reason, wait_ms)
            await asyncio.sleep(wait_ms / 1000)

    def _connect(self) -> connect:
        return connect(
            _address(self._url, self._core.query()),
            additional_headers=self._headers,
            max_size=FRAME_BYTES_MAX,
            open_timeout=OPEN_TIMEOUT_S,
            compression=None,
            proxy=None,
        )

    def _backoff_ms(self, attempt: int) -> int:
        longest = BACKOFF_MS[min(attempt, len(BACKOFF_MS) - 1)]
        return int(longest / 2 + longest / 2 * self._random())


@asynccontextmanager
async def _goodbye(socket: ClientConnection) -> AsyncGenerator[None, None]:
    """However we leave, it is no error of ours (which `websockets` would say of a cancelled task)."""
    try:
        yield
    finally:
        await socket.close()


def _close_reason(error: ConnectionClosed, refused: Refused | None) -> str:
    """Why the connection ended. Raises RoomUnreachable where coming back is no use."""
    close = error.rcvd
    if close is None:
        return "the connection was lost"
    said = refused.message if refused is not None else close.reason
    reason = said or CLOSE_REASONS.get(close.code) or f"close code {close.code}"
    if close.code in FINAL_CLOSE_CODES:
        raise RoomUnreachable(f"the server closed the connection: {reason}") from None
    return reason


def _plain(error: Exception) -> str:
    if isinstance(error, InvalidStatus):
        return f"the server answered {error.response.status_code}"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "nothing listens there"
    return str(error) or type(error).__name__


def _address(url: str, query: Mapping[str, str]) -> str:
    """The WebSocket address with our query beside the URL's own."""
    try:
        pieces = urlsplit(url)
        _ = pieces.port  # parsed only now
    except ValueError:
        raise _no_address(url) from None
    scheme = {"http": "ws", "https": "wss"}.get(pieces.scheme, pieces.scheme)
    both = {**dict(parse_qsl(pieces.query)), **query}
    return urlunsplit((scheme, pieces.netloc, pieces.path, urlencode(both), ""))


def _no_address(url: str) -> ConfigError:
    return ConfigError(f"{url!r} is no room's address, like ws://127.0.0.1:8000/ws/general")
