"""Running an `App` under uvicorn: what `run` and `demo` share."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn
from uvicorn.supervisors import ChangeReload

from ..app import App
from ..errors import ConfigError, PerdureError
from ..objects.memory import settle
from ..server.auth import is_loopback
from ..server.streams.accelerator import http_protocol
from .exits import AddressInUse, exit_code
from .logs import LogFormat, configure_logs

WS_BYTES_PER_MESSAGE_BYTE = 4
"""A frame may be this much larger than the largest message: JSON escapes, keys. What is too large
for the room, but not for this, is answered with a clear error; past it the socket is closed."""

GRACE_AFTER_DRAIN_S = 2
"""Seconds that connections get to end after the drain: their close frames need one round trip."""

BACKLOG = 2_048
"""Connections that wait to be accepted: a crowd that reconnects at once after a restart."""

Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Data = Annotated[
    Path | None, typer.Option(help="Data folder. Default: what the app says, PERDURE_DATA, else ./data.")
]
Reload = Annotated[bool, typer.Option("--reload", help="Start again when a source file changes (development).")]
AccessLog = Annotated[bool, typer.Option("--access-log", help="Log every request.")]
LogStyle = Annotated[LogFormat, typer.Option("--log-format", help="How log lines look.")]


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Where and how to serve."""

    host: str
    port: int
    data: Path | None
    reload: bool
    access_log: bool
    log_format: LogFormat


class AppServer(uvicorn.Server):
    """uvicorn's server, which starts and drains the app itself.

    uvicorn closes all sockets before it tells the app to stop. Here the app drains first, so that
    clients are sent ``reconnect`` and running answers get their time or are parked.
    """

    def __init__(self, config: uvicorn.Config, app: App, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start the app (whose errors are raised as they are), then listen."""
        await self._app.start()
        await super().startup(sockets)
        if self.started:
            settle()
            self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, drain the app, then end what is left."""
        for server in self.servers:
            server.close()
        await self._app.stop()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM or SIGINT: drain. uvicorn raises the signal again afterwards; a drained server just ends."""
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True


def serve(make_app: Callable[[], App], options: ServeOptions, on_ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. ``on_ready(url)`` is called when it listens.

    Raises:
        ConfigError: the app or an option cannot work.
        StorageError: the data folder is locked, damaged or of a newer format.
    """
    listener = _bind(options)
    if not options.reload:
        _serve_on([listener], make_app=make_app, options=options, on_ready=on_ready)
        return
    config = uvicorn.Config("", reload=True, log_config=None)
    configure_logs(options.log_format)
    target = partial(_serve_child, make_app=make_app, options=options, on_ready=on_ready)
    ChangeReload(config, target=target, sockets=[listener]).run()


def _serve_child(
    sockets: list[socket.socket] | None,
    make_app: Callable[[], App],
    options: ServeOptions,
    on_ready: Callable[[str], None],
) -> None:
    """A reloaded server: an error ends it with its sentence, and the next change starts it again."""
    assert sockets is not None
    try:
        _serve_on(sockets, make_app=make_app, options=options, on_ready=on_ready)
    except PerdureError as error:
        print(f"perdure: {error}", file=sys.stderr)
        sys.exit(exit_code(error))


def _serve_on(
    sockets: list[socket.socket],
    make_app: Callable[[], App],
    options: ServeOptions,
    on_ready: Callable[[str], None],
) -> None:
    configure_logs(options.log_format, access_log=options.access_log)
    app = make_app()
    if options.data is not None:
        app.runtime.folder = options.data
    if app.authenticate is None and not is_loopback(options.host):
        raise ConfigError(
            f"{options.host} can be reached from other machines, and this app lets everyone in: "
            f"give it an authenticator, App(..., authenticate=...), or listen on 127.0.0.1"
        )
    limits = app.runtime.limits
    config = uvicorn.Config(
        app,
        host=options.host,
        loop="uvloop" if sys.platform != "win32" else "asyncio",
        http=http_protocol(app.stream_surface),
        ws="websockets-sansio",
        ws_max_size=max(WS_BYTES_PER_MESSAGE_BYTE * limits.message_bytes_max, limits.chat_frame_bytes_max),
        ws_per_message_deflate=False,
        access_log=options.access_log,
        log_config=None,
        timeout_graceful_shutdown=GRACE_AFTER_DRAIN_S,
    )
    url = f"http://{_shown_host(options.host)}:{sockets[0].getsockname()[1]}"
    server = AppServer(config, app, lambda: on_ready(url))
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(server.serve(sockets))


def _bind(options: ServeOptions) -> socket.socket:
    """Take the address before anything else is opened.

    Raises:
        AddressInUse: it is taken, is not this machine's, or may not be bound.
    """
    try:
        found = socket.getaddrinfo(options.host, options.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (socket.gaierror, UnicodeError):
        raise AddressInUse(f"{options.host!r} is no address of this machine; try --host 127.0.0.1") from None
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # From here on a second server fails at `bind`, and clients wait for the first `accept`.
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        where = f"{_shown_host(options.host)}:{options.port}"
        raise AddressInUse(
            f"cannot listen on {where} ({error.strerror}); is another server running? Choose another --port"
        ) from None
    listener.set_inheritable(True)
    return listener


def _shown_host(host: str) -> str:
    return f"[{host}]" if ":" in host else host
