"""`perdure inspect`: what one object holds."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..storage.contents import Contents, read_contents
from ..storage.snapshot import ObjectCopy
from .folder import AsJson, DataFolder, Room, copied, print_json, shown_bytes, shown_time

STREAMS_SHOWN = 20
"""Streams in the table, the newest; JSON has all."""


def inspect(room: Room, data: DataFolder = None, as_json: AsJson = False) -> None:
    """Show an object's tables and streams, its alarm and its place in the journal.

    What is shown is durable. A server may be running on the data folder; nothing in it is touched.
    """
    with copied(data, room) as copy:
        contents = read_contents(copy.path)
    if as_json:
        print_json(_as_json(copy, contents))
    else:
        _print(copy, contents)


def _as_json(copy: ObjectCopy, contents: Contents) -> dict[str, object]:
    return {
        "class": copy.object_id.class_name,
        "name": copy.object_id.name,
        "createdMs": copy.created_ms,
        "activeMs": copy.active_ms,
        "alarmMs": copy.alarm_ms,
        "schema": contents.schema,
        "fileBytes": contents.file_bytes,
        "journal": {
            "first": copy.first_sequence,
            "last": copy.last_sequence,
            "records": copy.record_count,
            "bytes": copy.record_bytes,
        },
        "keys": contents.keys,
        "tables": [{"name": table.name, "rows": table.rows} for table in contents.tables],
        "streams": [
            {
                "name": stream.name,
                "contentType": stream.content_type,
                "position": stream.position,
                "first": stream.first,
                "bytes": stream.bytes,
                "closed": stream.closed,
                "createdMs": stream.created_ms,
            }
            for stream in contents.streams
        ],
    }


def _print(copy: ObjectCopy, contents: Contents) -> None:
    console = Console()
    console.print(Text(copy.object_id.key, style="bold"))
    facts = Table.grid(padding=(0, 2))
    alarm = "at the next start: work was under way" if copy.alarm_ms == 0 else shown_time(copy.alarm_ms)
    journal = "nothing: the file has everything"
    if copy.record_count:
        journal = (
            f"{copy.record_count} records, {shown_bytes(copy.record_bytes)}, "
            f"from {copy.first_sequence} to {copy.last_sequence}"
        )
    for name, value in (
        ("created", shown_time(copy.created_ms)),
        ("last active", shown_time(copy.active_ms)),
        ("alarm", alarm),
        ("size", shown_bytes(contents.file_bytes)),
        ("schema", str(contents.schema)),
        ("keys", str(contents.keys)),
        ("in the journal", journal),
    ):
        facts.add_row(Text(name, style="dim"), value)
    console.print(facts)
    tables = Table("table", "rows", box=None, header_style="bold")
    for table in contents.tables:
        tables.add_row(Text(table.name), f"{table.rows:,}")
    console.print("", tables)
    if not contents.streams:
        return
    streams = Table("stream", "entries", "bytes", "state", "created", box=None, header_style="bold")
    for stream in contents.streams[-STREAMS_SHOWN:]:
        streams.add_row(
            Text(stream.name),
            f"{stream.position - stream.first:,}",
            shown_bytes(stream.bytes),
            "closed" if stream.closed else f"open at {stream.position:,}",
            shown_time(stream.created_ms),
        )
    console.print("", streams)
    if (hidden := len(contents.streams) - STREAMS_SHOWN) > 0:
        console.print(f"and {hidden:,} older streams (--json has all)")
