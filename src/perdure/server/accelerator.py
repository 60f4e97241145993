"""The optional accelerator: one encoded WebSocket frame, shared by all connections.

ASGI has the server encode each frame anew for each connection. Under uvicorn with its
``websockets-sansio`` protocol, the frame's bytes (RFC 6455, 5.2: the same for every client,
since servers do not mask) are made once here and written to each connection's transport; the
library keeps parsing, limits, the handshake, pings and closing. A delivery costs half.

Everything works the same without it: with other servers, with compressed connections, with
``PERDURE_ACCELERATOR=0``, or when a new uvicorn looks different inside, frames go through ASGI.
"""

from __future__ import annotations

from typing import Any

from starlette.types import Send

from .config import accelerator_enabled

_PROTOCOL = "WebSocketsSansIOProtocol"
_NEEDED = ("transport", "writable", "close_sent", "disconnected", "handshake_complete", "conn")

FIN_TEXT = 0x81
FIN_BINARY = 0x82


def encode_frame(data: bytes, text: bool) -> bytes:
    """One whole, unmasked frame (RFC 6455, 5.2)."""
    size = len(data)
    first = FIN_TEXT if text else FIN_BINARY
    if size < 126:
        return bytes((first, size)) + data
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + data
    return bytes((first, 127)) + size.to_bytes(8, "big") + data


class _LastFrame:
    """The frame that was encoded last: a broadcast asks for the same one again and again."""

    __slots__ = ("data", "text", "wire")

    def __init__(self) -> None:
        self.data = b""
        self.text = True
        self.wire = b""

    def encoded(self, data: bytes, text: bool) -> bytes:
        if data is not self.data or text is not self.text:
            self.data, self.text, self.wire = data, text, encode_frame(data, text)
        return self.wire


_last = _LastFrame()


class Shortcut:
    """The way past ASGI for one connection."""

    __slots__ = ("_protocol",)

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def write(self, data: bytes, text: bool) -> bool:
        """Write the frame if the connection takes it now; False: go through ASGI."""
        protocol = self._protocol
        if not protocol.writable.is_set() or protocol.close_sent or protocol.disconnected:
            return False
        protocol.transport.write(_last.encoded(data, text))
        return True


def find_shortcut(send: Send) -> Shortcut | None:
    """The shortcut behind an accepted connection's ``send``, where there is one."""
    protocol = getattr(send, "__self__", None)
    if (
        not accelerator_enabled()
        or type(protocol).__name__ != _PROTOCOL
        or not all(hasattr(protocol, name) for name in _NEEDED)
        or not getattr(protocol, "handshake_complete", False)
        or getattr(getattr(protocol, "conn", None), "extensions", True)
    ):
        return None
    return Shortcut(protocol)


def runs_in_place(send: Send) -> bool:
    """Whether ``send`` may be started by hand, outside a task of its own: true of uvicorn's."""
    return getattr(send, "__module__", "").startswith("uvicorn.") or type(
        getattr(send, "__self__", None)
    ).__module__.startswith("uvicorn.")
