"""What `scripted:paced` says: a markdown answer made from the question, the same one every time.

It lets a page be tried, filmed and tested without a model: several paragraphs, bold text, a list,
a code fence, and the words that were asked. It says itself that it is no real model.
"""

from __future__ import annotations

import re
from hashlib import blake2b

TOPIC_CHARACTERS_MAX = 80

_OPENINGS = (
    "Good question. You asked about **{topic}**, so here is the short version first, then the parts "
    "that usually matter in practice.",
    "Happy to help with **{topic}**. Let me start with the main idea and then go through it step by step.",
    "Let us look at **{topic}** together. The short answer comes first, the details below it.",
)

_IDEAS = (
    "The main idea is to make the next step small enough that you can see whether it worked. Most trouble "
    "comes from changing several things at once and not knowing which of them counted.",
    "Start from what you can observe, not from what should be true. A minute spent on writing down what "
    "happens now often saves an hour of guessing.",
    "What helps most is to separate what must always hold from what is only convenient today. The first "
    "kind deserves care; the second may change next week.",
)

_LISTS = (
    (
        "1. **Say what you want** in one sentence, as if to a friend.",
        "2. **Try the smallest version** of it, even if it looks too simple.",
        "3. **Look at the result** and keep what worked.",
        "4. **Repeat**, one change at a time.",
    ),
    (
        "- **Goal:** what should be different when you are done?",
        "- **Limits:** time, money, and what must not break.",
        "- **First step:** something you can finish today.",
        "- **Check:** how will you know that it helped?",
    ),
)

_CODE = '''```python
def next_step(plan: list[str], done: set[str]) -> str | None:
    """The first step that is still open, or None when all is done."""
    for step in plan:
        if step not in done:
            return step
    return None


print(next_step(["ask", "try", "look"], done={"ask"}))  # try
```'''

_CLOSINGS = (
    "If you tell me a little more about your situation, I can be more specific: what have you tried, "
    "and what happened?",
    "Would you like me to go deeper into one of these points? Just name the one that matters most to you.",
)

_NOTE = (
    "*(This is perdure's built-in demo voice, not a language model: set an API key or install "
    "`perdure[local]` for a real one. Reload the page or pull the plug while it talks: no word is lost.)*"
)

_GREETING = re.compile(r"\s*(hi|hello|hey|hallo|good (morning|afternoon|evening))\b[\s!.,]*\w{0,12}[\s!.]*", re.I)


def demo_answer(text: str) -> str:
    """The answer to ``text``: about 200 words of markdown, shorter for a greeting."""
    if _GREETING.fullmatch(text):
        return (
            "Hello! **Nice to meet you.** Ask me anything you like, for example:\n\n"
            "- *How do I plan a small project?*\n- *What is a durable object?*\n"
            "- *Show me a bit of Python.*\n\n" + _NOTE
        )
    choice = blake2b(text.encode(errors="replace"), digest_size=4).digest()
    steps = _LISTS[choice[2] % len(_LISTS)]
    return "\n\n".join(
        (
            _OPENINGS[choice[0] % len(_OPENINGS)].format(topic=_topic(text)),
            _IDEAS[choice[1] % len(_IDEAS)],
            "Here is a way to go about it:",
            "\n".join(steps),
            "And the same thought as a few lines of Python, because code leaves no room for vagueness:",
            _CODE,
            _CLOSINGS[choice[3] % len(_CLOSINGS)],
            _NOTE,
        )
    )


def _topic(text: str) -> str:
    """The question as a short noun-like phrase: one line, no markdown of its own, no question mark."""
    words = " ".join(re.sub(r"[*_`#<>\[\]|\\]", " ", text).split()).rstrip("?!. ")
    if len(words) > TOPIC_CHARACTERS_MAX:
        words = words[:TOPIC_CHARACTERS_MAX].rsplit(" ", 1)[0] + "…"
    return words or "that"
