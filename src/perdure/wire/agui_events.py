"""AG-UI events on their way to TanStack AI's clients: how they are written, and in which order they may come.

The fold of `@tanstack/ai` 0.58 keeps the text that has grown since the last tool call. Text that comes after a
part of another kind begins a new part, but only a call makes the fold begin a new text as well: after a thought
or a result the whole of the old text is shown again. `EventBuffer` keeps events away from that.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import RemoteProtocolError
from .json_text import encode_json

OWN_METADATA = "perdure"
"""The key of a message's metadata under which clients carry what the server wants to hear again from them."""

_RESERVED_METADATA = "tanstack"
"""The key of a message's metadata that TanStack reads orders from."""


def agui_event(type: str, **fields: Any) -> bytes:
    """An event as compact JSON; fields that are None are left out.

    Raises:
        LocalProtocolError: a field has no JSON.
    """
    if None in fields.values():
        fields = {name: value for name, value in fields.items() if value is not None}
    return encode_json({"type": type, **fields})


def client_metadata(metadata: dict[str, Any] | None) -> dict[str, Any] | None:
    """A message's metadata as clients may have it; None where nothing is left."""
    return {key: value for key, value in (metadata or {}).items() if key != _RESERVED_METADATA} or None


def given_metadata(metadata: dict[str, Any]) -> dict[str, Any] | None:
    """The application's share of what a client has as a message's metadata; None where it has none."""
    return {key: value for key, value in metadata.items() if key not in (_RESERVED_METADATA, OWN_METADATA)} or None


def result_text(output: Any) -> str:
    """A tool's output as the ``content`` of a result: text as it is, unless clients would read it as JSON."""
    if isinstance(output, str):
        try:
            json.loads(output, parse_int=float)  # takes what JavaScript takes, and a little more
        except ValueError:
            return output
        except RecursionError:
            pass
    return encode_json(output).decode()


class EventBuffer:
    """The events that are to be told next. While a text grows, other parts are **held**: until the next call or
    the end of the message. The text itself never waits.
    """

    def __init__(self) -> None:
        self._events: list[bytes] = []
        self._held: list[bytes] = []
        self._text_grows = False
        self._text_is_over = False

    def tell(self, type: str, **fields: Any) -> None:
        """An event that adds no part to the message."""
        self._events.append(agui_event(type, **fields))

    def tell_text(self, message_id: str | None, delta: str) -> None:
        """The message's text grows."""
        self._text_grows = True
        self.tell("TEXT_MESSAGE_CONTENT", messageId=message_id, delta=delta)

    def tell_part(self, type: str, **fields: Any) -> None:
        """An event that may add a part which is neither a text nor a call."""
        (self._held if self._text_grows else self._events).append(agui_event(type, **fields))

    def release(self, *, text_ended: bool) -> None:
        """Tell what was held. ``text_ended``: a call comes next, so the text after it is a new one."""
        self._events.extend(self._held)
        self._held.clear()
        if text_ended:
            self._text_is_over = self._text_is_over or self._text_grows
            self._text_grows = False

    def text_is_over(self) -> bool:
        """Whether a call has ended the text that was told last; once for each."""
        is_over, self._text_is_over = self._text_is_over, False
        return is_over

    def take(self) -> list[bytes]:
        """The events since the last look, oldest first."""
        events, self._events = self._events, []
        return events


class _Part:
    """A text or a thought of which not all has been told."""

    __slots__ = ("ended", "pieces")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.ended = False


class Lane:
    """The parts of one kind, told one after the other: what is said in a later one waits for the earlier ones.

    ``kind`` is their name in errors. ``open``, ``grow`` and ``close`` tell of the part whose turn it is.
    """

    def __init__(
        self, kind: str, open: Callable[[], object], grow: Callable[[str], object], close: Callable[[], object]
    ) -> None:
        self._kind, self._on_open, self._on_grow, self._on_close = kind, open, grow, close
        self._untold: deque[_Part] = deque()
        self._open: dict[str, _Part] = {}

    def start(self, part_id: str) -> None:
        """Raises `RemoteProtocolError` where the part is open already."""
        if part_id in self._open:
            raise RemoteProtocolError(f"{self._kind}-start for part {part_id!r}, which is already open")
        part = self._open[part_id] = _Part()
        self._untold.append(part)
        if self._untold[0] is part:
            self._on_open()

    def grow(self, part_id: str, text: str) -> None:
        """Raises `RemoteProtocolError` where the part is not open."""
        part = self._find(part_id, "delta")
        if self._untold[0] is not part:
            part.pieces.append(text)
        elif text:
            self._on_grow(text)

    def end(self, part_id: str) -> None:
        """Raises `RemoteProtocolError` where the part is not open."""
        self._find(part_id, "end").ended = True
        del self._open[part_id]
        while self._untold and self._untold[0].ended:
            self._on_close()
            self._untold.popleft()
            if self._untold:
                self._on_open()
                if text := "".join(self._untold[0].pieces):
                    self._on_grow(text)

    def end_all(self) -> None:
        """End the parts that are open."""
        for part_id in list(self._open):
            self.end(part_id)

    def _find(self, part_id: str, what: str) -> _Part:
        part = self._open.get(part_id)
        if part is None:
            raise RemoteProtocolError(f"{self._kind}-{what} for part {part_id!r}, which is not open")
        return part
