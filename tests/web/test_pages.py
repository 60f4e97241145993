"""Pages show what they are given, and nothing in it can leave its place."""

from __future__ import annotations

import pytest

from perdure.web.pages import (
    CONTENT_SECURITY_POLICY,
    PAGE_HEADERS,
    render_chat,
    render_error,
    render_index,
    render_message,
    render_messages,
)

EVIL = "\"><script>alert('1')</script>"
ESCAPED = "&#34;&gt;&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt;"
USER = {"id": "u1", "role": "user", "content": "Hello", "timestamp": 1_700_000_000_000, "user": "Zoë"}
ANSWER = {"id": "a1", "role": "assistant", "content": "**Hi**", "timestamp": 1_700_000_001_000}


def test_the_policy_allows_no_inline_script_or_style() -> None:
    """And the pages have none."""
    assert "script-src 'self'; style-src 'self';" in CONTENT_SECURITY_POLICY
    assert "unsafe" not in CONTENT_SECURITY_POLICY
    assert PAGE_HEADERS["content-security-policy"] == CONTENT_SECURITY_POLICY
    page = render_chat("r", [USER, ANSWER], offset="0_1")
    assert "<style" not in page
    assert " style=" not in page
    assert page.count("<script") == 1
    assert '<script type="module" src="/_perdure/static/chat.js?v=' in page


@pytest.mark.parametrize("field", ["id", "content", "user", "error"])
@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("status", ["streaming", "failed"])
def test_a_message_cannot_leave_its_place(field: str, role: str, status: str) -> None:
    """Whatever part of it somebody else wrote."""
    message = {**USER, "role": role, "status": status, field: EVIL}
    html = render_message(message) + render_chat("r", [message], offset="0")
    assert "<script>" not in html


def test_a_rooms_name_cannot_leave_its_place() -> None:
    """Nor an offset, a name or a model."""
    page = render_chat(EVIL, [], offset=EVIL, user=EVIL, model=EVIL)
    assert "<script>" not in page
    assert f'data-room="{ESCAPED}"' in page
    assert f'data-offset="{ESCAPED}"' in page
    assert 'data-socket-path="/ws/%22%3E%3Cscript%3Ealert%28%271%27%29%3C%2Fscript%3E"' in page
    assert "<script>" not in render_index([{"name": EVIL, "preview": EVIL}], now_ms=0)
    assert "<script>" not in render_error(404, EVIL, EVIL)


def test_a_chat_page_has_messages_offset_and_limits() -> None:
    """All that the script needs to go on from what was rendered."""
    page = render_chat("a/b", [USER, ANSWER], offset="0_7", user="Zoë", more=True, base_path="/chat-app")
    assert 'data-offset="0_7"' in page
    assert 'data-socket-path="/chat-app/ws/a%2Fb"' in page
    assert 'data-room-url="/chat-app/chat/a%2Fb"' in page
    assert 'data-message-bytes-max="1048576"' in page
    assert 'href="/chat-app/chat/a%2Fb?before=u1">Earlier messages' in page
    assert '<div class="bubble">Hello</div>' in page
    assert "<strong>Hi</strong>" in page


def test_the_page_and_the_fragment_agree() -> None:
    """A message that is fetched later is the one that the page had."""
    page = render_chat("r", [USER, ANSWER], offset="0", user="Zoë")
    assert render_message(ANSWER).strip() in page
    assert render_message(USER, user="Zoë").strip() in page
    both = render_messages([USER, ANSWER])
    assert both.index('data-id="u1"') < both.index('data-id="a1"')


def test_an_answer_that_is_being_written_brings_its_parts() -> None:
    """The script adds chunks to them, so it needs them and not only their HTML."""
    parts = [{"type": "text", "text": 'a **b"', "state": "streaming", "id": "t1"}]
    page = render_chat("r", [{**ANSWER, "parts": parts}], offset="0", streaming_message_id="a1")
    assert 'data-status="streaming"' in page
    assert 'data-parts="[{&#34;type&#34;:&#34;text&#34;,&#34;text&#34;:&#34;a **b\\&#34;&#34;,' in page
    assert "data-parts" not in render_message(ANSWER)


@pytest.mark.parametrize(
    ("usage", "words"),
    [
        ({"totalTokens": 12_345, "inputTokens": 1}, "12,345 tokens"),
        ({"inputTokens": 30, "outputTokens": 4}, "34 tokens"),
        ({"outputTokens": None}, ""),
        ("much", ""),
        (None, ""),
    ],
)
def test_what_an_answer_cost_is_told(usage: object, words: str) -> None:
    """In the model's tokens, where it says so."""
    assert f'<span class="usage">{words}</span>' in render_message({**ANSWER, "metadata": {"usage": usage}})


def test_an_answer_that_failed_says_why() -> None:
    """In its own words if it has some."""
    assert "The model is overloaded." in render_message(
        {**ANSWER, "status": "failed", "error": "The model is overloaded."}
    )
    assert "The answer failed." in render_message({**ANSWER, "status": "failed"})
    assert "Stopped" in render_message({**ANSWER, "status": "aborted"})


def test_other_peoples_messages_are_marked() -> None:
    """By name; a message without a name is nobody else's."""
    assert 'class="message user theirs hue-' in render_message(USER, user="Ada")
    assert 'class="message user"' in render_message(USER, user="Zoë")
    assert 'class="message user"' in render_message({**USER, "user": ""}, user="Ada")


def test_a_name_that_an_authenticator_gave_cannot_be_changed() -> None:
    """There is no button for it."""
    page = render_chat("r", [], offset="0", user="Ada", user_fixed=True)
    assert '<span class="me">Ada</span>' in page
    assert 'id="me"' not in page


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [
        (0, "just now"),
        (59_000, "just now"),
        (60_000, "1 minute ago"),
        (7_200_000, "2 hours ago"),
        (86_400_000, "1 day ago"),
        (2_592_000_000, "15 Oct 2023"),
    ],
)
def test_a_room_says_when_it_was_last_active(age_ms: int, words: str) -> None:
    """In words while that helps, then as a date."""
    now_ms = 1_700_000_000_000
    page = render_index([{"name": "r", "last_active_ms": now_ms - age_ms}], now_ms=now_ms)
    assert f">{words}</time>" in page


def test_the_index_lists_rooms_or_says_that_there_are_none() -> None:
    """Either way it offers a new one."""
    page = render_index([{"name": "a b", "preview": "## So **it** is\n\n- x", "streaming": True}], now_ms=0)
    assert 'href="/chat/a%20b"' in page
    assert ">So it is x</span>" in page
    assert ">answering</span>" in page
    empty = render_index([], now_ms=0, base_path="/below")
    assert "No rooms yet." in empty
    assert '<form class="new-room" action="/below/chat" method="get">' in empty


def test_an_error_page_says_what_happened() -> None:
    """With the way back."""
    page = render_error(413, "Too large", "This is more than a room takes.", base_path="/below")
    assert '<p class="error-status">413</p>' in page
    assert "<h1>Too large</h1>" in page
    assert 'href="/below/"' in page


@pytest.mark.anyio
async def test_no_file_is_read_to_render_a_page() -> None:
    """The templates are in memory (a blocking call here is an error): else every room waits for the disk."""
    assert "It is not there." in render_error(404, "Gone", "It is not there.")
