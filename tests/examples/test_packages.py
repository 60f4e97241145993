"""What the examples' front ends install is what they are tested with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FRONT_ENDS = sorted((ROOT / "examples").glob("*/package.json"))


def installed_ranges() -> set[tuple[str, str]]:
    """Each npm package of the tests with its range; one that goes by another name there, by its own."""
    ranges = set()
    for name, wanted in json.loads((ROOT / "tests/npm/package.json").read_text())["dependencies"].items():
        real, _, range_of_it = wanted.removeprefix("npm:").rpartition("@")
        ranges.add((real, range_of_it) if wanted.startswith("npm:") else (name, wanted))
    return ranges


@pytest.mark.parametrize("package", FRONT_ENDS, ids=lambda path: path.parent.name)
def test_the_packages_are_those_that_are_tested(package: Path) -> None:
    """Every range stands in ``tests/npm/package.json``, too."""
    asked = json.loads(package.read_text())
    ranges = {*asked["dependencies"].items(), *asked["devDependencies"].items()}
    assert len(ranges) > 4
    assert ranges - installed_ranges() == set()


def test_the_pages_are_copied_whole() -> None:
    """Each stands alone, for people copy folders; what two pages share is the same, word for word."""
    assert len(FRONT_ENDS) >= 3
    composers = {(path.parent / "src/Chat.tsx").read_text().partition("type ComposerProps")[2] for path in FRONT_ENDS}
    configurations = {(path.parent / "vite.config.js").read_text() for path in FRONT_ENDS}
    assert (len(composers), len(configurations)) == (1, 1)
