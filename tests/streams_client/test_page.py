"""The how-to page says what the source says, and both shells offer the same."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator

import pytest
from tests.docs.pages import REPOSITORY, rows, sections

import perdure.streams_client
from perdure import errors
from perdure.errors import PerdureError
from perdure.streams_client import (
    AsyncFollow,
    AsyncProducer,
    AsyncStream,
    AsyncStreamClient,
    ClientLimits,
    Follow,
    Producer,
    Stream,
    StreamClient,
)

TABLES = sections(REPOSITORY / "docs" / "how-to" / "streams-client.md")["When something is wrong"]


def _limits() -> Iterator[tuple[str, float]]:
    for field in dataclasses.fields(ClientLimits):
        assert isinstance(field.default, int | float)
        yield f"ClientLimits.{field.name}", field.default
    for parameter in inspect.signature(Stream.producer).parameters.values():
        if re.search(r"_(max|ms)$", parameter.name):
            yield parameter.name, parameter.default


def test_every_limit_is_listed() -> None:
    """With its default."""
    values = {row[0].split("`")[1]: row[1].replace(",", "") for row in rows(TABLES)}
    listed = {name: float(value) for name, value in values.items() if "_" in name}
    assert listed == dict(_limits())


def test_every_error_is_listed() -> None:
    """Those of the client, and those of perdure that it raises."""
    listed = [name for row in rows(TABLES) for name in re.findall(r"`([A-Z][A-Za-z]+)`", row[0])]
    own = [
        name
        for name, item in vars(perdure.streams_client).items()
        if inspect.isclass(item) and issubclass(item, PerdureError)
    ]
    assert set(own) <= set(listed)
    assert [name for name in listed if name not in own and not hasattr(errors, name)] == []


@pytest.mark.parametrize(
    ("blocking", "asynchronous"),
    [(StreamClient, AsyncStreamClient), (Stream, AsyncStream), (Follow, AsyncFollow), (Producer, AsyncProducer)],
)
def test_the_shells_are_alike(blocking: type, asynchronous: type) -> None:
    """Every method and property of one is in the other, with the same arguments and defaults."""

    def offered(item: type) -> dict[str, str]:
        found = {}
        for name, member in vars(item).items():
            if name[0] != "_" or (name == "__init__" and "Client" in item.__name__):
                signature = str(inspect.signature(member)) if inspect.isfunction(member) else ""
                found["close" if name == "aclose" else name] = signature.replace("Async", "")
        return found

    assert offered(asynchronous) == offered(blocking)
