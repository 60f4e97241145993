"""Several models in one room: who answers, and how each sees what the others said.

A class names them: ``models = {"claude": "anthropic:...", "gpt": "openai:..."}``. ``@claude`` in a message has
that one answer it; several names, several answers, one after the other, in the order of the names. ``model``
answers what names nobody.

Who is still to answer is stored beside the answer that is next (``_speakers/<answer id>``), in the commit that
makes it so; who has answered is in the answer's metadata: ``{"model": "claude"}``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..storage.object_storage import Storage
from ..wire.messages import ChatMessage

DEFAULT_MODEL = ""
"""Stands for the class's ``model`` (or its ``respond``) where models are named."""

MENTION_CHARACTERS_MAX = 65_536
"""How far into a text names are looked for: reading a megabyte would hold up other rooms."""

_FENCED = re.compile(r"^ {0,3}(```+|~~~+).*?(?:^ {0,3}\1[`~]*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_BACKTICKS = re.compile(r"`+")
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def mentions(text: str, names: Iterable[str]) -> list[str]:
    """The names that a text mentions, each once, in order; case does not matter.

    No mention is what stands in code (fenced, or in backticks), in the middle of a word, an e-mail or web
    address (``ann@claude.ai``, ``@claude.ai``), in a longer name (``@claude-2``), or behind
    `MENTION_CHARACTERS_MAX`.
    """
    known = {name.lower(): name for name in names}
    if "@" not in text or not known:
        return []
    text = text[:MENTION_CHARACTERS_MAX]
    bare = "\n\n".join(map(_without_code_spans, _BLANK_LINE.split(_FENCED.sub("\n\n", text))))
    # The longest first: `gpt-4` before `gpt`.
    choice = "|".join(re.escape(name) for name in sorted(known, key=len, reverse=True))
    found = re.findall(rf"(?<![\w@/.\-+])@({choice})(?![\w@/]|[-.:]\w)", bare, re.IGNORECASE)
    return list(dict.fromkeys(known[name.lower()] for name in found))


def _without_code_spans(paragraph: str) -> str:
    """Without what stands between two runs of as many backticks. In linear time, whatever the text."""
    runs = list(_BACKTICKS.finditer(paragraph))
    newest: dict[int, int] = {}  # by length: the nearest run of it behind the one that is looked at
    closing: list[int | None] = [None] * len(runs)
    for index in range(len(runs) - 1, -1, -1):
        length = len(runs[index].group())
        closing[index] = newest.get(length)
        newest[length] = index
    kept, position, index = [], 0, 0
    while index < len(runs):
        end = closing[index]
        if end is not None:
            kept.append(paragraph[position : runs[index].start()])
            position, index = runs[end].end(), end
        index += 1
    return " ".join([*kept, paragraph[position:]])


def speaker_of(message: ChatMessage) -> str:
    """The name of the model that gave an answer; "" where it has none."""
    name = (message.metadata or {}).get("model")
    return name if isinstance(name, str) else ""


def seen_by(messages: Iterable[ChatMessage], name: str) -> list[ChatMessage]:
    """The conversation as one of several models is shown it: what others of them said is a user's, with their name.

    A model takes every assistant's message for its own words.
    """
    shown = []
    for message in messages:
        if message.role == "assistant" and (other := speaker_of(message)) != name:
            text = [{"type": "text", "text": message.text}]
            message = ChatMessage(message.id, "user", text, {"user": other or "assistant"})
        shown.append(message)
    return shown


def instructions_for(instructions: str, name: str, others: Iterable[str]) -> str:
    """What a model is told beside the room's instructions, so that it knows who it is."""
    rest = ", ".join(f"@{other}" for other in others if other != name)
    about = f"Several people and models talk here. You are {name}." + (f" Other models: {rest}." if rest else "")
    return f"{instructions}\n\n{about}" if instructions else about


class Speakers:
    """Who is to give a room's next answers."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def plan(self, answer_id: str, names: Sequence[str], *, joins: bool = False) -> None:
        """These are to answer, one after the other; the first one's answer has this id.

        ``joins``: beside those that are planned already, for messages that are answered together.
        """
        wanted = list(dict.fromkeys([*(self.of(answer_id) if joins else ()), *names]))
        if wanted != [DEFAULT_MODEL]:
            self._storage.put(_key(answer_id), wanted)

    def of(self, answer_id: str) -> list[str]:
        """Who is planned from this answer on; where nothing was said, the room's ``model``."""
        names: list[str] = self._storage.get(_key(answer_id), [DEFAULT_MODEL], type=list[str])
        return names

    def forget(self, answer_id: str) -> None:
        """The answer has been given, or will not come."""
        if self._storage.get(_key(answer_id)) is not None:
            self._storage.delete(_key(answer_id))


def _key(answer_id: str) -> str:
    return f"_speakers/{answer_id}"
