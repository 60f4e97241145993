"""`@durable-streams/tanstack-ai-transport`: a room as one durable session.

::

    POST /api/chat/{id}/session    {messages, data?}: takes the new user message in
        202 at once; ?mode=await: 200 when its answer has ended
        refused: {"error": text, "code", "retryable"}; the transport shows the text
    GET  /api/chat/{id}/session    the room's session stream, by the Durable Streams protocol

Only what is new in the list counts (see `chat/asking.py`): a message that the room does not know or that was
changed, a known one whose answer is to be made again (``reload``), results of tools and approvals in an
assistant's message. Posts have no names. The same bytes again are the same post: it is read again, not done
again; only the first message of a client, sent again when its answer has ended, is taken for a ``reload``.

The stream holds the whole conversation as AG-UI events and never ends; it is made when it is
first asked for. It can be read at ``/v1/stream/rooms/{id}/session``, too.
"""

from __future__ import annotations

import hashlib

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from ..chat.asking import Asked, prepare_asked, take_asked
from ..chat.room import ChatRoom
from ..chat.transcript import stream_name
from ..errors import PerdureError, RemoteProtocolError
from ..models.base import ToolSpec
from ..objects.cursor import StreamCursor
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.agui_events import OWN_METADATA
from ..wire.agui_requests import parse_session_request
from ..wire.ui_requests import client_tools
from .aisdk import CHAT_BODY_BYTES_MAX
from .auth import Door
from .replies import RETRY_AFTER_S, json_reply, read_body
from .streams.surface import StreamSurface

_PLACE = f'"{OWN_METADATA}":{{"at":'.encode()
"""Is in a post whose client keeps what it was told of its messages (see `SessionLog`)."""


class Sessions:
    """The session routes for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom], surface: StreamSurface) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class
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
        told = client_tools(parsed.extra) or ()
        tools = [ToolSpec(tool.name, tool.description, tool.parameters) for tool in told]
        asked = Asked(
            f"post {hashlib.sha256(body).hexdigest()}",
            parsed.messages,
            parsed.new_message,
            user.name,
            tools or None,
            certain=_PLACE in body,
        )
        stream = await self._take(object_id, asked)
        if mode == "immediate":
            return Response(status_code=202)
        if stream is not None:
            await self._end_of(object_id, stream)
        return Response(status_code=200)

    async def read(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/session``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        return self._surface.session_reader(object_id)

    async def _take(self, object_id: ObjectId, asked: Asked) -> str | None:
        """Do what is asked; the stream with the chunks of what comes of it."""

        async def work(instance: Instance) -> str | None:
            room = instance.object
            assert isinstance(room, ChatRoom)
            room.open_session()
            run = take_asked(room, await prepare_asked(room, asked))
            return run.answer_id and stream_name(run.answer_id, run.leg or room.leg_of(run.answer_id))

        return await self._runtime.run_in(object_id, work)

    async def _end_of(self, object_id: ObjectId, name: str) -> None:
        async with StreamCursor(self._runtime, object_id, name) as cursor:
            while not (await cursor.next()).closed:
                pass
