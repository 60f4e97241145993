"""`@durable-streams/tanstack-ai-transport`: a room as one durable session.

::

    POST /api/chat/{id}/session    {messages, data?}: takes the new user message in
        202 at once; ?mode=await: 200 when its answer has ended
        refused: {"error": text, "code", "retryable"}; the transport shows the text
    GET  /api/chat/{id}/session    the room's session stream, by the Durable Streams protocol

A post that ends with a message that the room knows came twice, or is what `reload()` of a client sends:
where that message's answer is the last thing that was said, it is made again.

The stream holds the whole conversation as AG-UI events and never ends; it is made when it is
first asked for. It can be read at ``/v1/stream/rooms/{id}/session``, too.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.room import ChatRoom
from ..chat.submitted import Submitted
from ..chat.transcript import stream_name
from ..errors import BadArguments, PerdureError, RemoteProtocolError
from ..objects.cursor import StreamCursor
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.agui_requests import parse_session_request
from .aisdk import CHAT_BODY_BYTES_MAX, AiSdk
from .auth import Door
from .replies import RETRY_AFTER_S, json_reply, read_body
from .streams.surface import StreamSurface


class Sessions:
    """The session routes for one class of rooms."""

    def __init__(
        self, runtime: Runtime, door: Door, room_class: type[ChatRoom], chat: AiSdk, surface: StreamSurface
    ) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
        self._chat = chat
        self._surface = surface

    async def post(self, request: Request) -> Response:
        """``POST /api/chat/{id}/session``."""
        try:
            return await self._post(request)
        except PerdureError as error:
            headers = {"retry-after": str(RETRY_AFTER_S)} if error.retryable else None
            body = {"error": str(error), "code": error.code, "retryable": error.retryable}
            return json_reply(body, error.status, headers)

    async def _post(self, request: Request) -> Response:
        mode = request.query_params.get("mode", "immediate")
        if mode not in ("immediate", "await"):
            raise RemoteProtocolError("mode is immediate or await")
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        user = await self._door.admit(request, object_id.name)
        body = await read_body(request, "chat_body_bytes_max", CHAT_BODY_BYTES_MAX)
        limit = self._runtime.limits.message_bytes_max
        parsed = parse_session_request(body, chat_id=object_id.name, message_bytes_max=limit)
        await self._open(object_id)
        submitted = await self._chat.take(parsed, user)
        if submitted is not None and submitted.known:
            submitted = await self._reload(object_id, submitted)
        if submitted is None:
            raise BadArguments("there is nothing to answer in this room")
        if mode == "immediate":
            return Response(status_code=202)
        if submitted.answer_id is not None:
            await self._end_of(object_id, submitted.answer_id)
        return Response(status_code=200)

    async def read(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/session``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        return self._surface.session_reader(object_id)

    async def _open(self, object_id: ObjectId) -> None:
        async def work(instance: Instance) -> None:
            assert isinstance(instance.object, ChatRoom)
            instance.object.open_session()

        await self._runtime.run_in(object_id, work)

    async def _reload(self, object_id: ObjectId, known: Submitted) -> Submitted | None:
        """Make the answer to a known message again, where it has ended and nothing was said since."""

        async def work(instance: Instance) -> Submitted | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            last = await room.messages(1)
            if known.answer_id in (None, room.streaming_answer) or last[0].id != known.answer_id:
                return known
            return room.regenerate(known.answer_id)

        return await self._runtime.run_in(object_id, work)

    async def _end_of(self, object_id: ObjectId, answer_id: str) -> None:
        async with StreamCursor(self._runtime, object_id, stream_name(answer_id)) as cursor:
            while not (await cursor.next()).closed:
                pass
