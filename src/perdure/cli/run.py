"""`perdure run`: serve an app."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from .logs import LogFormat
from .serving import AccessLog, Data, Host, LogStyle, Port, Reload, ServeOptions, serve
from .target import load_app


def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="The app, like `chat:app`.")],
    host: Host = "127.0.0.1",
    port: Port = 8000,
    data: Data = None,
    reload: Reload = False,
    access_log: AccessLog = False,
    log_format: LogStyle = LogFormat.CONSOLE,
) -> None:
    """Serve an app until Ctrl-C or SIGTERM, which let running answers end or park them.

    An app without `authenticate=` is served to this machine only.
    """
    options = ServeOptions(host, port, data, reload, access_log, log_format)
    serve(partial(load_app, target), options, _say_url)


def _say_url(url: str) -> None:
    typer.echo(f"Serving on {url}")
