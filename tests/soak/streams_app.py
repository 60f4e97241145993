"""The server that the streams' kill test kills: `perdure run` with streams alone.

python -m tests.soak.streams_app --port 8000 --data DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from perdure import App, Limits
from perdure.cli.logs import LogFormat
from perdure.cli.serving import ServeOptions, serve
from perdure.server.streams.limits import StreamLimits


def _app() -> App:
    # Connections are rotated while a round lasts, and large reads come in parts.
    limits = StreamLimits(long_poll_ms=700, rotate_ms=900, read_bytes_max=20_000)
    return App([], limits=Limits(drain_ms_max=300), stream_limits=limits)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    options = ServeOptions(
        host="127.0.0.1",
        port=arguments.port,
        data=arguments.data,
        reload=False,
        access_log=False,
        log_format=LogFormat.CONSOLE,
    )
    serve(_app, options, lambda url: None)
