"""Links lead somewhere."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

import pytest
from tests.docs.pages import PAGES, REPOSITORY, anchors, links, title


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there and, where it names a place in it, a heading."""
    broken = []
    for link in links(page):
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or REPOSITORY not in target.parents:
            broken.append(link)
        elif anchor and anchor not in anchors(target):
            broken.append(link)
    assert broken == []


def test_every_page_is_in_the_index() -> None:
    """docs/README.md leads to each page of the folder."""
    folder = REPOSITORY / "docs"
    listed = {(folder / link).resolve() for link in links(folder / "README.md")}
    assert [title(page) for page in PAGES if folder in page.parents and page not in listed] == ["docs/README.md"]
