"""How every measured server is run, the floor and perdure alike."""

from __future__ import annotations

import socket
from typing import Any

import uvicorn

from perdure import App
from perdure.objects.memory import settle
from perdure.server.streams.accelerator import http_protocol


class _Server(uvicorn.Server):
    """Collects garbage as ``perdure run`` does, for the floor, too."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        settle()


def _http_protocol(app: Any) -> Any:
    """What ``perdure run`` takes for an app of perdure."""
    if not isinstance(app, App):
        return "httptools"
    return http_protocol(app.stream_surface)


def serve(app: Any, port: int) -> None:
    """Serve an ASGI app on loopback until it is killed."""
    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        loop="uvloop",
        http=_http_protocol(app),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        access_log=False,
        log_level="warning",
    )
    _Server(config).run()
