"""Files in a room: which it takes, where they are, and messages that carry them.

A file comes in three ways: uploaded piece by piece (server/files.py), inside a message as a data URL, or from
the model. All are stored in the room (`FileStore`) and messages hold their addresses, so that a message stays
small in every protocol. Only a short data URL stays in its message.

A file that no message holds is removed: a day after it was last sent, when the room is next used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, unquote

from ..errors import LimitExceeded, ModelError, NoSuchFile, PerdureError, RemoteProtocolError, UnsupportedFile
from ..objects.object import Context
from ..wire.downloads import base_name
from ..wire.files import (
    UNKNOWN_TYPE,
    DataUrl,
    contradiction,
    is_data_url,
    parse_data_url,
    parse_media_type,
    sniff_media_type,
    type_allowed,
)
from ..wire.json_text import encode_json
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import File
from .file_store import FILE_CHUNK_BYTES, FileHash, FileStore, StoredFile

DEFAULT_FILE_TYPES = ("image/*", "application/pdf", "text/*", "audio/*")
"""What a room takes unless it says otherwise."""

API_URL = "/api/chat"

FILENAME_BYTES_MAX = 255
"""Bytes of UTF-8 of a file's name."""

UNUSED_FILE_KEEP_MS = 24 * 60 * 60 * 1000
"""How long a file is kept that no message holds."""

START_BYTES = 16
"""Bytes of a file's beginning that are looked at."""

_FILE_ID_CHARACTERS = frozenset("0123456789abcdef")

Part = dict[str, Any]


class FileUpload:
    """A file that comes in piece by piece; lives as long as the request that brings it, whoever holds the room."""

    def __init__(self, number: int, media_type: str, filename: str | None) -> None:
        self.number = number
        self.media_type = media_type
        self.filename = filename
        self.hash = FileHash(media_type)
        self.chunks = 0
        self.bytes = 0


class RoomFiles:
    """The files of one room."""

    def __init__(self, context: Context, types: Sequence[str] = DEFAULT_FILE_TYPES, api_url: str = API_URL) -> None:
        self._context = context
        self._limits = context.runtime.limits
        self._types = tuple(types)
        self._room = context.object_id.name
        self._api_url = api_url.rstrip("/")
        self._removing = False
        self.store = FileStore(context.storage)

    # --- addresses

    def url(self, file_id: str) -> str:
        """The address of a file of this room, as messages hold it."""
        return f"{self._api_url}/{quote(self._room, safe='')}/files/{file_id}"

    def id_of(self, url: str) -> str | None:
        """The id in the address of a file of this room, wherever the server is mounted; None for any other."""
        pieces = url.partition("?")[0].partition("#")[0].rsplit("/", 3)
        if len(pieces) != 4:
            return None
        api_url, room, files, file_id = pieces
        own = (api_url == self._api_url or api_url.endswith(API_URL)) and unquote(room) == self._room
        own = own and files == "files" and len(file_id) == 32 and _FILE_ID_CHARACTERS.issuperset(file_id)
        return file_id if own else None

    def find(self, file_id: str) -> StoredFile:
        """The file of that id.

        Raises:
            NoSuchFile: there is none.
        """
        found = self.store.find(file_id)
        if found is None:
            raise NoSuchFile
        return found

    async def load(self, url: str) -> tuple[bytes, str]:
        """The content and the media type of the file at an address that a message of this room holds.

        Nothing is fetched from elsewhere.

        Raises:
            NoSuchFile: it is no file of this room, and no data URL.
            RemoteProtocolError: the data URL is none.
        """
        if is_data_url(url):
            parsed = parse_data_url(url)
            return await asyncio.to_thread(parsed.decode), parsed.media_type
        file = self.find(self.id_of(url) or "")
        content = bytearray()
        for place in range(file.chunks):
            content += self.chunk(file, place)
            await asyncio.sleep(0)
        return bytes(content), file.media_type

    def chunk(self, file: StoredFile, place: int) -> bytes:
        """One `FILE_CHUNK_BYTES` of a file.

        Raises:
            NoSuchFile: it was removed meanwhile.
        """
        data = self.store.chunk(file, place)
        if data is None:
            raise NoSuchFile("the file was removed")
        return data

    # --- what is taken

    def check(self, media_type: str | None, filename: str | None, start: bytes, size: int | None) -> str:
        """Whether the room takes a file that begins with ``start`` and has a place for it; its media type.

        Where the sender does not know the type (None, ``application/octet-stream``), the first bytes may tell.

        Raises:
            UnsupportedFile: not of this type, or it is not what it says.
            LimitExceeded: ``file_bytes_max``, ``filename_bytes_max``, ``room_files_max``, ``room_files_bytes_max``.
        """
        kind = self._check_kind(media_type, filename, start)
        self._check_room(size or 0)
        return kind

    def _check_kind(self, media_type: str | None, filename: str | None, start: bytes) -> str:
        kind = UNKNOWN_TYPE if media_type is None else parse_media_type(media_type)
        if kind == UNKNOWN_TYPE:
            kind = sniff_media_type(start) or kind
        if not type_allowed(kind, self._types):
            raise UnsupportedFile(f"this room takes no files of type {kind}; it takes {', '.join(self._types)}")
        if (found := contradiction(kind, start)) is not None:
            raise UnsupportedFile(f"the file is called {kind}, but it is {found}")
        _check("filename_bytes_max", len((filename or "").encode()), FILENAME_BYTES_MAX)
        return kind

    def _check_room(self, size: int) -> None:
        _check("file_bytes_max", size, self._limits.file_bytes_max)
        files, total = self.store.totals()
        _check("room_files_max", files + 1, self._limits.room_files_max)
        _check("room_files_bytes_max", total + size, self._limits.room_files_bytes_max)

    # --- uploads

    def begin(self, media_type: str, filename: str | None) -> FileUpload:
        """Begin a file whose type is one that `check` gave."""
        self.tidy()
        number = self.store.begin(media_type, filename, self._context.now_ms())
        return FileUpload(number, media_type, filename)

    def append(self, upload: FileUpload, data: bytes) -> None:
        """The next `FILE_CHUNK_BYTES` of it (the last may be fewer); its hash is the caller's to bring on.

        Raises:
            LimitExceeded: ``file_bytes_max``, ``room_files_bytes_max``.
            NoSuchFile: the upload has been given up meanwhile.
        """
        _check("file_bytes_max", upload.bytes + len(data), self._limits.file_bytes_max)
        total = self.store.totals()[1]
        _check("room_files_bytes_max", total + len(data), self._limits.room_files_bytes_max)
        if not self.store.append(upload.number, upload.chunks, data, self._context.now_ms()):
            raise NoSuchFile("the upload took too long, or the room was emptied; send the file again")
        upload.chunks += 1
        upload.bytes += len(data)

    def finish(self, upload: FileUpload) -> StoredFile:
        """The file is whole. One with the same type and content that the room has already takes its place."""
        file = self.store.finish(upload.number, upload.hash.file_id, self._context.now_ms())
        if file.number != upload.number:
            self.tidy()
        return file

    def give_up(self, upload: FileUpload) -> None:
        """The rest of the file will not come."""
        self.store.drop(upload.number)
        self.tidy()

    # --- messages

    async def prepare_message(self, message: ChatMessage) -> ChatMessage:
        """The message with its large data URLs turned into files of the room, piece by piece and beside the loop.

        For surfaces whose clients may send large ones, before `take_message`. Other events of the room run
        meanwhile. Raises what `take_message` does.
        """
        self._check_message(message)
        parts = []
        for part in message.parts:
            data_url = self._to_store(part)
            parts.append(part if data_url is None else await self._store_slowly(part, data_url))
        return _with_parts(message, parts)

    def take_message(self, message: ChatMessage) -> ChatMessage:
        """A client's message as it is kept: what is too large in it became files, and its files are kept with it.

        Raises:
            LimitExceeded: ``message_parts_max``, ``message_extra_bytes_max``, ``files_per_message_max``, and those
                of `check`.
            UnsupportedFile: a file of a type that the room does not take.
            NoSuchFile: the address of a file that this room does not have (any more).
            RemoteProtocolError: a file part without an address that others can load.
        """
        self._check_message(message)
        parts = [self._take_part(part, message.id) for part in message.parts]
        return _with_parts(message, parts)

    def keep(self, message: ChatMessage) -> None:
        """Keep the files of this room that a message holds as long as the message; nothing is checked."""
        for part in message.parts:
            url = part.get("url")
            file_id = self.id_of(url) if isinstance(url, str) else None
            if file_id is not None:
                self.store.use(file_id, message.id)

    def take_chunk(self, chunk: File, answer_id: str) -> File:
        """A model's file: a large one is stored, and its address takes the place of the content.

        Raises:
            ModelError: the room has no place for it.
            RemoteProtocolError: its data URL is none.
        """
        if not self._is_large(chunk.url):
            return chunk
        data_url = parse_data_url(chunk.url)
        media_type = parse_media_type(chunk.media_type)
        try:
            self._check_room(data_url.size)
            file = self._store(media_type, None, data_url.decode())
        except LimitExceeded as error:
            raise ModelError(f"the model's file cannot be kept: {error}") from error
        self.store.use(file.id, answer_id)
        return File(self.url(file.id), media_type, chunk.provider_metadata)

    def _check_message(self, message: ChatMessage) -> None:
        limits = self._limits
        _check("message_parts_max", len(message.parts), limits.message_parts_max)
        files = sum(part.get("type") == "file" for part in message.parts)
        _check("files_per_message_max", files, limits.files_per_message_max)
        extra = [message.metadata, *(_without_content(part) for part in message.parts)]
        _check("message_extra_bytes_max", len(encode_json(extra)), limits.message_extra_bytes_max)

    def _take_part(self, part: Part, message_id: str) -> Part:
        if part.get("type") != "file":
            return part
        data_url = self._to_store(part)
        if data_url is not None:
            _check("file_bytes_max", data_url.size, self._limits.file_bytes_max)
            data = data_url.decode()
            media_type = self.check(_type_of(part, data_url), _name_of(part), data[:START_BYTES], len(data))
            part = self._part_of(part, self._store(media_type, _name_of(part), data))
        url = part["url"]
        if is_data_url(url):
            small = parse_data_url(url)
            kind = self._check_kind(_type_of(part, small), _name_of(part), small.decode()[:START_BYTES])
            return {**part, "mediaType": kind}
        file_id = self.id_of(url)
        if file_id is None:
            return self._elsewhere(part)
        file = self.find(file_id)
        self.store.use(file_id, message_id)
        return {**part, "mediaType": file.media_type}

    def _elsewhere(self, part: Part) -> Part:
        """A file of another site: its address is passed on."""
        if part["url"].partition(":")[0].lower() not in ("http", "https"):
            raise RemoteProtocolError("the `url` of a file part is a web address, a data URL, or a file of this room")
        kind = part.get("mediaType")
        if not isinstance(kind, str):
            raise RemoteProtocolError("a file part has a `mediaType`")
        if not type_allowed(kind.lower(), self._types):
            raise UnsupportedFile(f"this room takes no files of type {kind[:80]}; it takes {', '.join(self._types)}")
        return part

    def _to_store(self, part: Part) -> DataUrl | None:
        """The data URL of a part that is to become a file."""
        if part.get("type") != "file":
            return None
        url = part.get("url")
        if not isinstance(url, str):
            raise RemoteProtocolError("a file part has a `url`")
        return parse_data_url(url) if self._is_large(url) else None

    def _is_large(self, url: str) -> bool:
        return is_data_url(url) and len(url) > self._limits.inline_file_bytes_max

    def _part_of(self, part: Part, file: StoredFile) -> Part:
        return {**part, "mediaType": file.media_type, "url": self.url(file.id)}

    def _store(self, media_type: str, filename: str | None, data: bytes) -> StoredFile:
        """Store a file at once. Takes some ten milliseconds for the largest."""
        id_of_all = FileHash(media_type)
        id_of_all.update(data)
        known = self.store.find(id_of_all.file_id)
        if known is not None:
            self.store.touch(known, self._context.now_ms())
            return known
        upload = self.begin(media_type, filename)
        upload.hash = id_of_all
        for start in range(0, len(data), FILE_CHUNK_BYTES):
            self.append(upload, data[start : start + FILE_CHUNK_BYTES])
        return self.finish(upload)

    async def _store_slowly(self, part: Part, data_url: DataUrl) -> Part:
        _check("file_bytes_max", data_url.size, self._limits.file_bytes_max)
        filename = _name_of(part)
        pieces = data_url.pieces(FILE_CHUNK_BYTES)
        data = next(pieces, b"")
        media_type = self.check(_type_of(part, data_url), filename, data[:START_BYTES], data_url.size)
        upload = self.begin(media_type, filename)
        try:
            while data:
                upload.hash.update(data)
                self.append(upload, data)
                await self._context.storage.sync()
                data = next(pieces, b"")
            return self._part_of(part, self.finish(upload))
        except PerdureError:
            self.give_up(upload)
            raise

    # --- removing

    def tidy(self) -> None:
        """Remove, in the background, the files that no message holds and that nobody has sent for a day."""
        now_ms = self._context.now_ms()
        self.store.drop_old(now_ms - UNUSED_FILE_KEEP_MS, now_ms)
        self._remove_dropped()

    def on_removed(self) -> None:
        """Messages were removed for good: so are the files that only they held."""
        self.store.drop_released()
        self._remove_dropped()

    def _remove_dropped(self) -> None:
        if self.store.has_dropped and not self._removing:
            self._removing = True
            self._context.background(self._remove(), "remove files")

    async def _remove(self) -> None:
        try:
            for _ in self.store.remove():
                await asyncio.sleep(0)
        finally:
            self._removing = False


def _with_parts(message: ChatMessage, parts: list[Part]) -> ChatMessage:
    if all(one is other for one, other in zip(parts, message.parts, strict=True)):
        return message
    return ChatMessage(message.id, message.role, parts, message.metadata)


def _without_content(part: Part) -> Part:
    """A part without what other limits bound: text, and a file's content."""
    if part.get("type") == "text":
        return {name: value for name, value in part.items() if name != "text"}
    url = part.get("url")
    if part.get("type") == "file" and isinstance(url, str) and is_data_url(url):
        return {name: value for name, value in part.items() if name != "url"}
    return part


def _type_of(part: Part, data_url: DataUrl) -> str:
    """What the sender says that a file is: the part's word, unless it is a family only."""
    given = part.get("mediaType")
    return data_url.media_type if not isinstance(given, str) or "*" in given else given


def _name_of(part: Part) -> str | None:
    given = part.get("filename")
    return base_name(given) or None if isinstance(given, str) else None


def _check(limit: str, size: int, maximum: int) -> None:
    if size > maximum:
        raise LimitExceeded(limit, size, maximum)
