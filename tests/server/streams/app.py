"""The application that runs in a process of its own for the conformance suite: streams, and nothing else."""

from __future__ import annotations

from perdure import App
from perdure.server.streams.limits import StreamLimits

app = App([], stream_limits=StreamLimits(long_poll_ms=500))
