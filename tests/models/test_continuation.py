"""The seam between what was said and its continuation."""

from __future__ import annotations

import pytest

from perdure.models.continuation import AfterOverlap, AfterSpace, prefill


def _joined(seam: AfterSpace | AfterOverlap, *pieces: str) -> str:
    return "".join(seam.feed(piece) for piece in pieces) + seam.end()


def test_a_prefill_does_not_end_in_white_space() -> None:
    """Providers refuse it, and tokens begin with their space."""
    assert prefill("The answer is \n") == "The answer is"


@pytest.mark.parametrize(
    ("partial", "pieces", "rest"),
    [
        ("The answer is ", (" 42", "."), "42."),
        ("The answer is", (" 42", "."), " 42."),
        ("Look:\n\n", ("\n", "\n", "- one"), "- one"),
        ("Look:\n\n", ("\n\n\n- one",), "\n- one"),
        ("Look: ", ("here",), "here"),
        ("", ("\n", " Hello", " you"), "Hello you"),
        ("Wor", ("d",), "d"),
    ],
)
def test_white_space_is_not_said_twice(partial: str, pieces: tuple[str, ...], rest: str) -> None:
    """What the prefill left out is taken off when the model says it again."""
    assert _joined(AfterSpace(partial), *pieces) == rest


@pytest.mark.parametrize(
    ("partial", "pieces", "rest"),
    [
        ("The capital of Fra", ("nce is Paris.",), "nce is Paris."),
        ("The capital of Fra", ("The ", "capital", " of France"), "nce"),
        ("The capital of Fra", ("capital of ", "Fra", "nce"), "nce"),
        ("Once upon a time", ("Once upon a time",), ""),
        ("Once upon a time", ("Once", " more"), "Once more"),
        ("Once upon a time", ("Once",), "Once"),
        ("ha ha", (" ha", " ha"), " ha ha"),
        ("short", ("short", "er"), "shorter"),
    ],
)
def test_a_repeated_end_is_taken_off(partial: str, pieces: tuple[str, ...], rest: str) -> None:
    """A repetition of eight characters or more is not shown; less may be meant."""
    assert _joined(AfterOverlap(partial), *pieces) == rest
