"""The server that the kill test kills: streams and subscriptions, and nothing else.

python -m tests.stream_hosts.served --port 8000 --data DIR
"""

from __future__ import annotations

import argparse

import uvicorn

from perdure import App, Limits

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--data", required=True)
    arguments = parser.parse_args()
    uvicorn.run(
        App([], data=arguments.data, limits=Limits(drain_ms_max=300)),
        host="127.0.0.1",
        port=arguments.port,
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
