"""`perdure repair`: find damage, and move it aside."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from ..errors import ConfigError
from ..server.config import data_folder
from ..storage.repair import Damage, examine, quarantine_object, quarantine_record
from ..values import ObjectId
from .exits import Exit
from .folder import AsJson, DataFolder, print_json

DropRecord = Annotated[
    int | None, typer.Option("--drop-record", metavar="N", help="Move this journal record to the quarantine.")
]
Quarantine = Annotated[
    str | None,
    typer.Option("--quarantine", metavar="CLASS/NAME", help="Move this object with its records to the quarantine."),
]


def repair(
    data: DataFolder = None,
    drop_record: DropRecord = None,
    quarantine: Quarantine = None,
    as_json: AsJson = False,
) -> None:
    """Say what is damaged in a data folder (exit code 5 when something is); stop the server before.

    By itself it changes nothing. --quarantine moves one object, with its file and its journal records,
    into the folder's quarantine/: all else works again, and the name is free. --drop-record moves a single
    record there, when the object is worth more without that write than not at all. Nothing is ever
    deleted. Copy the data folder before you use either.
    """
    folder = data_folder(data)
    if drop_record is not None and quarantine is not None:
        raise ConfigError("one at a time: --drop-record or --quarantine")
    if quarantine is not None:
        object_id = ObjectId.from_key(quarantine)
        if not object_id.name:
            raise ConfigError(f"name the object as Class/name, not {quarantine!r}")
        typer.echo(f"{quarantine} is in {quarantine_object(folder, object_id)}")
        return
    if drop_record is not None:
        typer.echo(f"record {drop_record} is in {quarantine_record(folder, drop_record)}")
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Reading every object", total=None)
        found = examine(folder, lambda done, total: progress.update(task, completed=done, total=total))
    if as_json:
        print_json([damage._asdict() for damage in found])
    else:
        _print(found)
    raise typer.Exit(Exit.DAMAGED if found else Exit.DONE)


def _print(found: list[Damage]) -> None:
    for damage in found:
        typer.echo(f"{damage.where}: {damage.what}")
        typer.echo(f"    {_advice(damage)}")
    if not found:
        typer.echo("Nothing is damaged.")


def _advice(damage: Damage) -> str:
    if damage.object_key is None:
        return "This concerns the whole folder: restore it from a copy."
    quarantine = f"`perdure repair --quarantine '{damage.object_key}'` moves the object aside"
    if damage.sequence is None:
        return f"{quarantine}."
    return f"`perdure repair --drop-record {damage.sequence}` moves this write aside, {quarantine}."
