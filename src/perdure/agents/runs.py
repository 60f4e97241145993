"""What all kinds of an agent's work have: a row, and a place that knows what becomes of it."""

from __future__ import annotations

import msgspec

from .retries import Retry


class Row(msgspec.Struct, frozen=True):
    """What all kinds of work have."""

    id: str
    callback: str
    payload: str
    attempts: int
    retry: str


class Source:
    """A kind of work: where its rows are, and what becomes of one that has run. Implemented by each kind."""

    name: str

    def done(self, row: Row) -> None:
        """It has run, or will not be tried again."""
        raise NotImplementedError

    def put_off(self, row: Row, due_ms: int) -> None:
        """It has failed once more and is tried again at that time."""
        raise NotImplementedError


def encode_retry(retry: Retry | None) -> str:
    """The rule as it is kept with a row."""
    return msgspec.json.encode(retry or Retry()).decode()
