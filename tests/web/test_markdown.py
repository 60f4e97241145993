"""Markdown becomes HTML that is safe, and the same in the browser as on the server."""

from __future__ import annotations

import time

import pytest
from playwright.sync_api import Page

from perdure.web.markdown import MARKDOWN_CHARACTERS_MAX, render_markdown

REL = 'target="_blank" rel="noopener noreferrer nofollow"'


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ('<b onclick="x()">y</b>', '<p>&lt;b onclick="x()"&gt;y&lt;/b&gt;</p>\n'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("[x](data:text/html;base64,AAAA)", "<p>[x](data:text/html;base64,AAAA)</p>\n"),
        ("[x](/logout)", "<p>[x](/logout)</p>\n"),
        ("<img src=x onerror=alert(1)>", "<p>&lt;img src=x onerror=alert(1)&gt;</p>\n"),
    ],
)
def test_nothing_in_a_text_can_run_or_point_into_the_site(text: str, html: str) -> None:
    """Scripts, handlers and addresses other than http, https and mailto stay visible text."""
    assert render_markdown(text) == html


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("[a](https://b.example)", f'<p><a href="https://b.example" {REL}>a</a></p>\n'),
        ("see https://b.example/c.", f'<p>see <a href="https://b.example/c" {REL}>https://b.example/c</a>.</p>\n'),
        ("![cat](https://b.example/c.png)", f'<p><a href="https://b.example/c.png" {REL}>cat</a></p>\n'),
        ("![](https://b.example/c.png)", f'<p><a href="https://b.example/c.png" {REL}>https://b.example/c.png</a></p>\n'),
    ],
)  # fmt: skip
def test_links_open_apart_and_pictures_are_links(text: str, html: str) -> None:
    """A link tells its target nothing about the page; a picture is not fetched."""
    assert render_markdown(text) == html


def test_a_line_break_is_a_line_break() -> None:
    """As people expect it in a chat."""
    assert render_markdown("one\ntwo") == "<p>one<br>\ntwo</p>\n"


def test_tables_align_by_class() -> None:
    """The page's policy allows no style attributes."""
    html = render_markdown("| a | b |\n|---|--:|\n| 1 | 2 |")
    assert '<th class="align-right">b</th>' in html
    assert "style=" not in html


def test_code_is_highlighted_by_class() -> None:
    """Known languages get classes, whose colours follow light and dark."""
    html = render_markdown("```python\nreturn 1\n```")
    assert html == (
        '<div class="code" data-lang="python"><pre><code><span class="hl-k">return</span> '
        '<span class="hl-mi">1</span>\n</code></pre></div>\n'
    )


def test_code_of_an_unknown_language_is_plain_text() -> None:
    """And a language's name cannot leave its attribute."""
    html = render_markdown('```"><script>\n<b>\n```')
    assert html == '<div class="code" data-lang="text"><pre><code>&lt;b&gt;\n</code></pre></div>\n'


def test_a_huge_text_is_shown_as_it_is() -> None:
    """Parsing it would hold up everyone else."""
    text = "*a* <b> " * (MARKDOWN_CHARACTERS_MAX // 8 + 1)
    started = time.perf_counter()
    html = render_markdown(text)
    assert html.startswith('<p class="plain">*a* &lt;b&gt; *a*')
    assert time.perf_counter() - started < 1


DOCUMENTS = [
    "Plain words.",
    "# One\n\n## Two ##\n\n### Three *em*\n\ntext\n\nSetext\n======\n\nAgain\n---",
    "one\ntwo  \nthree\\\nfour",
    "**bold** *em* ***both*** __bold__ _em_ snake_case_name 2 * 3 * 4 **a*b*c** *a**b**c* ~~gone~~ ~one~",
    '**bold:**text and **"quoted"** and **a**b and *(in)* end**',
    "`code` ``a ` b`` ` x ` `` `y` `` `unclosed",
    'a [link](https://a.example/b_c "Title") and [**bold** link](<https://a.example/x y>) and [no](/x) [ref] [x]',
    "https://a.example/x_y_z?a=b&c=d, (https://a.example/p(q)) <https://b.example> <me@b.example> xhttps://no.example",
    "&amp; &copy; &#35; &#x22; &nosuch; AT&T < > \\* \\_ \\# 1\\. \\\\",
    "- a\n- b\n  - c\n  - d\n    - e\n- f",
    "1. a\n2. b\n   - c\n3. d\n\n7) x\n8) y",
    "* a\n\n* b\n\n  more\n* c",
    "- a\n\n  ```js\n  let x = 1;\n\n  x()\n  ```\n- b\nlazy",
    "Intro:\n- a\n- b\n\nOutro\n1. first\n2. second\n3. third",
    "text\n2. not a list\n- \n- after an empty one",
    "> quote\n> two\nlazy\n\n> - a\n> - b\n>\n> ```\n> code\n> ```\n\n> > nested",
    "```python\nx = 1\n\n\ny = '<b>'\n```\nafter\n~~~\ntilde\n```\n~~~\n\n```\nunclosed\n",
    "    indented\n\n    more\n\ntext\n    not code",
    "| a | b | c |\n|:--|:-:|--:|\n| 1 | `x \\| y` | **3** |\n| 4 |\n| 5 | 6 | 7 | 8 |\n\nafter",
    "a | b\n--|--\n1 | 2\n\nnot | a table",
    "---\n\n***\n\n_ _ _\n\ntext\n\n- - -",
    "![alt *text*](https://a.example/i.png) and ![](https://a.example/j.png)",
    "Line with trailing spaces   \n   and leading ones\n\n\n\nnew paragraph",
    "<div>\n<b>raw</b>\n</div>\n\n<!-- no -->",
    "1. **Bold item**: text\n\n   Second paragraph\n\n2. Next\n\n   > quote\n\nEnd 🙂 *émphasis* „x“ **日本**語",
    "#no heading\n####### seven\n# \n#\n",
    "a\n\n- x\n\n\n- y\n\n\nz\n* p\n+ q",
    "**Note**: *a* **b** `c`\n**Note**\n\n*one*two *three*",
    "\ttab code\n\n-\ttab item\n\n10. ten\n11. eleven\n    deep",
]

COMPARE = """
async ([text, html]) => {
  const { AnswerBody, reconcile } = await import("/_perdure/static/markdown.js");
  const body = document.createElement("div");
  new AnswerBody(body).show(text, false);
  const drawn = body.innerHTML;
  const server = new DOMParser().parseFromString(html, "text/html").body;
  for (const code of server.querySelectorAll("pre code")) code.textContent = code.textContent;
  const before = [...body.children];
  reconcile(body, [...server.children]);
  return before.length === body.children.length && before.every((node, at) => node === body.children[at])
    ? "same" : drawn;
}
"""


@pytest.mark.parametrize("text", DOCUMENTS)
def test_the_browser_draws_what_the_server_renders(blank_page: Page, text: str) -> None:
    """When an answer ends, no block has to be replaced, but for the colours of code."""
    html = str(render_markdown(text))
    drawn = blank_page.evaluate(COMPARE, [text, html])
    assert drawn == "same", html


GROW = """
async ([text, steps]) => {
  const { AnswerBody, renderMarkdown } = await import("/_perdure/static/markdown.js");
  const body = document.createElement("div");
  const answer = new AnswerBody(body);
  const shown = [];
  for (let end = 1; end <= text.length; end += steps) {
    answer.show(text.slice(0, end), true);
    shown.push(body.textContent.replaceAll("Copy", ""));
  }
  answer.show(text, false);
  const whole = document.createElement("div");
  whole.append(...renderMarkdown(text));
  for (const button of body.querySelectorAll(".copy")) button.remove();
  return [shown, body.innerHTML, whole.innerHTML];
}
"""


def test_a_growing_text_ends_as_the_whole_text(blank_page: Page) -> None:
    """Block by block or at once: the same."""
    text = "\n\n".join(DOCUMENTS)
    _, grown, whole = blank_page.evaluate(GROW, [text, 3])
    assert grown == whole


def test_marks_that_are_not_closed_yet_are_not_shown(blank_page: Page) -> None:
    """Readers never see the asterisks, brackets and bars that are about to become a layout."""
    text = (
        "Some **bold words**, `code`, [a link](https://a.example/x) and ~~more~~.\n\n"
        "- **one**: x\n- two\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n## Title\n\n```py\nx = 1\n```\n\nEnd."
    )
    shown, _, _ = blank_page.evaluate(GROW, [text, 1])
    for moment in shown:
        assert not set("*`[]~|#") & set(moment), moment
        assert "https:" not in moment


def test_a_growing_text_never_shrinks(blank_page: Page) -> None:
    """What was shown stays."""
    text = (
        "Hello **there**.\n\n1. one\n2. two\n   - deep\n\n> quote\n\n```\ncode\n```\n\nA [link](https://a.example)."
    )
    shown, _, _ = blank_page.evaluate(GROW, [text, 1])
    lengths = [len(moment.strip()) for moment in shown]
    assert lengths == sorted(lengths)


@pytest.mark.parametrize(
    "text",
    [
        "<img src=x onerror=1>",
        "[x](javascript:1)",
        "[x](  JaVaScRiPt:1)",
        "<javascript:1>",
        "![x](data:,1)",
        "&lt;script&gt;",
    ],
)
def test_the_browser_draws_nothing_that_could_run(blank_page: Page, text: str) -> None:
    """The same wall as on the server."""
    tags = blank_page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/_perdure/static/markdown.js");
          return renderMarkdown(text).flatMap((node) => [node, ...node.querySelectorAll("*")]).map((n) => n.nodeName);
        }""",
        text,
    )
    assert tags == ["P"]


@pytest.mark.parametrize("piece", ["*a ", "a* ", "**a", "[a](", "`a ", "> ", "_a_ ", "[", "- ", "![x", "~~a "])
def test_no_text_holds_up_the_page(blank_page: Page, piece: str) -> None:
    """Twenty thousand characters of the worst are drawn while nobody notices."""
    took_ms = blank_page.evaluate(
        """async (text) => {
          const { renderMarkdown } = await import("/_perdure/static/markdown.js");
          const started = performance.now();
          renderMarkdown(text);
          renderMarkdown(text, true);
          return performance.now() - started;
        }""",
        (piece * 20_000)[:20_000],
    )
    assert took_ms < 2_000
