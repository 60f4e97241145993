"""JSON text that was cut anywhere: what it holds so far.

While a model writes a tool's input, front ends show the part that is there. This gives the
value that the AI SDK gives for the same text, so that a stored message and a live one agree:
an open text is closed, a key without a value is dropped, half an escape or half a number is
left out, ``tr`` is read as ``true``.

A stack of states follows the text; ``kept`` is the length of the prefix after which the text
can be completed by closing what is open::

    {"city": "Par        stack: FINISH, OBJECT_AFTER_VALUE, STRING     completed by  "}
    {"city": "Paris", "co       stack: FINISH, KEY      kept up to Paris", completed by  }
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Any

import msgspec

from .json_text import has_prototype_key


class _State(Enum):
    ROOT = auto()
    FINISH = auto()
    STRING = auto()
    ESCAPE = auto()
    UNICODE_ESCAPE = auto()
    LITERAL = auto()
    NUMBER = auto()
    OBJECT_START = auto()
    KEY = auto()
    AFTER_KEY = auto()
    BEFORE_VALUE = auto()
    OBJECT_AFTER_VALUE = auto()
    OBJECT_AFTER_COMMA = auto()
    ARRAY_START = auto()
    ARRAY_AFTER_VALUE = auto()
    ARRAY_AFTER_COMMA = auto()


_AFTER_VALUE_OF = {
    _State.ROOT: _State.FINISH,
    _State.BEFORE_VALUE: _State.OBJECT_AFTER_VALUE,
    _State.ARRAY_START: _State.ARRAY_AFTER_VALUE,
    _State.ARRAY_AFTER_COMMA: _State.ARRAY_AFTER_VALUE,
}
"""Where a value may begin, and the state once it has."""

_CLOSERS = {
    _State.STRING: '"',
    **dict.fromkeys((_State.ARRAY_START, _State.ARRAY_AFTER_VALUE, _State.ARRAY_AFTER_COMMA), "]"),
    **dict.fromkeys(
        (
            _State.OBJECT_START,
            _State.KEY,
            _State.AFTER_KEY,
            _State.BEFORE_VALUE,
            _State.OBJECT_AFTER_VALUE,
            _State.OBJECT_AFTER_COMMA,
        ),
        "}",
    ),
}

_LITERALS = ("true", "false", "null")
_STRING_BREAK = re.compile(r'["\\]')


def parse_partial_json(text: str) -> Any:
    """The value of a JSON text that may be cut; `msgspec.UNSET` where nothing can be said yet."""
    value = _parse(text)
    return _parse(_Completion(text).result()) if value is msgspec.UNSET else value


def _parse(text: str) -> Any:
    try:
        value = msgspec.json.decode(text)
    except (ValueError, RecursionError):
        return msgspec.UNSET
    return msgspec.UNSET if has_prototype_key(value) else value


class _Completion:
    """One pass over a cut text."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._stack = [_State.ROOT]
        self._kept = 0
        self._literal_start = 0
        self._hex_digits = 0

    def result(self) -> str:
        text, index = self._text, 0
        while index < len(text):
            if self._stack[-1] is _State.STRING:
                # Long texts are the bulk of long inputs: skip to where something happens.
                found = _STRING_BREAK.search(text, index)
                index = found.start() if found else len(text)
                self._kept = max(self._kept, index)
                if found is None:
                    break
            self._advance(text[index], index)
            index += 1
        return text[: self._kept] + "".join(self._closing(state) for state in reversed(self._stack))

    def _closing(self, state: _State) -> str:
        if state is _State.LITERAL:
            begun = self._text[self._literal_start :]
            return next((word[len(begun) :] for word in _LITERALS if word.startswith(begun)), "")
        return _CLOSERS.get(state, "")

    def _advance(self, character: str, index: int) -> None:
        stack = self._stack
        state = stack[-1]
        if state in _AFTER_VALUE_OF:
            self._value_may_begin(state, character, index)
        elif state is _State.STRING:
            if character == '"':
                self._pop_kept(index)
            else:
                stack.append(_State.ESCAPE)
        elif state is _State.KEY:
            if character == '"':
                stack[-1] = _State.AFTER_KEY
        elif state is _State.AFTER_KEY:
            if character == ":":
                stack[-1] = _State.BEFORE_VALUE
        elif state in (_State.OBJECT_START, _State.OBJECT_AFTER_COMMA):
            if character == '"':
                stack[-1] = _State.KEY
            elif character == "}" and state is _State.OBJECT_START:
                self._pop_kept(index)
        elif state in (_State.OBJECT_AFTER_VALUE, _State.ARRAY_AFTER_VALUE):
            self._value_may_end(character, index)
            if state is _State.ARRAY_AFTER_VALUE and character not in ",]":
                self._kept = index + 1
        elif state is _State.NUMBER:
            self._in_number(character, index)
        elif state is _State.LITERAL:
            self._in_literal(character, index)
        else:
            self._in_escape(state, character, index)

    def _value_may_begin(self, state: _State, character: str, index: int) -> None:
        if state is _State.ARRAY_START:
            self._kept = index + 1
            if character == "]":
                self._stack.pop()
                return
        opened = {'"': _State.STRING, "{": _State.OBJECT_START, "[": _State.ARRAY_START}.get(character)
        if opened is None and character in ("t", "f", "n"):
            opened = _State.LITERAL
            self._literal_start = index
        elif opened is None and (character == "-" or (character.isascii() and character.isdigit())):
            opened = _State.NUMBER
        if opened is None:
            return
        if character != "-":
            self._kept = index + 1
        self._stack[-1] = _AFTER_VALUE_OF[state]
        self._stack.append(opened)

    def _value_may_end(self, character: str, index: int) -> None:
        state = self._stack[-1]
        if state is _State.OBJECT_AFTER_VALUE:
            if character == ",":
                self._stack[-1] = _State.OBJECT_AFTER_COMMA
            elif character == "}":
                self._pop_kept(index)
        elif state is _State.ARRAY_AFTER_VALUE:
            if character == ",":
                self._stack[-1] = _State.ARRAY_AFTER_COMMA
            elif character == "]":
                self._pop_kept(index)

    def _in_number(self, character: str, index: int) -> None:
        if character.isascii() and character.isdigit():
            self._kept = index + 1
        elif character not in "eE-.":
            self._stack.pop()
            self._value_may_end(character, index)

    def _in_literal(self, character: str, index: int) -> None:
        begun = self._text[self._literal_start : index + 1]
        if any(word.startswith(begun) for word in _LITERALS):
            self._kept = index + 1
        else:
            self._stack.pop()
            self._value_may_end(character, index)

    def _in_escape(self, state: _State, character: str, index: int) -> None:
        if state is _State.ESCAPE:
            if character == "u":
                self._stack[-1] = _State.UNICODE_ESCAPE
                self._hex_digits = 0
            else:
                self._pop_kept(index)
        elif state is _State.UNICODE_ESCAPE and character in "0123456789abcdefABCDEF":
            self._hex_digits += 1
            if self._hex_digits == 4:
                self._pop_kept(index)

    def _pop_kept(self, index: int) -> None:
        self._stack.pop()
        self._kept = index + 1
