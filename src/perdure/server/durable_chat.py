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

from ..errors import BadArguments, RemoteProtocolError
from ..objects.cursor import StreamCursor
from ..objects.runtime import Runtime
from .aisdk import AiSdk
from .answers import AnswerSource, turn_of
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
        if mode == "immediate" or source.stream is None:
            return self._pointer(request, source, 201)
        return self._pointer(request, source, 200, finalOffset=await self._end_of(source))

    async def resume(self, request: Request) -> Response:
        """``GET /api/durable-chat/{id}/stream``."""
        source = await self._chat.running(request)
        return Response(status_code=204) if source is None else self._pointer(request, source, 200)

    def _pointer(self, request: Request, source: AnswerSource, status: int, **more: str) -> Response:
        if source.stream is None:
            raise BadArguments("the message was taken, but it asks nobody: there is no answer to read")
        url = self._urls.turn_url(request, source.object_id.name, turn_of(source.stream))
        headers = {"location": url, "cache-control": "no-store"}
        response = json_reply({"streamUrl": url, **more}, status, headers)
        response.headers.append(*EXPOSE_LOCATION)
        return response

    async def _end_of(self, source: AnswerSource) -> str:
        assert source.stream is not None
        async with StreamCursor(self._runtime, source.object_id, source.stream) as cursor:
            while True:
                batch = await cursor.next()
                if batch.closed:
                    return batch.next_offset
