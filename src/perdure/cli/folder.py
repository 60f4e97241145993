"""What the commands that look into a data folder share."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from ..server.config import data_folder
from ..storage.snapshot import FolderReader, ObjectCopy

DataFolder = Annotated[Path | None, typer.Option("--data", help="Data folder. Default: PERDURE_DATA, else ./data.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Room = Annotated[str, typer.Argument(metavar="ROOM", help="A room's name, or Class/name.")]


def open_folder(data: Path | None) -> FolderReader:
    """The data folder to read; a server may be running on it."""
    return FolderReader(data_folder(data))


@contextmanager
def copied(data: Path | None, room: str) -> Iterator[ObjectCopy]:
    """A copy of the object in a temporary file."""
    reader = open_folder(data)
    object_id = reader.find(room)
    with tempfile.TemporaryDirectory(prefix="perdure-") as folder:
        yield reader.copy(object_id, Path(folder) / "object.sqlite")


def print_json(value: Any) -> None:
    """Indented JSON on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def shown_time(time_ms: int | None) -> str:
    """A time for people; JSON has the milliseconds."""
    if time_ms is None:
        return "none"
    return datetime.fromtimestamp(time_ms / 1000, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def shown_bytes(size: int) -> str:
    """A size for people; JSON has the bytes."""
    if size < 1024:
        return f"{size} B"
    return f"{size / 1024:.1f} KiB" if size < 1024**2 else f"{size / 1024**2:.1f} MiB"
