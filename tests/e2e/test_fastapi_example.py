"""`examples/fastapi` in a real browser: its sign-in, its route, a refund that only a manager lets go."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page
from tests.e2e.conftest import run_served
from tests.e2e.examples import EXAMPLES, WITHIN_MS, picture, serve
from tests.e2e.served import Served

pytest.importorskip("fastapi", reason="`pip install fastapi`")

SignIn = Callable[[str, str], Page]

WAITING = ".assistant[data-status=waiting]"
COMPLETE = ".assistant[data-status=complete]"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The example, under uvicorn."""
    yield from run_served(serve(EXAMPLES / "fastapi", tmp_path_factory.mktemp("fastapi")))


@pytest.fixture
def sign_in(browser: Browser, server: Served) -> Iterator[SignIn]:
    """Signs somebody in, in a browser of their own."""
    contexts = []

    def opener(name: str, password: str) -> Page:
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}))
        page = contexts[-1].new_page()
        page.set_default_timeout(WITHIN_MS)
        page.goto(server.url)
        page.get_by_label("Name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        return page

    yield opener
    for context in contexts:
        context.close()


def test_who_does_not_know_the_password_stays_outside(sign_in: SignIn, server: Served) -> None:
    """On the application's own page, with a word about it; neither the room nor its APIs let them in."""
    page = sign_in("ada", "babbage")
    assert page.get_by_role("alert").inner_text() == "Name or password is wrong."
    picture(page, "fastapi-sign-in")
    for path in ("/chat/office", "/api/chat/office/messages", "/v1/stream/rooms/office/session"):
        with server.open(path) as response:
            assert response.status == 401
    with server.open("/orders/5/returned", {}) as response:
        assert response.status == 401
    with server.open("/rpc/Sessions/all/begin", ["grace"]) as response:
        assert response.status == 401


def test_a_manager_lets_a_refund_go(sign_in: SignIn, server: Served) -> None:
    """A route asks for it in Ada's name, Ada may not approve it; after a restart both are signed in, Grace may."""
    ada, grace = sign_in("ada", "lovelace"), sign_in("grace", "hopper")
    for page in (ada, grace):
        page.wait_for_selector("#app[data-connection=online]")
    assert ada.evaluate("async () => (await fetch('/orders/17/returned', { method: 'POST' })).status") == 200
    assert ada.evaluate("async () => (await fetch('/rpc/Sessions/all/begin', { method: 'POST' })).status") == 403
    for page in (ada, grace):
        page.wait_for_selector(WAITING)
    picture(grace, "fastapi-approval")
    ada.click(".approve:visible")
    server.restart_after_kill()
    for page in (ada, grace):
        page.reload()
        page.wait_for_selector("#app[data-connection=online]")
        assert page.inner_text(".tool-state") == "Needs approval"
    assert "ada" in grace.inner_text(".user")
    grace.click(".approve:visible")
    for page in (ada, grace):
        page.wait_for_selector(COMPLETE)
        assert "Order 17 is refunded." in page.inner_text(COMPLETE)
    picture(grace, "fastapi-approved")


def test_signing_out(sign_in: SignIn, server: Served) -> None:
    """The cookie is worth nothing from then on."""
    page = sign_in("ada", "lovelace")
    page.wait_for_selector("#app[data-connection=online]")
    page.evaluate("async () => fetch('/sign-out', { method: 'POST' })")
    page.goto(server.url)
    page.get_by_role("button", name="Sign in").wait_for()
