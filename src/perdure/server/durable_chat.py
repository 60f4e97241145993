"""`@durable-streams/aisdk-transport`: chat whose answers are read as Durable Streams.

::

    POST /api/durable-chat               {id, messages, trigger, messageId}
        201, Location: the turn's stream, {"streamUrl": ...}
        ?mode=await: 200 when the answer has ended, with "finalOffset"
    GET  /api/durable-chat/{id}/stream   200, Location and {"streamUrl": ...}; 204: nothing is running

The transport sends its headers to these two, but not to the stream that it reads then: where
users sign in, the stream's URL carries a token that allows reading it for a while.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from ..errors import RemoteProtocolError
from ..objects.cursor import StreamCursor
from ..objects.runtime import Runtime
from ..values import ObjectId
from .aisdk import AiSdk
from .answers import turn_of
from .replies import json_reply
from .streams.turn_urls import TurnUrls

EXPOSE_LOCATION = ("access-control-expose-headers", "Location")


class DurableChat:
    """The routes of the Durable Streams transport for one class of rooms."""

    def __init__(self, runtime: Runtime, chat: AiSdk, urls: TurnUrls) -> None:
        self._runtime = runtime
        self._chat = chat
        self._urls = urls

    async def post(self, request: Request) -> Response:
        """``POST /api/durable-chat``."""
        mode = request.query_params.get("mode", "immediate")
        if mode not in ("immediate", "await"):
            raise RemoteProtocolError("mode is immediate or await")
        source = await self._chat.submit(request)
        stream = await self._chat.told_stream(source)
        if mode == "immediate":
            return self._pointer(request, source.object_id, stream, 201)
        final_offset = await self._end_of(source.object_id, stream)
        return self._pointer(request, source.object_id, stream, 200, finalOffset=final_offset)

    async def resume(self, request: Request) -> Response:
        """``GET /api/durable-chat/{id}/stream``."""
        source = await self._chat.running(request)
        if source is None:
            return Response(status_code=204)
        return self._pointer(request, source.object_id, await self._chat.told_stream(source), 200)

    def _pointer(self, request: Request, object_id: ObjectId, stream: str, status: int, **more: str) -> Response:
        url = self._urls.turn_url(request, object_id.name, turn_of(stream))
        headers = {"location": url, "cache-control": "no-store"}
        response = json_reply({"streamUrl": url, **more}, status, headers)
        response.headers.append(*EXPOSE_LOCATION)
        return response

    async def _end_of(self, object_id: ObjectId, stream: str) -> str:
        async with StreamCursor(self._runtime, object_id, stream) as cursor:
            while True:
                batch = await cursor.next()
                if batch.closed:
                    return batch.next_offset
