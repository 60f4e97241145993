"""Answers that wait at an object's gate for what was written before them."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ...errors import PerdureError
from ...objects.gate import Answer
from ...objects.instance import Instance
from ...objects.object import DurableObject
from ...wire.durable_streams import Reply
from .exchange import Exchange
from .replies import error_reply

log = structlog.get_logger("perdure.streams")


class PendingReply(Answer):
    """A reply that waits for what was written before it."""

    __slots__ = ("_exchange", "_reply")

    def __init__(self, exchange: Exchange, reply: Reply) -> None:
        self._exchange = exchange
        self._reply = reply

    def __call__(self) -> None:
        self._exchange.reply(self._reply)

    def fail(self, error: Exception) -> None:
        fail(self._exchange, error)


class PendingRead(Answer):
    """A live read that begins when what was written before it is durable."""

    __slots__ = ("_begin", "_exchange")

    def __init__(self, exchange: Exchange, begin: Callable[[], object]) -> None:
        self._exchange = exchange
        self._begin = begin

    def __call__(self) -> None:
        if self._exchange.gone:
            return
        try:
            self._begin()
        except PerdureError as error:
            self._exchange.reply(error_reply(error))

    def fail(self, error: Exception) -> None:
        fail(self._exchange, error)


def submit(owner: DurableObject, answer: Answer) -> None:
    """Let the answer go when everything that the object wrote before is durable."""
    instance = instance_of(owner)
    instance.gate.submit(owner.storage.dirty, answer)


def instance_of(owner: DurableObject) -> Instance:
    """The instance that the object is in."""
    assert isinstance(owner.context, Instance)
    return owner.context


def fail(exchange: Exchange, error: Exception) -> None:
    """Answer with an error."""
    exchange.reply(failed(exchange, error))


def failed(exchange: Exchange, error: Exception) -> Reply:
    """The answer that an error is; one that is no error of ours is logged and not shown."""
    if not isinstance(error, PerdureError):
        log.error("stream request failed", path=exchange.path, exc_info=error)
        error = PerdureError("something went wrong on the server; it has been logged")
    return error_reply(error)
