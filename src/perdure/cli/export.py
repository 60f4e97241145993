"""`perdure export`: a room as a file of its own."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from ..chat.archive import read_conversation
from ..errors import ConfigError
from ..storage.paths import object_slug
from ..storage.snapshot import ObjectCopy
from .folder import AsJson, DataFolder, Room, copied, open_folder

Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="The file to write; `-` is standard output. Default: named after the room."),
]


def export(room: Room, output: Output = None, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Copy a room into a SQLite file of its own, or with --json its conversation.

    All that is durable at this moment is in it. A server may be running on the data folder; nothing
    in the folder is touched.
    """
    if as_json:
        with copied(data, room) as copy:
            _write(msgspec.json.format(msgspec.json.encode(_conversation(copy)), indent=2) + b"\n", output)
        return
    reader = open_folder(data)
    object_id = reader.find(room)
    target = output or Path(f"{object_slug(object_id)}.sqlite")
    if str(target) == "-":
        with copied(data, room) as copy:
            _write(copy.path.read_bytes(), target)
        return
    _refuse_to_replace(target)
    # A whole file or none: it gets its name when it is finished.
    with tempfile.TemporaryDirectory(prefix=".perdure-", dir=_folder_of(target)) as folder:
        reader.copy(object_id, Path(folder) / "object.sqlite").path.rename(target)
    typer.echo(f"{object_id.key} is in {target}", err=True)


def _conversation(copy: ObjectCopy) -> dict[str, object]:
    return {
        "class": copy.object_id.class_name,
        "name": copy.object_id.name,
        "createdMs": copy.created_ms,
        "activeMs": copy.active_ms,
        "messages": read_conversation(copy.path),
    }


def _write(data: bytes, output: Path | None) -> None:
    if output is None or str(output) == "-":
        sys.stdout.buffer.write(data)
        return
    _refuse_to_replace(output)
    _folder_of(output)
    output.write_bytes(data)


def _refuse_to_replace(target: Path) -> None:
    if target.exists():
        raise ConfigError(f"{target} exists already; choose another name with -o")


def _folder_of(target: Path) -> Path:
    folder = target.parent
    if not folder.is_dir():
        raise ConfigError(f"there is no folder {folder} to write {target.name} into")
    return folder
