"""The reference server of Durable Streams, npm's ``@durable-streams/server``: where it is and how it starts."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

KINDS = ("node_file", "node_memory")
"""The two ways in which it is measured: with its streams on disk, each append synced; and in memory."""

PACKAGE = "@durable-streams/server"
NPM_FOLDER = Path(__file__).parent.parent / "tests" / "npm"
"""The folder with the ``node_modules`` that the tests use, too."""

SCRIPT = Path(__file__).with_name("reference_server.mjs")


class NotInstalled(Exception):
    """The reference server cannot be started; the text says how to get it."""


def require(npm_folder: Path) -> None:
    """Raises NotInstalled where there is no Node, or no such package in ``npm_folder``."""
    if shutil.which("node") is None:
        raise NotInstalled("the reference server needs Node 20 or newer: `node` is not on the path")
    if not package_json(npm_folder).exists():
        raise NotInstalled(
            f"{PACKAGE} is not in {npm_folder / 'node_modules'}; get it with "
            f"`npm install --prefix {npm_folder}`, or say with --npm where it is"
        )


def command(kind: str, port: int, data: str, npm_folder: Path) -> list[str]:
    """The command line of ``node_file`` or ``node_memory``."""
    line = ["node", str(SCRIPT), "--npm", str(npm_folder), "--port", str(port)]
    return [*line, "--data", data] if kind == "node_file" else line


def package_json(npm_folder: Path) -> Path:
    return npm_folder / "node_modules" / PACKAGE / "package.json"


def describe(npm_folder: Path) -> str:
    """The versions, as text."""
    version = json.loads(package_json(npm_folder).read_text())["version"]
    node = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return f"{PACKAGE} {version} on Node {node}; node_file keeps its streams on disk, node_memory in memory"
