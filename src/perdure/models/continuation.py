"""Joining a continued answer to what was already said of it.

A continued answer is made by a new request, and two things can go wrong at the seam. A prompt that
ends in the partial answer must not end in a space (tokenizers and providers both refuse it), so the
model says that space again. And a model that is only *asked* to go on sometimes repeats the last words.
Either would show a reader the same text twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field

CONTINUE_INSTRUCTION = (
    "Your last answer was cut off in the middle by a technical fault. Continue it exactly where it stopped: "
    "your reply is appended to it as it is. Do not repeat anything of it, do not apologise, and do not comment. "
    "If it was complete already, reply with nothing."
)
"""What a provider without prefill is told."""

OVERLAP_CHARACTERS_MIN = 8
"""A shorter repetition may be meant: "ha" after "ha"."""

OVERLAP_CHARACTERS_MAX = 2_000
"""How far back a repetition may begin."""


def prefill(partial: str) -> str:
    """``partial`` as a prompt may end: without trailing white space."""
    return partial.rstrip()


@dataclass
class AfterSpace:
    """Takes the white space off a continued answer's beginning that `prefill` left out and was said again."""

    partial: str
    _left: str = field(init=False)
    _began: bool = False

    def __post_init__(self) -> None:
        self._left = self.partial[len(prefill(self.partial)) :]

    def feed(self, text: str) -> str:
        """What of ``text`` comes after the partial answer."""
        if not self.partial and not self._began:
            text = text.lstrip()  # a new answer does not begin with white space
            self._began = bool(text)
        elif self._left and text:
            # The model decides anew what white space follows; as much of it as was shown is not shown again.
            white = text[: len(text) - len(text.lstrip())]
            taken = min(len(white), len(self._left))
            text = text[taken:]
            self._left = self._left[taken:] if not text else ""
        return text

    def end(self) -> str:
        """Nothing is ever held back."""
        return ""


@dataclass
class AfterOverlap:
    """Takes a repetition of the partial answer's last words off the beginning of its continuation.

    Text is held back only while it agrees with the partial answer.
    """

    partial: str
    _held: str = ""
    _decided: bool = False

    def feed(self, text: str) -> str:
        """What of the text so far is new and certain."""
        if self._decided:
            return text
        self._held += text
        tail = self.partial[-OVERLAP_CHARACTERS_MAX:]
        for start in range(len(tail) - OVERLAP_CHARACTERS_MIN + 1):
            said = tail[start:]
            if self._held.startswith(said):
                return self._decide(self._held[len(said) :])
            if said.startswith(self._held):
                return ""  # may become a repetition
        return self._decide(self._held)

    def end(self) -> str:
        """What was still held back when the text ended: too little to be a repetition. More text is new."""
        held = self._held
        self._decide("")
        return held

    def _decide(self, rest: str) -> str:
        self._decided, self._held = True, ""
        return rest
