"""``/healthz`` and ``/metrics``: for those who run the server."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.requests import Request
from starlette.responses import Response

from ..objects.runtime import Runtime
from .replies import json_reply


class Operations:
    """Health and metrics of one runtime."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def healthz(self, request: Request) -> Response:
        """200 when ready; 503 while recovering or draining."""
        runtime = self._runtime
        if runtime.ready:
            return json_reply({"status": "ready"})
        status = "draining" if runtime.draining else "recovering"
        return json_reply({"status": status}, 503, {"retry-after": "1"})

    async def metrics(self, request: Request) -> Response:
        """Prometheus text."""
        self._runtime.update_metrics()
        return Response(
            generate_latest(self._runtime.metrics.registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )
