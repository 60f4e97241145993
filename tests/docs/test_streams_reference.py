"""The tables of docs/reference/durable-streams.md say what the source says."""

from __future__ import annotations

import json
import re
from typing import Any, get_args

from tests.docs.pages import REPOSITORY, rows, samples, sections
from tests.docs.test_python_reference import served_errors

from perdure.server.streams.access import ACTION_OF
from perdure.server.streams.replies import ALLOW_HEADERS, EXPOSE_HEADERS
from perdure.wire.subscriptions import (
    ErrorCode,
    StreamInfo,
    SubscriptionConfig,
    SubscriptionError,
    parse_subscription,
    subscription_document,
    webhook_body,
)

PAGE = REPOSITORY / "docs" / "reference" / "durable-streams.md"
TEXT = sections(PAGE)


def _names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def _tables(heading: str) -> list[list[list[str]]]:
    """The rows of each table under a heading."""
    return [list(rows(part)) for part in re.split(r"\n\n(?!\|)", TEXT[heading]) if "\n|" in f"\n{part}"]


def _listed_headers(table: list[list[str]]) -> set[str]:
    return {name.lower() for row in table for name in _names(row[0])}


def _headers(value: bytes) -> set[str]:
    return set(value.decode().split(", "))


def test_request_headers_are_those_that_pages_of_other_sites_may_send() -> None:
    """The table of requests' headers has them all. (`Last-Event-ID` is for other routes.)"""
    requests, _ = _tables("Headers")
    assert _listed_headers(requests) == _headers(ALLOW_HEADERS) - {"last-event-id"}


def test_answers_headers_are_those_that_pages_of_other_sites_may_read() -> None:
    """The table of answers' headers has them all, and `Cache-Control`, which every page may read."""
    _, answers = _tables("Headers")
    assert _listed_headers(answers) == _headers(EXPOSE_HEADERS) | {"cache-control"}


def test_codes_stand_at_their_statuses() -> None:
    """Each code of the table is an error's of that status, and each error of a stream is in it."""
    [table] = _tables("Statuses and codes")
    listed = {(code, int(status)) for status, codes in table for code in _names(codes)}
    assert listed - {(error.code, error.status) for error in served_errors()} == set()
    of_streams = {
        (error.code, error.status)
        for error in served_errors()
        if re.match("Stream|Offset|Producer|Sequence|ContentType|TooMany|LimitExceeded", error.__name__)
    }
    assert of_streams - listed == set()


def test_actions_are_the_hooks() -> None:
    """The table of actions says which methods ask for which."""
    [table] = _tables("Who may do what")
    shown = {}
    for action, requests in table:
        for method in re.findall(r"\b[A-Z]{3,6}\b", requests):
            shown[method] = action.strip('`"')
    assert shown == ACTION_OF


def test_subscriptions_codes_are_all_there() -> None:
    """Each code that a request about a subscription may be refused with, at its status."""
    [table] = _tables("Errors of subscriptions")
    listed = {code: int(status) for status, codes, _ in table for code in _names(codes)}
    elsewhere = {"WEBHOOK_URL_REJECTED": 400, "TOKEN_INVALID": 401, "TOKEN_EXPIRED": 401, "limit_exceeded": 413}
    own = {code: SubscriptionError(code, "").status for code in get_args(ErrorCode)}
    assert listed == {**own, **elsewhere}
    assert set(elsewhere.items()) <= {(error.code, error.status) for error in served_errors()}


def test_a_subscriptions_fields_are_those_that_are_read() -> None:
    """The fields of the table, given all together, make the configuration; there are no others."""
    [table] = _tables("Making one")
    given: dict[str, Any] = {
        "type": "webhook",
        "pattern": "a/*",
        "streams": ["b"],
        "webhook": {"url": "https://shop.example/hook"},
        "wake_stream": "wakes",
        "lease_ttl_ms": 60_000,
        "description": "orders",
    }
    assert [row[0].strip("`") for row in table] == list(given)
    assert parse_subscription(json.dumps(given).encode()) == SubscriptionConfig(
        "webhook", "a/*", ("b",), "https://shop.example/hook", None, 60_000, "orders"
    )


def _example(word: str) -> Any:
    [found] = [json.loads(item.text) for item in samples(PAGE) if item.language == "json" and word in item.text]
    return found


def test_the_webhook_is_the_servers() -> None:
    """The body on the page is what the server would post."""
    shown = _example("callback_token")
    posted = webhook_body(
        subscription_id=shown["subscription_id"],
        wake_id=shown["wake_id"],
        generation=shown["generation"],
        streams=[StreamInfo(**item) for item in shown["streams"]],
        root_url="https://shop.example/v1/stream",
        token=shown["callback_token"],
    )
    assert json.loads(posted) == shown


def test_the_document_is_the_servers() -> None:
    """The part of a webhook's document on the page is what the server would show."""
    shown = _example("jwks_url")
    document = subscription_document(
        "packing-hook",
        SubscriptionConfig("webhook", "shops/*/orders", webhook_url=shown["webhook"]["url"]),
        streams=(),
        created_at_ms=0,
        status="active",
        root_url="https://shop.example/v1/stream",
        kid=shown["webhook"]["signing"]["kid"],
    )
    assert json.loads(document)["webhook"] == shown["webhook"]
