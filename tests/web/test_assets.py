"""Static files are found by name only and are addressed by their content."""

from __future__ import annotations

import re

import pytest

from perdure.web.assets import asset_url, find_asset


@pytest.mark.parametrize("name", ["", "../pages.py", "..%2fpages.py", "/etc/passwd", "chat.js/", "CHAT.JS"])
def test_only_listed_names_are_files(name: str) -> None:
    """No path leads out of the folder."""
    assert find_asset(name) is None


def test_an_address_carries_the_hash_of_the_content() -> None:
    """A new release is a new address."""
    assert re.fullmatch(r"/below/_perdure/static/chat\.js\?v=[0-9a-f]{16}", asset_url("chat.js", "/below"))


def test_an_unknown_file_has_no_address() -> None:
    """A template that names one is a bug that shows at once."""
    with pytest.raises(ValueError, match=r"nope\.js"):
        asset_url("nope.js")


def test_the_right_version_is_kept_and_any_other_is_checked_again() -> None:
    """Browsers never run an old script against a new page."""
    asset = find_asset("page.css")
    assert asset is not None
    assert asset.headers(asset.version)["cache-control"] == "public, max-age=31536000, immutable"
    assert asset.headers("0123456789abcdef")["cache-control"] == "no-cache"
    assert asset.headers(None)["content-type"] == "text/css; charset=utf-8"
