"""A conversation read from a copy of its room."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ..errors import ConfigError, StorageError
from ..storage.database import Database
from ..storage.files import Files
from ..storage.object_storage import Storage
from ..streams.streams import Streams
from ..wire.fold import MessageFold
from ..wire.ui_chunks import decode_chunk
from .transcript import StoredMessage, Transcript


def read_conversation(path: Path) -> list[dict[str, Any]]:
    """The messages of the room in ``path`` (a file of its own, see `FolderReader.copy`), oldest first.

    Each is a UIMessage (``id``, ``role``, ``parts``, ``metadata``) with ``createdMs`` and ``status``, and
    for answers ``answers`` and ``error``. An answer that was being made has what was said of it.

    Raises:
        ConfigError: the object is no chat room.
    """
    database = Database(path, Files())
    try:
        if not database.execute("SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'messages'"):
            raise ConfigError("this object is no chat room; export it without --json")
        storage = Storage(database, on_dirty=_never, on_broken=_ignore, sync_all=_never_async)
        transcript, streams = Transcript(storage), Streams(storage)
        return [_as_json(stored, streams) for stored in transcript.after(-1)]
    finally:
        database.close()


def _as_json(stored: StoredMessage, streams: Streams) -> dict[str, Any]:
    message = stored.message
    stream = streams.find(stored.stream_name) if stored.status == "streaming" else None
    if stream is not None:
        fold = MessageFold(stored.id, message=stored.message)
        for entry in stream.entries():
            fold.push(decode_chunk(entry))
        message = fold.message()
    shown: dict[str, Any] = msgspec.to_builtins(message)
    shown |= {"createdMs": stored.created_ms, "status": stored.status}
    for name in ("answers", "error"):
        if (value := getattr(stored, name)) is not None:
            shown[name] = value
    return shown


def _never() -> None:
    raise AssertionError("an archive is only read")


async def _never_async() -> None:
    _never()


def _ignore(_error: StorageError) -> None:
    """The error is raised to the reader."""
