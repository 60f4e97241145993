"""ChatML, the prompt format of SmolLM2 and many other small models, cut to a token budget.

::

    <|im_start|>system
    You are …<|im_end|>
    <|im_start|>user
    Hello<|im_end|>
    <|im_start|>assistant
    Hi! How ca                       <- what was already said; the model goes on from here

A small context window and a slow processor rule the cutting: the newest message is kept whole as long as
it can be, older ones are dropped from the front in blocks, so that the beginning of the prompt (which
llama.cpp has in its cache) stays the same for a few turns.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .continuation import prefill

if TYPE_CHECKING:
    from .base import TurnContext

STOP_TEXTS = ("<|im_end|>", "<|im_start|>", "<|endoftext|>")

DEFAULT_INSTRUCTIONS = "You are a helpful AI assistant. Give short, clear and friendly answers."

HISTORY_BLOCK_MESSAGES = 4
"""Old messages are dropped this many at once: two exchanges."""

_SPECIAL = re.compile(r"<\|[^<>|\s]{1,40}\|>")


def chatml_prompt(turn: TurnContext, *, prompt_tokens_max: int, history_tokens_max: int) -> str:
    """The prompt of ``turn``, ending in what was already said of the answer.

    About ``prompt_tokens_max`` tokens in all and ``history_tokens_max`` for the messages before the newest;
    both by estimate. Special tokens in anyone's text are removed: nobody can write another role's words.
    The partial answer's trailing white space is left out: tokens begin with their space (`continuation`).
    """
    system = "\n".join(
        [turn.instructions or DEFAULT_INSTRUCTIONS, *(m.text for m in turn.messages if m.role == "system")]
    )
    talk = [(m.role, m.text) for m in turn.messages if m.role != "system" and m.text.strip()]
    if not talk or talk[-1][0] != "user":
        talk.append(("user", turn.text))
    *history, (_, newest) = talk

    system = _shorten(_plain(system), prompt_tokens_max // 4)
    partial = _tail(prefill(_plain(turn.partial)), prompt_tokens_max // 2)
    left = prompt_tokens_max - estimated_tokens(system) - estimated_tokens(partial)
    newest = _shorten(_plain(newest), left)
    left -= estimated_tokens(newest)
    kept = _newest_that_fit([(role, _plain(text)) for role, text in history], min(left, history_tokens_max))

    lines = [f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in [("system", system), *kept]]
    return "".join(lines) + f"<|im_start|>user\n{newest}<|im_end|>\n<|im_start|>assistant\n{partial}"


def estimated_tokens(text: str) -> int:
    """About how many tokens ``text`` is, rather too many than too few; 5 for the frame of a message."""
    characters = len(text)
    other_bytes = len(text.encode(errors="replace")) - characters
    return 5 + int(characters / 3.2 + other_bytes / 1.3)


def _newest_that_fit(history: Sequence[tuple[str, str]], tokens_max: int) -> Sequence[tuple[str, str]]:
    costs = [estimated_tokens(text) for _, text in history]
    start = 0
    while start < len(history) and sum(costs[start:]) > tokens_max:
        start += HISTORY_BLOCK_MESSAGES
    return history[start:]


def _plain(text: str) -> str:
    return _SPECIAL.sub("", text)


def _shorten(text: str, tokens_max: int) -> str:
    """The beginning and the end of ``text``: questions stand in one or the other."""
    characters = _characters_within(text, tokens_max)
    if len(text) <= characters:
        return text
    half = characters // 2
    return f"{text[:half]}\n…\n{text[len(text) - half :]}"


def _tail(text: str, tokens_max: int) -> str:
    return text[len(text) - min(len(text), _characters_within(text, tokens_max)) :]


def _characters_within(text: str, tokens_max: int) -> int:
    tokens = estimated_tokens(text)
    return len(text) if tokens <= tokens_max else max(1, len(text) * max(tokens_max, 1) // tokens)
