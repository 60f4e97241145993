"""The chat page as something to read: long histories, small screens, dark rooms, no scripts."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

import pytest
from tests.e2e.conftest import OpenTab
from tests.e2e.served import Served

RoomOf = Callable[[str], str]

DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


class _Messages(HTMLParser):
    """The ids of the messages in a page's HTML, as the server sent it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        identity = dict(attrs).get("data-id")
        if tag == "article" and identity:
            self.ids.append(identity)


def _html(server: Served, path: str) -> str:
    with server.open(path) as response:
        assert response.status == 200
        return response.read().decode()


def _ids(first: int, last: int) -> list[str]:
    return [f"m{number}" for number in range(first, last + 1)]


def test_a_long_history_is_in_the_html(server: Served, room_of: RoomOf) -> None:
    """Without a script: the newest of 1,000 messages, rendered, and a link to those before."""
    room = room_of("echo")
    server.call(room, "fill", 1_000)
    newest = _html(server, f"/chat/{room}")
    assert _Messages(newest).ids == _ids(801, 1_000)
    assert "<p>Answer <strong>1000</strong></p>" in newest
    assert f'href="/chat/{room}?before=m801"' in newest
    assert _Messages(_html(server, f"/chat/{room}?before=m801")).ids == _ids(601, 800)
    assert _Messages(_html(server, f"/chat/{room}?limit=1000")).ids == _ids(1, 1_000)


def test_older_messages_load_when_one_scrolls_up(open_tab: OpenTab, server: Served, room_of: RoomOf) -> None:
    """Each once, in order, until there are no more; then a new message is answered as ever."""
    room = room_of("echo")
    server.call(room, "fill", 300)
    tab = open_tab(room)
    page = tab.page
    shown = "[...document.querySelectorAll('#log > article')].map((each) => each.dataset.id)"
    assert page.evaluate(shown) == _ids(101, 300)
    page.hover("#scroller")
    page.wait_for_function(
        """() => { scroller.scrollTop = -scroller.scrollHeight;
                   return document.querySelectorAll('#log > article').length === 300; }""",
        polling=50,
    )
    assert page.evaluate(shown) == _ids(1, 300)
    assert page.is_hidden("#older")
    tab.say("Hello")
    page.wait_for_selector(".body:has-text('You said: Hello')")
    assert page.evaluate("scroller.scrollTop") == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("device", "size"), [("desktop", DESKTOP), ("phone", PHONE)])
def test_nothing_is_wider_than_the_screen(
    open_tab: OpenTab, server: Served, room_of: RoomOf, device: str, size: dict[str, int], scheme: str
) -> None:
    """Neither page scrolls sideways, with code, tables, long words and long names of rooms."""
    tab = open_tab(room_of("code"), name="Ada Lovelace")
    page = tab.page
    page.set_viewport_size({"width": size["width"], "height": size["height"]})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    tab.say("Which one? " + "Donaudampfschifffahrtsgesellschaft" * 4)
    page.wait_for_selector(".code code:has-text('yield')")
    tab.picture(f"{device}-{scheme}-streaming")
    tab.wait_settled()
    page.wait_for_selector(".code .hl-k")
    tab.picture(f"{device}-{scheme}-settled")
    assert _sideways(page.evaluate("[innerWidth, document.documentElement.scrollWidth, scroller.scrollWidth]"))
    page.goto(f"{server.url}/")
    tab.picture(f"{device}-{scheme}-index")
    assert _sideways(page.evaluate("[innerWidth, document.documentElement.scrollWidth]"))


def _sideways(widths: list[int]) -> bool:
    return max(widths) == widths[0]
