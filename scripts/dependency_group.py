"""Print the requirements of a dependency group of pyproject.toml, one a line, included groups resolved."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"


def requirements(groups: dict[str, list[Any]], name: str) -> Iterator[str]:
    """The requirements of group ``name``."""
    for item in groups[name]:
        if isinstance(item, str):
            yield item
        else:
            yield from requirements(groups, item["include-group"])


if __name__ == "__main__":
    groups = tomllib.loads(PYPROJECT.read_text())["dependency-groups"]
    print("\n".join(requirements(groups, sys.argv[1])))
