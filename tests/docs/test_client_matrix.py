"""The page of clients is what the tests show."""

from __future__ import annotations

from typing import get_args

from tests.client_matrix import BEGIN, END, PAGE, TOLD, Client, Feature, marks, table


def test_the_table_is_drawn_from_the_marks() -> None:
    """After a new mark: ``python -m tests.client_matrix --write``."""
    drawn = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    assert drawn.strip() == table().strip()


def test_every_family_is_shown() -> None:
    """Each can at least speak and be answered, and each feature works somewhere."""
    found = list(marks())
    assert {shown.client for shown in found if shown.feature == "send"} == set(get_args(Client))
    assert {shown.feature for shown in found} == set(TOLD) == set(get_args(Feature))
