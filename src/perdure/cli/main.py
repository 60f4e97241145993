"""All commands under one name."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ..errors import PerdureError
from .chat import chat
from .demo import demo
from .exits import Exit, exit_code
from .export import export
from .inspect import inspect
from .repair import repair
from .rooms import rooms
from .run import run
from .streams import streams

commands = typer.Typer(
    name="perdure",
    help="Durable objects for reliable AI chat.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=(
        "Exit codes: 0 done, 1 failed, 2 wrong usage or setting, 3 data folder in use, "
        "4 address in use, 5 damaged data, 130 interrupted."
    ),
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from .. import __version__

        typer.echo(f"perdure {__version__}")
        raise typer.Exit


@commands.callback()
def perdure(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Durable objects for reliable AI chat."""


for _command in (run, demo, chat, rooms, inspect, export, repair):
    commands.command()(_command)
commands.add_typer(streams, name="streams")


def main() -> None:
    """Run the command line; never returns."""
    try:
        commands()
    except PerdureError as error:
        print(f"perdure: {error}", file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        sys.exit(Exit.INTERRUPTED)
