"""A real browser for what only a browser can show."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright
from tests.requirements import need

from perdure.web.assets import find_asset
from perdure.web.markdown import render_markdown
from perdure.web.pages import render_error

ORIGIN = "http://page.test"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. For one module only: while it runs, ``asyncio.run`` cannot be used beside it."""
    executable = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    need("Chromium", executable is not None, "apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(QUIET))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session", autouse=True)
def _loaded() -> None:
    """What the first page loads is there before tests render on a loop."""
    render_error(404, "", render_markdown("`x`"))


def serve_static(route: Route) -> None:
    """Answers from the package's own files; nothing else exists."""
    name = route.request.url.partition("?")[0].rpartition("/")[2]
    asset = find_asset(name)
    if asset is not None:
        route.fulfill(body=asset.body, headers=asset.headers(None))
    elif name == "":
        route.fulfill(body="<!doctype html><body>", content_type="text/html")
    else:
        route.fulfill(status=404, body="")


@pytest.fixture(scope="module")
def blank_page(browser: Browser) -> Iterator[Page]:
    """An empty page of an origin that has the static files. Tests leave nothing in it."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/*", serve_static)
    page.goto(ORIGIN + "/")
    yield page
    context.close()
