"""`perdure streams`: list, read, follow, write and remove the streams of a running server."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..wire.durable_streams import is_json
from .chat import SERVER
from .folder import AsJson, print_json

if TYPE_CHECKING:
    from ..streams_client import Batch, StreamClient

START, NOW = "-1", "now"

RETRY_FOR_S = 10
"""How long a command tries to reach the server."""

streams = typer.Typer(
    help="List, read, follow, write and remove Durable Streams of a running server.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Server = Annotated[str, typer.Option("--server", envvar="PERDURE_SERVER", help="The server's address.")]
Token = Annotated[
    str | None, typer.Option("--token", envvar="PERDURE_TOKEN", help="Sent as `Authorization: Bearer ...`.")
]
Path = Annotated[str, typer.Argument(metavar="PATH|URL", help="The stream's path, or its whole address.")]


@streams.command("ls")
def list_streams(
    prefix: Annotated[str, typer.Argument(help="Only streams whose path begins so.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 100,
    server: Server = SERVER,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """List the streams of a server, in order of their paths."""
    found = list(_listed(server, token, prefix, limit))
    if as_json:
        print_json(found)
        return
    table = Table("path", "type", "end", "bytes", "readers", "", box=None, header_style="bold")
    for item in found:
        size = f"{item['bytes']:,}"
        state = "closed" if item["closed"] else ""
        table.add_row(
            Text(item["path"]), item["content_type"], item["next_offset"], size, str(item["readers"]), state
        )
    Console().print(table if found else "No streams.")


@streams.command("read")
def read(
    path: Path,
    offset: Annotated[str, typer.Option(help="Where to begin; -1 is the start.")] = START,
    server: Server = SERVER,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Print what a stream holds: messages a line each, bytes as they are."""
    with _client(server, token) as client, client.stream(path).follow(offset, live=False) as follow:
        for batch in follow:
            _print(batch, as_json)


@streams.command("tail")
def tail(
    path: Path,
    offset: Annotated[str, typer.Option(help="Where to begin; now is the end.")] = NOW,
    server: Server = SERVER,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Print what is appended to a stream from now on, until it ends or Ctrl-C."""
    with _client(server, token) as client, client.stream(path).follow(offset) as follow:
        for batch in follow:
            _print(batch, as_json)


@streams.command("append")
def append(
    path: Path,
    data: Annotated[list[str] | None, typer.Argument(help="What to append, each by itself; else the input.")] = None,
    create: Annotated[str | None, typer.Option(metavar="TYPE", help="Make it if need be, of this type.")] = None,
    close: Annotated[bool, typer.Option("--close", help="End the stream with it.")] = False,
    server: Server = SERVER,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Append to a stream; print where it ends now. For a JSON stream each argument is a JSON value.

    From a pipe a JSON stream takes a message a line, others take the whole input.
    """
    with _client(server, token) as client:
        stream = client.stream(path)
        if create is not None:
            stream.create(content_type=create)
        kind = stream.content_type or stream.head().content_type
        items = _items(data, kind)
        if not items and not close:
            raise ConfigError("there is nothing to append; give it as arguments or in a pipe")
        end = stream.close(*items) if close else stream.append_all(items)
    print_json({"path": path, "next_offset": end, "closed": close}) if as_json else print(end)


@streams.command("rm")
def remove(paths: list[str], server: Server = SERVER, token: Token = None, as_json: AsJson = False) -> None:
    """Delete streams."""
    with _client(server, token) as client:
        for path in paths:
            client.stream(path).delete()
    if as_json:
        print_json({"deleted": paths})


def _client(server: str, token: str | None) -> StreamClient:
    # The HTTP client takes a fifth of a second to load, which no other command needs.
    from ..streams_client import StreamClient

    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    return StreamClient(_root(server), headers=headers, retry_for_s=RETRY_FOR_S)


def _root(server: str) -> str:
    if "://" not in server:
        raise ConfigError(f"{server!r} is no server's address, like {SERVER}")
    return f"{server.rstrip('/')}/v1/stream"


def _listed(server: str, token: str | None, prefix: str, limit: int) -> Iterator[dict[str, Any]]:
    import httpx2

    from ..streams_client import StreamRefused, StreamUnreachable

    headers = {} if token is None else {"authorization": f"Bearer {token}"}
    after = ""
    try:
        with httpx2.Client(headers=headers, timeout=RETRY_FOR_S) as client:
            while limit > 0:
                asked = {"prefix": prefix, "after": after, "limit": str(min(limit, 1_000))}
                response = client.get(f"{_root(server)}/__ds/streams", params=asked)
                if not response.is_success:
                    raise StreamRefused(f"{server} answered {response.status_code}: {response.text[:300]}")
                page = response.json()
                yield from page["streams"]
                limit -= len(page["streams"])
                after = page.get("after", "")
                if not after:
                    return
    except httpx2.HTTPError as error:
        raise StreamUnreachable(f"{server} cannot be reached ({error}); is it running?") from error


def _items(data: list[str] | None, kind: str) -> list[Any]:
    if data:
        return [item.encode() for item in data]
    if sys.stdin.isatty():
        return []
    given = sys.stdin.buffer.read()
    if is_json(kind):
        return [line for line in given.splitlines() if line.strip()]
    return [given] if given else []


def _print(batch: Batch, as_json: bool) -> None:
    json = is_json(batch.content_type)
    if as_json:
        shown = batch.messages if json else batch.data.decode("utf-8", "replace")
        print(msgspec.json.encode({"offset": batch.offset, "closed": batch.closed, "data": shown}).decode())
    elif json:
        for message in batch.messages:
            print(msgspec.json.encode(message).decode())
    else:
        sys.stdout.buffer.write(batch.data)
    sys.stdout.flush()
