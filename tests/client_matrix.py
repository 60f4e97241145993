"""Which client can do what, as the tests show: `shows` marks a test, this file draws the table from the marks.

    python -m tests.client_matrix          prints the table
    python -m tests.client_matrix --write  puts it into docs/reference/clients.md

Marks are read from the source, so the table is the same whatever this machine can run; CI runs every test.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar, get_args

Client = Literal[
    "useChat",
    "useChat, WebSocket",
    "useChat, Durable Streams",
    "TanStack AI",
    "TanStack AI, session",
    "Cloudflare Agents",
    "PartySocket",
    "plain WebSocket",
    "Helix style",
    "Python",
    "page",
]
"""Families of clients; each test uses the real package, in its pinned and its newest version where there are two."""

Feature = Literal[
    "send",
    "resume",
    "crash",
    "families",
    "stop",
    "tool",
    "client tool",
    "approval",
    "regenerate",
    "error",
    "history",
]

TOLD: dict[Feature, str] = {
    "send": "a message is sent, its answer streams",
    "resume": "the line is cut anywhere, or the page loaded again: each word is there once",
    "crash": "the server is killed amid an answer",
    "families": "a client of another family in the same room shows the same",
    "stop": "the running answer is stopped, from any client",
    "tool": "a tool's call and its result are shown",
    "client tool": "the client gives the result of a call",
    "approval": "a call is approved after a restart of the server",
    "regenerate": "an answer is made again",
    "error": "a failed answer says why",
    "history": "what was said is there after a reload",
}

ROOT = Path(__file__).parent
PAGE = ROOT.parent / "docs" / "reference" / "clients.md"
BEGIN, END = "<!-- made by `python -m tests.client_matrix --write` -->\n", "<!-- end -->\n"

Test = TypeVar("Test", bound=Callable[..., object])


def shows(client: Client, *features: Feature) -> Callable[[Test], Test]:
    """The test shows that these work with this client."""
    assert client in get_args(Client)
    assert set(features) <= set(TOLD)
    return lambda test: test


class Shown(NamedTuple):
    """One mark."""

    client: str
    feature: str
    test: str


def marks() -> Iterator[Shown]:
    """Every mark in the tests."""
    for path in sorted(ROOT.rglob("test_*.py")):
        if "node_modules" in path.parts:
            continue
        source = path.read_text()
        if "shows(" in source:
            yield from _marks_in(path, ast.parse(source))


def _marks_in(path: Path, module: ast.Module) -> Iterator[Shown]:
    for node in module.body:
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        for decorator in node.decorator_list:
            if (
                isinstance(decorator, ast.Call)
                and isinstance(decorator.func, ast.Name)
                and decorator.func.id == "shows"
            ):
                client, *features = (ast.literal_eval(argument) for argument in decorator.args)
                for feature in features:
                    yield Shown(client, feature, f"{path.relative_to(ROOT.parent)}::{node.name}")


def table() -> str:
    """The table, a row for each family."""
    found = {(shown.client, shown.feature) for shown in marks()}
    rows = [["", *TOLD], ["---", *[":-:"] * len(TOLD)]]
    rows += [
        [client, *("✓" if (client, feature) in found else "" for feature in TOLD)] for client in get_args(Client)
    ]
    drawn = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    meanings = "\n".join(f"- **{feature}**: {told}" for feature, told in TOLD.items())
    return f"{drawn}\n\n{meanings}\n"


def main() -> None:
    """Print the table, or write it."""
    if "--write" not in sys.argv:
        print(table())
        return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{after}")


if __name__ == "__main__":
    main()
