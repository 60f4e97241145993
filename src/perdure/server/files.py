"""Files of rooms over HTTP: bring one, read it.

::

    POST /api/chat/{id}/files            a form with one file, or the bare file
                                         -> 201 {"url", "mediaType", "filename", "sizeBytes"}
    GET  /api/chat/{id}/files/{file}     the file; HEAD, Range, If-None-Match
    GET  /api/chat/{id}/files/{file}/url -> {"url": ..., "expiresMs": ...}, which needs no sign-in for an hour

A file is written chunk by chunk, each durable before the next is read: neither memory nor the loop is held by
a large one, and a sender is slowed down to the disk's pace. Nobody finds it before it is whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar
from urllib.parse import quote

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..chat.file_store import FILE_CHUNK_BYTES, StoredFile
from ..chat.files import API_URL, START_BYTES, FileUpload, RoomFiles
from ..chat.room import ChatRoom
from ..errors import Forbidden, LimitExceeded, NoSuchFile, PerdureError, RemoteProtocolError
from ..objects.instance import Instance
from ..objects.runtime import Runtime
from ..values import ObjectId
from ..wire.downloads import UNSATISFIABLE, base_name, content_disposition, etag_matches, parse_range
from ..wire.multipart import MultipartParser, PartEnd, PartStart, boundary_of
from .auth import Door
from .replies import json_reply
from .streams.access import READ_ONLY, TOKEN_PARAMETER, UrlSigner

log = structlog.get_logger("perdure.server")

FILE_URL_VALID_S = 3_600
"""How long a signed URL of a file can be read without signing in."""

FORM_BYTES_MAX = 64 * 1024
"""Bytes of a form with a file that are not the file's."""

FORM_FIELDS_MAX = 100
"""Fields of a form with a file."""

SHOWN_TYPES = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/gif",
        "image/webp",
        "image/avif",
        "image/bmp",
        "application/pdf",
        "text/plain",
    }
)
"""Types (beside audio and video) that a browser shows in its own page; all others it saves: they may hold scripts."""

Result = TypeVar("Result")


class ChatFiles:
    """The routes of files for one class of rooms."""

    def __init__(self, runtime: Runtime, door: Door, room_class: type[ChatRoom]) -> None:
        self._runtime = runtime
        self._door = door
        self._class = room_class

    # --- bringing one

    async def upload(self, request: Request) -> Response:
        """``POST /api/chat/{id}/files``."""
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        await self._door.admit(request, object_id.name)
        announced = request.headers.get("content-length", "")
        limit = self._runtime.limits.file_bytes_max
        if announced.isdigit() and int(announced) > limit + FORM_BYTES_MAX:
            raise LimitExceeded("file_bytes_max", int(announced), limit)
        receiver = _Receiver(self._runtime, object_id)
        content_type = request.headers.get("content-type")
        form = (content_type or "").strip().lower().startswith("multipart/")
        try:
            if form:
                await _receive_form(request, receiver, content_type or "")
            else:
                filename = request.query_params.get("filename")
                receiver.start(content_type, filename)
                async for piece in request.stream():
                    await receiver.write(piece)
            file, address = await receiver.finish()
        except ClientDisconnect:
            await receiver.give_up()
            raise RemoteProtocolError("the file was cut off") from None
        except PerdureError:
            await receiver.give_up()
            raise
        url = _below_root(request, address)
        shown: dict[str, Any] = {"url": url, "mediaType": file.media_type, "sizeBytes": file.bytes}
        if receiver.filename is not None:
            shown["filename"] = receiver.filename
        return json_reply(shown, 201, {"location": url})

    # --- reading it

    async def read(self, request: Request) -> ASGIApp:
        """``GET /api/chat/{id}/files/{file}``."""
        object_id, file = await self._find(request)
        etag = f'"{file.id}"'
        headers = {
            "etag": etag,
            "cache-control": "private, max-age=31536000, immutable",
            "accept-ranges": "bytes",
            "content-type": file.media_type + ("; charset=utf-8" if file.media_type.startswith("text/") else ""),
            "content-disposition": content_disposition(_shown(file.media_type), file.filename),
            "x-content-type-options": "nosniff",
        }
        if file.media_type != "application/pdf":  # browsers show none in a sandbox
            headers["content-security-policy"] = "default-src 'none'; style-src 'unsafe-inline'; sandbox"
        if etag_matches(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        first, last = 0, file.bytes - 1
        status = 200
        if request.headers.get("if-range", etag) == etag:
            part = parse_range(request.headers.get("range"), file.bytes)
            if part == UNSATISFIABLE:
                return Response(status_code=416, headers={**headers, "content-range": f"bytes */{file.bytes}"})
            if part is not None:
                (first, last), status = part, 206
                headers["content-range"] = f"bytes {first}-{last}/{file.bytes}"
        headers["content-length"] = str(last - first + 1)
        if request.method == "HEAD":
            return _Body(_nothing(), headers, status)
        return _Body(self._pieces(object_id, file, first, last), headers, status)

    async def sign(self, request: Request) -> Response:
        """``GET /api/chat/{id}/files/{file}/url``."""
        object_id, file = await self._find(request, by_token=False)
        url = await _in_room(self._runtime, object_id, lambda files: files.url(file.id))
        expires_s = self._runtime.now_ms() // 1000 + FILE_URL_VALID_S
        token = UrlSigner(self._runtime.secret).sign(signed_path(object_id.name, file.id), READ_ONLY, expires_s)
        shown = {"url": f"{_below_root(request, url)}?{TOKEN_PARAMETER}={token}", "expiresMs": expires_s * 1000}
        return json_reply(shown, headers={"cache-control": "no-store"})

    async def _find(self, request: Request, *, by_token: bool = True) -> tuple[ObjectId, StoredFile]:
        object_id = self._runtime.object_id(self._class, request.path_params["id"])
        file_id = request.path_params["file"]
        token = request.query_params.get(TOKEN_PARAMETER) if by_token else None
        if token is None:
            await self._door.admit(request, object_id.name)
        elif not UrlSigner(self._runtime.secret).allows(
            token, signed_path(object_id.name, file_id), "read", self._runtime.now_ms() / 1000
        ):
            raise Forbidden("the URL's token is not for this, or it has expired; ask for a new one")
        if not self._runtime.exists(object_id):
            raise NoSuchFile
        return object_id, await _in_room(self._runtime, object_id, lambda files: files.find(file_id))

    async def _pieces(self, object_id: ObjectId, file: StoredFile, first: int, last: int) -> AsyncIterator[bytes]:
        for place in range(first // FILE_CHUNK_BYTES, last // FILE_CHUNK_BYTES + 1):
            start = place * FILE_CHUNK_BYTES

            def read(files: RoomFiles, place: int = place) -> bytes:
                return files.chunk(file, place)

            chunk = await _in_room(self._runtime, object_id, read)
            yield chunk[max(0, first - start) : last + 1 - start]


def signed_path(room: str, file_id: str) -> str:
    """What the token of a file's URL is for."""
    return f"rooms/{quote(room, safe='')}/files/{file_id}"


class _Receiver:
    """Takes one file in, a chunk at a time."""

    def __init__(self, runtime: Runtime, object_id: ObjectId) -> None:
        self._runtime = runtime
        self._object_id = object_id
        self._buffer = bytearray()
        self._media_type: str | None = None
        self._upload: FileUpload | None = None
        self.started = False
        self.filename: str | None = None

    def start(self, media_type: str | None, filename: str | None) -> None:
        """What the sender says of it."""
        self.started = True
        self._media_type = media_type
        self.filename = base_name(filename or "") or None

    async def write(self, data: bytes) -> None:
        """The next of its content; returns when a whole chunk of it is durable."""
        self._buffer += data
        while len(self._buffer) >= FILE_CHUNK_BYTES:
            await self._flush()

    async def finish(self) -> tuple[StoredFile, str]:
        """It is whole: the file, and its address."""
        if not self.started:
            raise RemoteProtocolError("the form holds no file")
        if self._buffer or self._upload is None:
            await self._flush()
        upload = self._upload
        assert upload is not None

        def finish(files: RoomFiles) -> tuple[StoredFile, str]:
            file = files.finish(upload)
            return file, files.url(file.id)

        return await _in_room(self._runtime, self._object_id, finish)

    async def give_up(self) -> None:
        """The rest will not come."""
        upload = self._upload
        if upload is not None:
            try:
                await _in_room(self._runtime, self._object_id, lambda files: files.give_up(upload))
            except PerdureError as error:
                # It is removed a day later then.
                log.info("upload not given up", room=self._object_id.name, error=str(error))

    async def _flush(self) -> None:
        chunk = bytes(self._buffer[:FILE_CHUNK_BYTES])
        del self._buffer[:FILE_CHUNK_BYTES]
        if self._upload is None:
            self._upload = await _in_room(self._runtime, self._object_id, lambda files: self._begin(files, chunk))
        upload = self._upload
        await asyncio.to_thread(upload.hash.update, chunk)
        if chunk:
            await _in_room(self._runtime, self._object_id, lambda files: files.append(upload, chunk))

    def _begin(self, files: RoomFiles, chunk: bytes) -> FileUpload:
        media_type = files.check(self._media_type, self.filename, chunk[:START_BYTES], len(chunk))
        return files.begin(media_type, self.filename)


async def _receive_form(request: Request, receiver: _Receiver, content_type: str) -> None:
    """Take the one file of a form; its other fields are passed over."""
    parser = MultipartParser(boundary_of(content_type))
    in_file = False
    others = fields = 0
    async for piece in request.stream():
        for event in parser.feed(piece):
            if isinstance(event, PartStart):
                fields += 1
                if fields > FORM_FIELDS_MAX:
                    raise LimitExceeded("form_fields_max", fields, FORM_FIELDS_MAX)
                in_file = event.filename is not None
                if in_file:
                    if receiver.started:
                        raise RemoteProtocolError("the form holds several files; send one at a time")
                    receiver.start(event.media_type, event.filename)
            elif isinstance(event, PartEnd):
                in_file = False
            elif in_file:
                await receiver.write(event)
            else:
                others += len(event)
                if others > FORM_BYTES_MAX:
                    raise LimitExceeded("form_bytes_max", others, FORM_BYTES_MAX)
    parser.end()


async def _in_room(runtime: Runtime, object_id: ObjectId, work: Callable[[RoomFiles], Result]) -> Result:
    """Do something with the room's files; returns when what it wrote is durable."""

    async def run(instance: Instance) -> Result:
        room = instance.object
        assert isinstance(room, ChatRoom)
        return work(room.files)

    return await runtime.run_in(object_id, run)


def _below_root(request: Request, url: str) -> str:
    """The address where the application is mounted, unless the room's class says where that is."""
    root: str = request.scope.get("root_path", "")
    return f"{root}{url}" if root and url.startswith(f"{API_URL}/") else url


def _shown(media_type: str) -> str:
    return "inline" if media_type in SHOWN_TYPES or media_type.startswith(("audio/", "video/")) else "attachment"


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""


class _Body:
    """An ASGI response of known length, sent piece by piece; cut where a piece is missing."""

    def __init__(self, pieces: AsyncIterator[bytes], headers: dict[str, str], status: int) -> None:
        self._pieces = pieces
        self._status = status
        self._headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self._status, "headers": self._headers})
        try:
            async for piece in self._pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except PerdureError as error:
            # Leaving without the last body makes the server cut the connection.
            log.info("file cut", path=scope["path"], error=str(error))
            return
        await send({"type": "http.response.body", "body": b"", "more_body": False})
