"""Parts of answers: what the server draws and what the page's script draws is one and the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tests.web.conftest import serve_static

from perdure.web.pages import render_chat, render_message
from perdure.web.parts import as_text, blocks_of, file_block

EVIL = "\"><script>alert('1')</script>"
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACw="

TOOL = {"type": "tool-refund", "toolCallId": "c1", "input": {"order": 17, "why": "<b>late</b>"}}
PARTS: list[dict[str, Any]] = [
    {"type": "step-start"},
    {"type": "reasoning", "id": "r", "text": "Hm.\nWell.", "state": "done"},
    {"type": "text", "text": "One **moment**.", "state": "done"},
    {**TOOL, "state": "output-available", "output": {"done": True}},
    {**TOOL, "toolCallId": "c2", "state": "output-available", "output": "so far", "preliminary": True},
    {**TOOL, "toolCallId": "c3", "state": "output-error", "errorText": "the till is closed"},
    {
        **TOOL,
        "toolCallId": "c4",
        "state": "output-denied",
        "approval": {"id": "a", "approved": False, "reason": "no"},
    },
    {**TOOL, "toolCallId": "c5", "state": "approval-requested", "approval": {"id": "a5"}},
    {**TOOL, "toolCallId": "c6", "state": "approval-responded", "approval": {"id": "a", "approved": True}},
    {"type": "dynamic-tool", "toolName": "locate", "toolCallId": "c7", "state": "input-available", "input": {}},
    {"type": "tool-web", "toolCallId": "c8", "state": "input-available", "input": "x", "providerExecuted": True},
    {"type": "tool-half", "toolCallId": "c9", "state": "input-streaming", "rawInput": '{"a": 1'},
    {"type": "source-url", "sourceId": "s1", "url": "https://example.com/a?b=1&c=2", "title": "A & B"},
    {"type": "source-url", "sourceId": "s2", "url": "javascript:alert(1)"},
    {"type": "source-document", "sourceId": "s3", "mediaType": "application/pdf", "title": "Paper"},
    {"type": "file", "mediaType": "image/gif", "url": PIXEL},
    {"type": "file", "mediaType": "image/png", "url": "https://elsewhere.example/spy.png", "filename": "spy.png"},
    {"type": "file", "mediaType": "text/plain", "url": "/api/chat/r/files/f1", "filename": "a.txt"},
    {"type": "file", "mediaType": "text/html", "url": "javascript:alert(1)"},
    {"type": "data-weather", "id": "w", "data": {"sky": "clear"}},
    {"type": "something-new", "value": 1},
    {"type": "text", "text": "That is `all`.", "state": "done"},
]
ANSWER = {"id": "a1", "role": "assistant", "content": "", "timestamp": 1_700_000_000_000, "answers": "u1"}


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context()
    page = context.new_page()
    page.route("**/_perdure/static/*", serve_static)
    html = render_chat("r", [], offset="0")
    page.route("**/chat/r", lambda route: route.fulfill(body=html, content_type="text/html"))
    page.goto("http://page.test/chat/r")
    yield page
    context.close()


# Elements as lines, with their attributes in order; without line breaks between tags and what scripts alone add.
LINES = """const lines = (node, depth = "") => [...node.childNodes].flatMap((child) => {
  if (child.nodeType === Node.TEXT_NODE) return child.data.trim() ? [depth + JSON.stringify(child.data)] : [];
  if (child.className === "copy") return [];
  const attributes = [...child.attributes].map((each) => `${each.name}=${each.value}`).sort();
  return [`${depth}<${child.localName} ${attributes.join(" ")}>`, ...lines(child, depth + "  ")];
});"""

DRAWN = f"""async (message) => {{
  {LINES}
  const {{ PartsView }} = await import("/_perdure/static/parts.js");
  const {{ partsOf }} = await import("/_perdure/static/fold.js");
  const parts = document.createElement("div");
  const view = new PartsView(parts);
  for (const waiting of [false, message.status === "waiting"]) {{
    view.show(partsOf(message), {{ live: false, waiting }});
  }}
  return lines(parts);
}}"""

SERVED = f"""(html) => {{
  {LINES}
  return lines(new DOMParser().parseFromString(html, "text/html").querySelector(".parts"));
}}"""


@pytest.mark.parametrize("status", ["complete", "waiting"])
def test_the_script_draws_what_the_server_draws(page: Page, status: str) -> None:
    """Every kind of part in every state, so that nothing jumps when the one takes over from the other."""
    message = {**ANSWER, "status": status, "parts": PARTS}
    served = page.evaluate(SERVED, render_message(message))
    assert len(served) > 100
    assert page.evaluate(DRAWN, message) == served


def test_nothing_of_a_part_leaves_its_place() -> None:
    """Whichever field somebody else wrote."""
    for part in PARTS:
        for name, value in part.items():
            if name == "type" or not isinstance(value, str):
                continue
            html = render_message({**ANSWER, "status": "waiting", "parts": [{**part, name: EVIL}]})
            assert "<script>" not in html, (part, name)
    evil = json.loads(json.dumps(PARTS).replace("refund", "re<script>fund"))
    assert "<script>" not in render_message({**ANSWER, "status": "complete", "parts": evil})


@pytest.mark.parametrize(
    ("url", "media_type", "kind", "address"),
    [
        (PIXEL, "image/gif", "picture", PIXEL),
        ("/api/chat/r/files/f1", "image/png", "picture", "/api/chat/r/files/f1"),
        ("https://example.com/a.png", "image/png", "file", "https://example.com/a.png"),
        ("//example.com/a.png", "image/png", "file", ""),
        ("javascript:alert(1)", "image/png", "file", ""),
        ("data:text/html,<b>", "text/html", "file", "data:text/html,<b>"),
    ],
)
def test_pictures_of_ones_own_are_shown(url: str, media_type: str, kind: str, address: str) -> None:
    """Those from elsewhere are links, and what is no address is none."""
    block = file_block({"type": "file", "url": url, "mediaType": media_type})
    assert (block["kind"], block["url"]) == (kind, address)


def test_what_waits_is_asked_only_while_it_waits() -> None:
    """An answer that was stopped asks nothing any more."""
    part = {**TOOL, "state": "approval-requested"}
    [asked] = blocks_of([part], settled=True, waiting=True)
    [over] = blocks_of([part], settled=True, waiting=False)
    assert (asked["asked"], over["asked"]) == (True, False)


def test_inputs_are_shown_as_people_read_them() -> None:
    """Text as it is, anything else as JSON over several lines, letters as they are."""
    assert as_text("Grüße\n") == "Grüße\n"
    assert as_text({"city": "Zürich", "n": [1]}) == '{\n  "city": "Zürich",\n  "n": [\n    1\n  ]\n}'
    assert as_text(None) == "null"
