"""The chat page's script against literal frames of the room protocol."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocketRoute

from perdure.web.assets import find_asset
from perdure.web.pages import PAGE_HEADERS, render_chat, render_message, render_messages

ORIGIN = "http://page.test"
QUESTION = {"id": "u1", "role": "user", "content": "Hello", "timestamp": 1_700_000_000_000}
ANSWER = {"id": "a1", "role": "assistant", "content": "Hi **you**", "timestamp": 1_700_000_001_000}
LIVE = {
    **ANSWER,
    "content": "Hi **yo",
    "status": "streaming",
    "parts": [{"type": "text", "text": "Hi **yo", "state": "streaming", "id": "t"}],
}
EMPTY = {**ANSWER, "content": "", "status": "streaming"}
ANSWER_BODY = '.assistant[data-id="a1"] .body'


class Room:
    """A server's side of one page: what it renders, what it sends, what it received."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.messages: list[dict[str, Any]] = []
        self.older: list[dict[str, Any]] = []
        self.forbidden = False
        self.offset = "0_1"
        self.welcome: dict[str, Any] | None = {"type": "resume", "offset": "0_9"}
        self.sockets: list[WebSocketRoute] = []
        self.received: list[dict[str, Any]] = []
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", lambda line: self.problems.append(line.text) if "Content Security" in line.text else None)
        page.route("**/_perdure/static/*", self._static)
        page.route("**/chat/r", self._page)
        page.route("**/chat/r/messages**", self._fragments)
        page.route("**/chat/r/messages/*", self._fragment)
        page.route_web_socket("**/ws/r?*", self._connected)

    def _static(self, route: Route) -> None:
        asset = find_asset(route.request.url.partition("?")[0].rpartition("/")[2])
        assert asset is not None
        route.fulfill(body=asset.body, headers=asset.headers(asset.version))

    def _page(self, route: Route) -> None:
        html = render_chat("r", self.messages, offset=self.offset, more=bool(self.older))
        route.fulfill(body=html, headers=dict(PAGE_HEADERS))

    def _fragment(self, route: Route) -> None:
        name = route.request.url.rpartition("/")[2]
        found = [message for message in self.messages if message["id"] == name]
        route.fulfill(status=200 if found else 404, body=render_message(found[0]) if found else "")

    def _fragments(self, route: Route) -> None:
        if self.forbidden:
            route.fulfill(status=403, body="")
            return
        route.fulfill(body=render_messages(self.older), headers={"x-perdure-more": "false"})

    def _connected(self, socket: WebSocketRoute) -> None:
        self.sockets.append(socket)
        if self.forbidden:
            socket.close(code=1008)
            return
        socket.on_message(lambda data: self.received.append(json.loads(data)))
        if self.welcome is not None:
            socket.send(json.dumps(self.welcome))

    def open(self, *messages: dict[str, Any]) -> None:
        """Opens the page as a reader who does not want a name."""
        self.messages = list(messages)
        self.page.goto(f"{ORIGIN}/chat/r")
        self.page.wait_for_selector("#app[data-connection=online]")
        if self.page.is_visible("#name-skip"):
            self.page.click("#name-skip")

    def send(self, *frames: dict[str, Any]) -> None:
        for frame in frames:
            self.sockets[-1].send(json.dumps(frame))

    def until(self, holds: Callable[[], object]) -> None:
        """Lets the page run until something holds; five seconds at most."""
        for _ in range(500):
            if holds():
                return
            self.page.wait_for_timeout(10)
        raise AssertionError("it never came to hold")

    def sent(self, kind: str) -> list[dict[str, Any]]:
        return [frame for frame in self.received if frame["type"] == kind]

    def say(self, text: str) -> dict[str, Any]:
        """Types a message and gives the frame that the server got."""
        count = len(self.sent("message"))
        self.page.fill("#draft", text)
        self.page.press("#draft", "Enter")
        self.until(lambda: len(self.sent("message")) > count)
        return self.sent("message")[-1]

    def body(self) -> str:
        return str(self.page.inner_html(ANSWER_BODY)).strip()

    def ids(self) -> list[str]:
        found: list[str] = self.page.eval_on_selector_all("#log > article", "all => all.map((a) => a.dataset.id)")
        return found


@pytest.fixture
def room(browser: Browser) -> Iterator[Room]:
    context = browser.new_context(viewport={"width": 900, "height": 600})
    room = Room(context.new_page())
    yield room
    assert room.problems == []
    context.close()


def delta(text: str, offset: str) -> dict[str, Any]:
    return chunks({"type": "text-delta", "id": "t", "delta": text}, offset=offset)


def chunks(*chunks: dict[str, Any], offset: str) -> dict[str, Any]:
    return {"type": "chunks", "messageId": "a1", "chunks": list(chunks), "offset": offset}


def complete(content: str, offset: str, **more: Any) -> dict[str, Any]:
    return {"type": "complete", "messageId": "a1", "content": content, "status": "complete", "offset": offset, **more}


def test_it_goes_on_from_the_rendered_offset(room: Room) -> None:
    """Deltas are added to the text that the page came with."""
    room.open(QUESTION, LIVE)
    assert "parts=1&presence=1&offset=0_1" in room.sockets[0].url
    room.send(delta("u**, an", "0_2"), delta("d all.", "0_3"))
    room.until(lambda: room.page.inner_text(ANSWER_BODY) == "Hi you, and all.")


def test_a_frame_that_comes_again_changes_nothing(room: Room) -> None:
    """No word is doubled, even by a server that sends too much."""
    room.open(QUESTION, LIVE)
    room.send(delta("lost", "0_1"), delta("u**", "0_2"), delta("u**", "0_2"), delta(" too", "0_3"))
    room.until(lambda: room.page.inner_text(ANSWER_BODY) == "Hi you too")


def test_a_page_that_is_being_left_shows_nothing_new(room: Room) -> None:
    """The page that a reload has asked for would begin with less. If this one stays, it shows what came."""
    room.open(QUESTION, LIVE)
    room.page.evaluate("dispatchEvent(new Event('beforeunload'))")
    room.send(delta("u**, an", "0_2"), delta("d all.", "0_3"))
    room.page.wait_for_timeout(300)
    assert room.page.inner_text(ANSWER_BODY) == "Hi yo"
    room.until(lambda: room.page.inner_text(ANSWER_BODY) == "Hi you, and all.")


def test_an_answer_from_its_first_frame_to_its_end(room: Room) -> None:
    """Typing dots, growing text, a stop button while it lasts, colours at the end."""
    page = room.page
    room.open(QUESTION)
    room.send({"type": "message", "message": EMPTY, "offset": "0_2"})
    page.wait_for_selector(".typing", state="visible")
    page.wait_for_selector("#stop", state="visible")
    text = "Hi:\n\n```python\nreturn 1\n```\n"
    room.messages = [QUESTION, {**ANSWER, "content": text}]
    room.send(chunks({"type": "start"}, {"type": "start-step"}, {"type": "text-start", "id": "t"}, offset="0_3"))
    room.send(delta(text[:15], "0_4"))
    page.wait_for_selector(".typing", state="hidden")
    page.eval_on_selector(ANSWER_BODY + " > p", "p => { p.mine = true; }")
    room.send(delta(text[15:], "0_5"), complete(text, "0_6"))
    page.wait_for_selector(ANSWER_BODY + " .hl-k")
    page.wait_for_selector("#stop", state="hidden")
    assert page.eval_on_selector(ANSWER_BODY + " > p", "p => p.mine") is True
    assert page.query_selector(".tail") is None
    assert page.inner_text("#announcer").startswith("Answer: Hi:")


def test_a_message_is_sent_until_it_is_acknowledged(room: Room) -> None:
    """Over a lost connection, with the same id, and it is shown once."""
    room.open()
    first = room.say("Anyone there?")
    assert room.page.get_attribute("#log > article", "data-pending") == ""
    room.sockets[-1].close(code=1011)
    room.until(lambda: len(room.sent("message")) == 2)
    assert room.sent("message")[1] == first
    acknowledged = {**QUESTION, "id": first["id"], "content": "Anyone there?"}
    room.send({"type": "message", "message": acknowledged, "offset": "0_2"})
    room.page.wait_for_selector("#log > article:not([data-pending])")
    room.send({"type": "message", "message": acknowledged, "offset": "0_2"})
    assert room.ids() == [first["id"]]
    room.sockets[-1].close(code=1011)
    room.until(lambda: len(room.sockets) == 3)
    room.page.wait_for_selector("#app[data-connection=online]")
    assert len(room.sent("message")) == 2
    assert "offset=0_2" in room.sockets[-1].url


def test_a_reload_does_not_lose_an_unsent_message(room: Room) -> None:
    """Nor a draft."""
    room.open()
    first = room.say("Do not lose me")
    room.page.fill("#draft", "half a thou")
    room.open()
    room.until(lambda: len(room.sent("message")) == 2)
    assert room.sent("message")[1] == first
    assert room.page.inner_text("#log .bubble") == "Do not lose me"
    assert room.page.input_value("#draft") == "half a thou"


def test_a_refused_message_says_so_and_is_not_sent_again(room: Room) -> None:
    """The words are kept; the person decides."""
    room.open()
    frame = room.say("too much")
    room.send({"type": "error", "code": "limit_exceeded", "message": "1 is allowed", "retryable": False})
    room.page.wait_for_selector("text=Not sent: 1 is allowed")
    room.sockets[-1].close(code=1011)
    room.until(lambda: len(room.sockets) == 2)
    room.page.wait_for_selector("#app[data-connection=online]")
    assert len(room.sent("message")) == 1
    room.page.click(".resend")
    room.until(lambda: room.sent("message") == [frame, frame])
    room.send({"type": "error", "code": "limit_exceeded", "message": "1 is allowed", "retryable": False})
    room.page.click(".discard")
    assert room.ids() == []


def test_an_overloaded_room_is_tried_again(room: Room) -> None:
    """A retryable error is no reason to trouble anyone."""
    room.open()
    frame = room.say("hello")
    room.send({"type": "error", "code": "overloaded", "message": "busy", "retryable": True})
    room.until(lambda: room.sent("message") == [frame, frame])


def test_a_new_init_replaces_what_is_no_longer_true(room: Room) -> None:
    """Messages that are gone go, new ones come in order, those that stay are not touched."""
    room.open(QUESTION, LIVE)
    room.page.eval_on_selector('[data-id="u1"]', "node => { node.mine = true; }")
    follow = {**QUESTION, "id": "u2", "content": "And?"}
    room.welcome = {"type": "init", "messages": [QUESTION, ANSWER, follow], "offset": "0_7"}
    room.messages = [QUESTION, ANSWER, follow]
    room.sockets[-1].close(code=1012)
    room.until(lambda: room.ids() == ["u1", "a1", "u2"])
    assert room.body() == "<p>Hi <strong>you</strong></p>"
    assert room.page.eval_on_selector('[data-id="u1"]', "node => node.mine") is True
    room.welcome = {"type": "init", "messages": [follow], "offset": "0_8"}
    room.sockets[-1].close(code=1012)
    room.until(lambda: room.ids() == ["u2"])


def test_a_delta_of_an_unknown_message_asks_for_everything(room: Room) -> None:
    """A gap is never papered over."""
    room.open(QUESTION)
    room.welcome = {"type": "init", "messages": [QUESTION, ANSWER], "offset": "0_7"}
    room.send(delta("x", "0_2"))
    room.until(lambda: room.ids() == ["u1", "a1"])
    assert "offset=" not in room.sockets[-1].url


def test_stop_by_button_and_by_key(room: Room) -> None:
    """Also from a page without a connection: it is said as soon as there is one."""
    room.open(QUESTION, LIVE)
    room.page.press("#draft", "Escape")
    room.until(lambda: room.sent("stop"))
    room.send(complete("Hi **yo", "0_2", status="aborted"))
    room.page.wait_for_selector("text=Stopped")
    room.messages = [QUESTION, LIVE]
    room.open(QUESTION, LIVE)
    room.received.clear()
    room.page.click("#stop")
    room.until(lambda: room.sent("stop"))
    room.sockets[-1].close(code=1011)
    room.until(lambda: len(room.sent("stop")) == 2)


def test_a_failed_answer_can_be_tried_again(room: Room) -> None:
    """It says why it failed; the cut transcript goes when the server says so."""
    failed = {**ANSWER, "status": "failed", "error": "The model is overloaded."}
    room.open(QUESTION, failed)
    assert room.page.inner_text(".assistant .outcome-text") == "The model is overloaded."
    room.page.click(".retry")
    room.until(lambda: room.sent("retry"))
    again = {**EMPTY, "id": "a2"}
    room.send(
        {"type": "remove", "messageIds": ["a1"], "offset": "0_2"},
        {"type": "message", "message": again, "offset": "0_3"},
    )
    room.until(lambda: room.ids() == ["u1", "a2"])


def test_a_message_sent_during_an_answer_keeps_its_place(room: Room) -> None:
    """Pending ones stay last until the server has put them in order."""
    room.open(QUESTION, LIVE)
    frame = room.say("mine")
    theirs = {**QUESTION, "id": "u2", "content": "theirs", "user": "Ada"}
    room.send({"type": "message", "message": theirs, "offset": "0_2"})
    room.until(lambda: room.ids() == ["u1", "a1", "u2", frame["id"]])
    assert room.page.inner_text('[data-id="u2"] .who') == "Ada"
    assert "theirs" in str(room.page.get_attribute('[data-id="u2"]', "class"))


def test_the_banner_appears_only_when_it_takes_a_while(room: Room) -> None:
    """And goes by itself."""
    room.open()
    room.welcome = None
    room.sockets[-1].close(code=1011)
    room.page.wait_for_selector("#banner", state="visible")
    assert room.page.inner_text("#banner-text") == "Connection lost. Reconnecting…"
    room.until(lambda: len(room.sockets) >= 2)
    room.welcome = {"type": "resume", "offset": "0_9"}
    room.send(room.welcome)
    room.page.wait_for_selector("#banner", state="hidden")


def test_a_reader_who_was_shut_out_is_told(room: Room) -> None:
    """To the page a refused handshake looks like a lost line, so it asks again over HTTP."""
    room.open()
    room.forbidden = True
    room.sockets[-1].close(code=1008)
    room.page.wait_for_selector("text=You may no longer enter this room.")


def test_a_reader_who_scrolled_up_is_not_moved(room: Room) -> None:
    """Growing text below changes nothing above, and a pill leads down."""
    page = room.page
    many = [{**QUESTION, "id": f"q{index}", "content": f"line {index}\n" * 5} for index in range(20)]
    room.open(*many, LIVE)
    assert page.evaluate("scroller.scrollTop") == 0
    page.evaluate("scroller.scrollTop = -600")
    page.wait_for_selector("#pill", state="visible")
    top = page.evaluate("document.querySelector('[data-id=q12]').getBoundingClientRect().top")
    for number in range(2, 12):
        room.send(delta("\n\nanother paragraph", f"0_{number:02d}"))
        page.wait_for_timeout(20)
    page.wait_for_selector("#pill:has-text('New messages')")
    assert page.evaluate("document.querySelector('[data-id=q12]').getBoundingClientRect().top") == pytest.approx(
        top, abs=1
    )
    page.click("#pill")
    room.until(lambda: page.evaluate("scroller.scrollTop") == 0)
    room.send(delta("\n\nand more\n\nand more", "0_99"))
    page.wait_for_selector("text=and more >> nth=1")
    assert page.evaluate("scroller.scrollTop") == 0


def test_older_messages_are_added_above(room: Room) -> None:
    """Without moving what is being read."""
    page = room.page
    room.older = [{**QUESTION, "id": f"o{index}", "content": f"old {index}\n" * 9} for index in range(5)]
    many = [{**QUESTION, "id": f"q{index}", "content": f"line {index}\n" * 5} for index in range(8)]
    room.open(*many)
    page.evaluate("scroller.scrollTop = -200")
    page.wait_for_timeout(50)
    top = page.evaluate("document.querySelector('[data-id=q5]').getBoundingClientRect().top")
    page.eval_on_selector("#older", "link => link.click()")
    room.until(lambda: len(room.ids()) == 13)
    assert room.ids()[:6] == ["o0", "o1", "o2", "o3", "o4", "q0"]
    assert page.evaluate("document.querySelector('[data-id=q5]').getBoundingClientRect().top") == pytest.approx(
        top, abs=1
    )
    assert page.is_hidden("#older")


def test_a_name_is_asked_once_and_kept(room: Room) -> None:
    """It goes with every message; the server's first paint knows it by a cookie."""
    page = room.page
    page.goto(f"{ORIGIN}/chat/r")
    page.fill("#name", "  Ada   L. ")
    page.press("#name", "Enter")
    assert page.inner_text("#me") == "Ada L."
    room.until(lambda: page.get_attribute("#app", "data-connection") == "online")
    assert room.say("hi")["user"] == "Ada L."
    cookie = {each.get("name"): each.get("value") for each in page.context.cookies()}
    assert cookie["perdure_user"] == "Ada%20L."
    page.reload()
    page.wait_for_selector("#app[data-connection=online]")
    assert page.is_hidden("#name-form")
    assert "user=Ada+L." in room.sockets[-1].url


def test_enter_sends_and_shift_enter_does_not(room: Room) -> None:
    """And an empty message is none."""
    room.open()
    room.page.press("#draft", "Enter")
    room.page.type("#draft", "one")
    room.page.press("#draft", "Shift+Enter")
    room.page.type("#draft", "two")
    room.page.press("#draft", "Enter")
    room.until(lambda: room.sent("message"))
    assert [frame["content"] for frame in room.sent("message")] == ["one\ntwo"]
    assert room.page.input_value("#draft") == ""


def test_a_message_beyond_the_limit_is_not_even_sent(room: Room) -> None:
    """The words stay where they can be shortened."""
    room.open()
    room.page.fill("#draft", "x" * 1_048_577)
    room.page.press("#draft", "Enter")
    room.page.wait_for_selector("text=This message is too long")
    assert len(room.page.input_value("#draft")) == 1_048_577
    assert room.sent("message") == []


def test_without_scripts_the_conversation_can_be_read(browser: Browser) -> None:
    """And the page says what is missing."""
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    room = Room(page)
    room.messages = [QUESTION, ANSWER]
    page.goto(f"{ORIGIN}/chat/r")
    assert page.inner_text(ANSWER_BODY) == "Hi you"
    assert page.is_hidden("#composer")
    assert page.is_visible("noscript p")
    context.close()


def test_a_text_grows_above_the_sources(room: Room) -> None:
    """Sources come last, whenever they were told; dots say that more is to come while nothing else does."""
    page = room.page
    source = {"type": "source-url", "sourceId": "s", "url": "https://example.com", "title": "Example"}
    room.open(QUESTION)
    room.send({"type": "message", "message": EMPTY, "offset": "0_2"}, chunks(source, offset="0_3"))
    page.wait_for_selector(".sources")
    page.wait_for_selector(".typing", state="visible")
    room.send(chunks({"type": "text-start", "id": "t"}, offset="0_4"), delta("See **the", "0_5"))
    page.wait_for_selector(".body .tail")
    assert page.is_hidden(".typing")
    assert page.eval_on_selector_all(".parts > *", "all => all.map((each) => each.dataset.kind)") == [
        "text",
        "sources",
    ]
    room.send(chunks({"type": "text-end", "id": "t"}, offset="0_6"))
    page.wait_for_selector(".typing", state="visible")
    room.send(complete("See **the", "0_7"))
    page.wait_for_selector(".typing", state="hidden")
