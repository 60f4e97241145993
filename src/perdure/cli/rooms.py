"""`perdure rooms`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..stream_hosts.host import StreamHost
from ..stream_hosts.subscriptions import Subscriptions
from .folder import AsJson, DataFolder, open_folder, print_json, shown_time

INTERNAL_CLASSES = (StreamHost.__name__, Subscriptions.__name__)
"""Parts of the server, shown when they are asked for; their streams are listed by `perdure streams ls`."""


def rooms(
    data: DataFolder = None,
    class_name: Annotated[str | None, typer.Option("--class", help="Objects of this class only.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, those active last first.")] = 100,
    as_json: AsJson = False,
) -> None:
    """List the rooms (and other objects) of a data folder; a server may be running on it."""
    found = open_folder(data).objects(class_name, limit, without=() if class_name else INTERNAL_CLASSES)
    if as_json:
        print_json(
            [
                {
                    "class": item.object_id.class_name,
                    "name": item.object_id.name,
                    "createdMs": item.created_ms,
                    "activeMs": item.active_ms,
                }
                for item in found
            ]
        )
        return
    table = Table("name", "class", "last active", "created", box=None, header_style="bold")
    for item in found:
        name = Text(item.object_id.name)
        table.add_row(name, item.object_id.class_name, shown_time(item.active_ms), shown_time(item.created_ms))
    Console().print(table if found else "No rooms yet.")
