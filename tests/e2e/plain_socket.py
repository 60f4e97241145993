"""The simplest client of a room there can be: a socket, and a dictionary of what it shows."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlencode

from tests.e2e.tab import WITHIN_MS
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

Frame = dict[str, Any]


class PlainSocket:
    """Shows a room by its frames. It comes back with its offset, and keeps what it shows meanwhile."""

    def __init__(self, url: str, room: str, **query: str) -> None:
        self.offset = ""
        self.messages: dict[str, Frame] = {}
        self.chunks: list[Frame] = []
        self.texts_seen: list[str] = []
        """What the newest answer was ever shown with."""
        self._url = f"{url.replace('http', 'ws')}/ws/{room}"
        self._query = query
        self._socket: ClientConnection
        self._open = ExitStack()
        self.come()

    def come(self) -> None:
        """Connect, with the offset of the newest frame; the first frame says what was missed."""
        query = {**self._query, **({"offset": self.offset} if self.offset else {})}
        address = f"{self._url}?{urlencode(query)}"
        self._open.close()
        self._socket = self._open.enter_context(connect(address, compression=None, max_size=None, proxy=None))
        first = self.take()
        assert first["type"] in ("init", "resume"), first

    def cut(self) -> None:
        """The line breaks as a network does: a reset, and what was under way is lost."""
        line = self._socket.socket
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()

    def leave(self) -> None:
        """Close the socket, and say so."""
        self._open.close()

    def send(self, **frame: Any) -> None:
        """Send a frame."""
        self._socket.send(json.dumps(frame))

    def take(self) -> Frame:
        """The next frame, shown."""
        frame: Frame = json.loads(self._socket.recv(timeout=WITHIN_MS / 1000))
        self.offset = frame.get("offset", self.offset)
        kind = frame["type"]
        if kind == "init":
            self.messages = {message["id"]: message for message in frame["messages"]}
        elif kind == "message":
            self.messages[frame["message"]["id"]] = frame["message"]
        elif kind == "update":
            self.messages[frame["messageId"]]["content"] = frame["content"]
        elif kind == "delta":
            self.messages[frame["messageId"]]["content"] += frame["delta"]
        elif kind == "chunks":
            self.chunks += frame["chunks"]
            for chunk in frame["chunks"]:
                self.messages[frame["messageId"]]["content"] += chunk.get("delta", "")
        elif kind == "complete":
            shown = self.messages[frame["messageId"]]
            shown.update(content=frame["content"], status=frame["status"], waits=frame.get("waits", []))
            shown["error"] = frame.get("error")
        elif kind == "remove":
            for message_id in frame["messageIds"]:
                self.messages.pop(message_id, None)
        if (answer := self.answer) is not None:
            self.texts_seen.append(answer["content"])
        return frame

    def until(self, holds: Callable[[Frame], object]) -> Frame:
        """Take frames until the newest answer is so; return it."""
        while (answer := self.answer) is None or not holds(answer):
            self.take()
        return answer

    def until_over(self, holds: Callable[[Frame], object]) -> Frame:
        """The same with a server that may be gone for a moment."""
        try:
            return self.until(holds)
        except ConnectionClosed:
            self.come()
            return self.until_over(holds)

    @property
    def answer(self) -> Frame | None:
        """The newest answer."""
        answers = [message for message in self.messages.values() if message["role"] == "assistant"]
        return answers[-1] if answers else None

    @property
    def texts(self) -> list[tuple[str, str]]:
        """Role and text of every message."""
        return [(message["role"], message["content"]) for message in self.messages.values()]


def is_over(answer: Frame) -> bool:
    """Whether an answer is at its end."""
    return answer["status"] in ("complete", "aborted", "failed")


def waits(answer: Frame) -> bool:
    """Whether it waits for someone."""
    return bool(answer["status"] == "waiting")
