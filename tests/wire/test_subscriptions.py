"""Requests about subscriptions, as the protocol's text and its suite write them, and their answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import LimitExceeded
from perdure.wire.subscriptions import (
    DESCRIPTION_BYTES_MAX,
    EXPLICIT_STREAMS_MAX,
    LEASE_TTL_MS,
    LEASE_TTL_MS_MAX,
    LEASE_TTL_MS_MIN,
    PATTERN_BYTES_MAX,
    SUBSCRIPTION_BODY_BYTES_MAX,
    SUBSCRIPTION_ID_BYTES_MAX,
    SUBSCRIPTION_PATH_BYTES_MAX,
    WAKE_OFFSET_BYTES_MAX,
    WORKER_BYTES_MAX,
    AckRequest,
    StreamInfo,
    StreamPattern,
    SubscriptionConfig,
    SubscriptionError,
    ack_document,
    check_subscription_id,
    claim_document,
    config_hash,
    is_after,
    later_offset,
    parse_ack,
    parse_claim,
    parse_streams,
    parse_subscription,
    stream_path,
    subscription_document,
    wake_event,
    webhook_body,
    webhook_is_done,
)
from perdure.wire.webhooks import WebhookRejected

ROOT = "https://server.example/v1/stream"
HOOK = {"type": "webhook", "pattern": "events/*", "webhook": {"url": "https://worker.example/hooks"}}
PULL = {"type": "pull-wake", "pattern": "events/*", "wake_stream": "wake/pool"}
ABC = StreamInfo("events/abc", "glob", "0000000000000001", "0000000000000002", True)


def parse(fields: Any, **more: Any) -> SubscriptionConfig:
    return parse_subscription(json.dumps({**fields, **more}).encode())


def refused(caught: pytest.ExceptionInfo[SubscriptionError]) -> tuple[str, int]:
    return caught.value.code, caught.value.status


def test_a_webhook_subscription() -> None:
    """All fields, as PROTOCOL.md section 6.2 shows them."""
    config = parse_subscription(
        b'{"type":"webhook","pattern":"/events/*","streams":["events/manual-b","/events/manual-a/","events/manual-b"],'
        b'"webhook":{"url":"https://worker.example/hooks"},"wake_stream":"wake/pool","lease_ttl_ms":45000,'
        b'"description":"event processor"}'
    )
    assert config == SubscriptionConfig(
        type="webhook",
        pattern="events/*",
        streams=("events/manual-a", "events/manual-b"),
        webhook_url="https://worker.example/hooks",
        wake_stream=None,
        lease_ttl_ms=45_000,
        description="event processor",
    )


def test_a_pull_wake_subscription() -> None:
    """The least that there may be; null is absent, unknown fields are ignored."""
    expected = SubscriptionConfig("pull-wake", streams=("a",), wake_stream="wake/pool")
    assert parse({"type": "pull-wake", "streams": ["a"], "wake_stream": "/wake/pool"}) == expected
    nulls: dict[str, Any] = {
        "pattern": None,
        "webhook": None,
        "lease_ttl_ms": None,
        "description": None,
        "id": "sub-1",
        "new": {},
    }
    assert parse({"type": "pull-wake", "streams": ["a"], "wake_stream": "wake/pool", **nulls}) == expected
    assert expected.lease_ttl_ms == LEASE_TTL_MS == 30_000


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "type is"),
        (b"{", "not valid JSON"),
        (b"\xff", "not valid"),
        (b"[]", "JSON object"),
        (b'{"type":"push"}', "type is webhook or pull-wake"),
        (b'{"type":["webhook"]}', "type is"),
        (b'{"type":"webhook","webhook":{"url":"https://a.example"}}', "needs a pattern or streams"),
        (b'{"type":"webhook","pattern":"a","webhook":{}}', "needs webhook.url"),
        (b'{"type":"webhook","pattern":"a","webhook":"https://a.example"}', "needs webhook.url"),
        (b'{"type":"webhook","pattern":"a"}', "needs webhook.url"),
        (b'{"type":"pull-wake","pattern":"a"}', "needs wake_stream"),
        (b'{"type":"pull-wake","pattern":"a","wake_stream":""}', "wake_stream is"),
        (b'{"type":"pull-wake","pattern":"a","wake_stream":"/"}', "path of a stream"),
        (b'{"type":"pull-wake","pattern":"a","wake_stream":"__ds/x"}', "reserved"),
        (b'{"type":"pull-wake","streams":["w"],"wake_stream":"w"}', "its own wake_stream"),
        (b'{"type":"pull-wake","pattern":"","wake_stream":"w"}', "pattern is"),
        (b'{"type":"pull-wake","pattern":"//","wake_stream":"w"}', "pattern is"),
        (b'{"type":"pull-wake","pattern":7,"wake_stream":"w"}', "pattern is"),
        (b'{"type":"pull-wake","streams":[],"wake_stream":"w"}', "needs a pattern or streams"),
        (b'{"type":"pull-wake","streams":"a","wake_stream":"w"}', "array of paths"),
        (b'{"type":"pull-wake","streams":["a",7],"wake_stream":"w"}', "array of paths"),
        (b'{"type":"pull-wake","streams":["__ds"],"wake_stream":"w"}', "reserved"),
        (b'{"type":"pull-wake","streams":["a\\u0000"],"wake_stream":"w"}', "path of a stream"),
        (b'{"type":"pull-wake","pattern":"a","wake_stream":"w","description":7}', "description is"),
    ],
)
def test_what_is_no_subscription(body: bytes, message: str) -> None:
    """Refused with the field's name."""
    with pytest.raises(SubscriptionError, match=message) as caught:
        parse_subscription(body)
    assert refused(caught) == ("INVALID_REQUEST", 400)


def test_an_unsafe_webhook_is_refused() -> None:
    """By the rules of `parse_webhook_url`, with the suite's own example."""
    with pytest.raises(WebhookRejected) as caught:
        parse(HOOK, webhook={"url": "http://10.0.0.1/hook"})
    assert caught.value.as_json() == {
        "error": {
            "code": "WEBHOOK_URL_REJECTED",
            "message": "webhook.url by plain http is for localhost and 127.x.x.x only; use https",
            "retryable": False,
        }
    }


def test_a_lease_has_bounds() -> None:
    """`LEASE_TTL_MS_MIN` and `LEASE_TTL_MS_MAX`, whole milliseconds."""
    for good in (LEASE_TTL_MS_MIN, 1000.0, LEASE_TTL_MS_MAX):
        assert parse(PULL, lease_ttl_ms=good).lease_ttl_ms == int(good)
    assert (LEASE_TTL_MS_MIN, LEASE_TTL_MS_MAX) == (1_000, 600_000)
    for bad in (999, 600_001, 1000.5, -1, 0, True, "1000", [1000], float("1e300")):
        with pytest.raises(SubscriptionError, match="lease_ttl_ms is an integer from 1000 to 600000"):
            parse(PULL, lease_ttl_ms=bad)


@pytest.mark.parametrize(
    ("limit", "maximum", "fields"),
    [
        ("pattern_bytes_max", PATTERN_BYTES_MAX, lambda size: {"pattern": "x" * size}),
        ("subscription_path_bytes_max", SUBSCRIPTION_PATH_BYTES_MAX, lambda size: {"streams": ["x" * size]}),
        ("subscription_path_bytes_max", SUBSCRIPTION_PATH_BYTES_MAX, lambda size: {"wake_stream": "x" * size}),
        ("description_bytes_max", DESCRIPTION_BYTES_MAX, lambda size: {"description": "x" * (size - 2) + "\u00fc"}),
        ("explicit_streams_max", EXPLICIT_STREAMS_MAX, lambda count: {"streams": [f"s{n}" for n in range(count)]}),
    ],
    ids=["pattern", "streams", "wake_stream", "description", "number of streams"],
)
def test_sizes_have_limits(limit: str, maximum: int, fields: Any) -> None:
    """Up to the limit it is taken, one more is a 413 with the limit's name."""
    parse(PULL, **fields(maximum))
    with pytest.raises(LimitExceeded, match=limit):
        parse(PULL, **fields(maximum + 1))


def test_a_body_has_a_limit() -> None:
    """Of every request; it holds all explicit streams with the longest paths."""
    body = b'{"worker":"w"' + b" " * (SUBSCRIPTION_BODY_BYTES_MAX - 14) + b"}"
    assert len(body) == SUBSCRIPTION_BODY_BYTES_MAX
    assert parse_claim(body) == "w"
    with pytest.raises(LimitExceeded, match="subscription_body_bytes_max"):
        parse_claim(body + b" ")
    longest = [str(number).ljust(SUBSCRIPTION_PATH_BYTES_MAX, "x") for number in range(EXPLICIT_STREAMS_MAX)]
    acks = [{"stream": path, "offset": "0" * WAKE_OFFSET_BYTES_MAX} for path in longest]
    assert len(parse_streams(json.dumps({"streams": longest}).encode())) == EXPLICIT_STREAMS_MAX
    assert len(parse_ack(json.dumps({"wake_id": "w", "generation": 1, "acks": acks}).encode()).acks) == 1_000


def test_an_id_has_a_form() -> None:
    """Any text without control characters, up to `subscription_id_bytes_max` bytes."""
    assert check_subscription_id("sub 1/\u00fc") == "sub 1/\u00fc"
    check_subscription_id("x" * SUBSCRIPTION_ID_BYTES_MAX)
    with pytest.raises(LimitExceeded, match="subscription_id_bytes_max"):
        check_subscription_id("x" * (SUBSCRIPTION_ID_BYTES_MAX + 1))
    for bad in ("", "a\nb", "\x7f", "\ud800"):
        with pytest.raises(SubscriptionError) as caught:
            check_subscription_id(bad)
        assert refused(caught) == ("INVALID_REQUEST", 400)


def test_the_hash_is_of_what_counts() -> None:
    """Order, repetition and slashes do not; every field does. The value never changes."""
    config = parse(HOOK, streams=["b", "a"], description="d")
    # sha256sum of ["webhook","events/*",["a","b"],"https://worker.example/hooks",null,30000,"d"]
    assert config_hash(config) == "783b85fd4585b51ffe27be9fb44afd9bdf4a6386bf84de48ffdd6afd6b7a9491"
    assert config_hash(parse(HOOK, streams=["/a", "b/", "a"], description="d", lease_ttl_ms=30_000)) == config_hash(
        config
    )
    others = [
        parse(HOOK, streams=["b", "a"]),
        parse(HOOK, streams=["b"], description="d"),
        parse(HOOK, streams=["b", "a"], description="d", pattern="events/**"),
        parse(HOOK, streams=["b", "a"], description="d", lease_ttl_ms=30_001),
        parse(HOOK, streams=["b", "a"], description="d", webhook={"url": "https://worker.example/hook"}),
        parse(PULL, streams=["b", "a"], description="d"),
        parse(PULL, streams=["b", "a"], description="d", wake_stream="wake/other"),
    ]
    assert len({config_hash(other) for other in [config, *others]}) == 8


def test_streams_to_watch_by_name() -> None:
    """`{"streams": [...]}`, normalised."""
    assert parse_streams(b'{"streams":["/events/y","events/x/","events/x"]}') == ("events/x", "events/y")
    for bad in (
        b"",
        b"{}",
        b'{"streams":[]}',
        b'{"streams":{"a":1}}',
        b'{"streams":[""]}',
        b'{"streams":["__ds/a"]}',
    ):
        with pytest.raises(SubscriptionError) as caught:
            parse_streams(bad)
        assert refused(caught) == ("INVALID_REQUEST", 400)


def test_paths() -> None:
    """Slashes at the ends do not count, those inside do; only a whole segment __ds is reserved."""
    assert stream_path("/a/b/") == "a/b"
    assert stream_path("a//b") == "a//b"
    assert stream_path("__dsx/a") == "__dsx/a"
    assert stream_path("a/__ds") == "a/__ds"
    assert stream_path("r\u00e4ume/1") == "r\u00e4ume/1"
    for bad in ("", "//", "__ds", "/__ds/jwks.json", "a\tb", "\udfff"):
        with pytest.raises(SubscriptionError):
            stream_path(bad)


def test_a_claim_names_its_worker() -> None:
    """A text, up to `worker_bytes_max` bytes."""
    assert parse_claim(b'{"worker":"worker-1"}') == "worker-1"
    assert parse_claim(json.dumps({"worker": "x" * WORKER_BYTES_MAX}).encode())
    with pytest.raises(LimitExceeded, match="worker_bytes_max"):
        parse_claim(json.dumps({"worker": "x" * (WORKER_BYTES_MAX + 1)}).encode())
    for bad in (b"", b"{}", b'{"worker":""}', b'{"worker":7}', b'{"worker":null}', b"null"):
        with pytest.raises(SubscriptionError) as caught:
            parse_claim(bad)
        assert refused(caught) == ("INVALID_REQUEST", 400)


def test_an_ack() -> None:
    """By `stream` or by `path`; of a stream that is named twice, the last offset counts."""
    assert parse_ack(
        b'{"wake_id":"w_1","generation":7,"done":true,"acks":[{"stream":"/events/a","offset":"0000000000000002"},'
        b'{"path":"b","offset":"-1"},{"stream":"events/a","offset":"0000000000000001"}]}'
    ) == AckRequest("w_1", 7, {"events/a": "0000000000000002", "b": "-1"}, True)
    assert parse_ack(b'{"wake_id":"w_1","generation":7}') == AckRequest("w_1", 7, {}, False)
    assert parse_ack(b'{"wake_id":"w_1","generation":7,"acks":null,"done":null}') == AckRequest("w_1", 7)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"wake_id": None, "generation": 7},
        {"wake_id": "w", "generation": "7"},
        {"wake_id": "w", "generation": True},
        {"wake_id": "w", "generation": 7, "done": "true"},
        {"wake_id": "w", "generation": 7, "acks": {}},
        {"wake_id": "w", "generation": 7, "acks": ["a"]},
        {"wake_id": "w", "generation": 7, "acks": [{"stream": "a"}]},
        {"wake_id": "w", "generation": 7, "acks": [{"offset": "1"}]},
        {"wake_id": "w", "generation": 7, "acks": [{"stream": "a", "offset": 1}]},
        {"wake_id": "w", "generation": 7, "acks": [{"stream": "a", "offset": ""}]},
        {"wake_id": "w", "generation": 7, "acks": [{"stream": "", "offset": "1"}]},
    ],
)
def test_what_is_no_ack(fields: dict[str, Any]) -> None:
    """A half-understood ack is not half applied."""
    with pytest.raises(SubscriptionError) as caught:
        parse_ack(json.dumps(fields).encode())
    assert refused(caught) == ("INVALID_REQUEST", 400)


def test_an_offset_has_a_length() -> None:
    """`wake_offset_bytes_max`, on both sides."""

    def ack(offset: str) -> AckRequest:
        body = {"wake_id": "w", "generation": 7, "acks": [{"stream": "a", "offset": offset}]}
        return parse_ack(json.dumps(body).encode())

    assert ack("0" * WAKE_OFFSET_BYTES_MAX).acks == {"a": "0" * 256}
    with pytest.raises(LimitExceeded, match="wake_offset_bytes_max"):
        ack("0" * (WAKE_OFFSET_BYTES_MAX + 1))


def test_offsets_compare_as_text() -> None:
    """-1 is before everything, also before what sorts before a minus."""
    assert is_after("0000000000000010", "0000000000000009")
    assert is_after("0", "-1")
    assert is_after("+", "-1")
    assert not is_after("-1", "+")
    assert not is_after("-1", "-1")
    assert not is_after("a", "a")
    assert later_offset("-1", "0") == later_offset("0", "-1") == "0"


def test_a_webhooks_reply() -> None:
    """Only `{"done": true}` says done; a reply is whatever somebody's server sends."""
    assert webhook_is_done(b'{"done":true,"more":1}')
    for reply in (
        b"",
        b"ok",
        b"\xff",
        b"true",
        b"{}",
        b'{"done":false}',
        b'{"done":1}',
        b'{"done":"true"}',
        b"[" * 9999,
    ):
        assert not webhook_is_done(reply)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("INVALID_REQUEST", 400),
        ("SUBSCRIPTION_NOT_FOUND", 404),
        ("SUBSCRIPTION_ALREADY_EXISTS", 409),
        ("FENCED", 409),
        ("NO_PENDING_WORK", 409),
        ("INVALID_OFFSET", 409),
    ],
)
def test_refusals(code: Any, status: int) -> None:
    """One shape, the protocol's codes."""
    error = SubscriptionError(code, "why")
    assert error.status == status
    assert error.as_json() == {"error": {"code": code, "message": "why", "retryable": False}}


def test_a_claimed_subscription_says_by_whom() -> None:
    """The only refusal with more to say, and the only one that passes by itself."""
    error = SubscriptionError("ALREADY_CLAIMED", "why", current_holder="worker-2", generation=7)
    assert error.status == 409
    assert error.as_json() == {
        "error": {
            "code": "ALREADY_CLAIMED",
            "message": "why",
            "retryable": True,
            "current_holder": "worker-2",
            "generation": 7,
        }
    }


def test_the_document_of_a_webhook_subscription() -> None:
    """As PROTOCOL.md section 6.3 shows it, with what the suite asks of `webhook.signing`."""
    document = subscription_document(
        "sub-1",
        parse(HOOK, description="event processor"),
        streams=[ABC, StreamInfo("manual/a", "explicit", "-1", "-1", False)],
        created_at_ms=1_778_284_800_007,
        status="active",
        root_url=ROOT,
        kid="ds_x",
    )
    assert json.loads(document) == {
        "id": "sub-1",
        "subscription_id": "sub-1",
        "type": "webhook",
        "pattern": "events/*",
        "streams": [
            {"path": "events/abc", "link_type": "glob", "acked_offset": "0000000000000001"},
            {"path": "manual/a", "link_type": "explicit", "acked_offset": "-1"},
        ],
        "webhook": {
            "url": "https://worker.example/hooks",
            "signing": {"alg": "ed25519", "kid": "ds_x", "jwks_url": f"{ROOT}/__ds/jwks.json"},
        },
        "lease_ttl_ms": 30_000,
        "created_at": "2026-05-09T00:00:00.007Z",
        "status": "active",
        "description": "event processor",
    }


def test_the_document_of_a_pull_wake_subscription() -> None:
    """What is not set is left out."""
    config = parse({"type": "pull-wake", "streams": ["a"], "wake_stream": "wake/pool"})
    document = subscription_document(
        "sub-1", config, streams=[], created_at_ms=0, status="failed", root_url=ROOT, kid="ds_x"
    )
    assert document == (
        b'{"id":"sub-1","subscription_id":"sub-1","type":"pull-wake","streams":[],"wake_stream":"wake/pool",'
        b'"lease_ttl_ms":30000,"created_at":"1970-01-01T00:00:00.000Z","status":"failed"}'
    )


def test_the_body_of_a_webhook() -> None:
    """As PROTOCOL.md section 7.1 shows it; the id is escaped like JavaScript's encodeURIComponent escapes slashes."""
    body = webhook_body(
        subscription_id="sub/1 \u00fc", wake_id="w_abc123", generation=7, streams=[ABC], root_url=ROOT, token="eyJ"
    )
    assert json.loads(body) == {
        "subscription_id": "sub/1 \u00fc",
        "wake_id": "w_abc123",
        "generation": 7,
        "streams": [
            {
                "path": "events/abc",
                "link_type": "glob",
                "acked_offset": "0000000000000001",
                "tail_offset": "0000000000000002",
                "has_pending": True,
            }
        ],
        "callback_url": f"{ROOT}/__ds/subscriptions/sub%2F1%20%C3%BC/callback",
        "callback_token": "eyJ",
    }


def test_the_other_answers() -> None:
    """A claim, an ack, and the event in the wake stream."""
    claim = claim_document(wake_id="w_1", generation=7, token="eyJ", streams=[ABC], lease_ttl_ms=1_000)
    assert claim == (
        b'{"wake_id":"w_1","generation":7,"token":"eyJ","streams":[{"path":"events/abc","link_type":"glob",'
        b'"acked_offset":"0000000000000001","tail_offset":"0000000000000002","has_pending":true}],"lease_ttl_ms":1000}'
    )
    assert ack_document(False) == b'{"ok":true,"next_wake":false}'
    assert wake_event(subscription_id="sub-1", stream="events/abc", generation=7, now_ms=1_778_324_210_000) == (
        b'{"type":"wake","subscription_id":"sub-1","stream":"events/abc","generation":7,"ts":1778324210000}'
    )


@pytest.mark.parametrize(
    ("pattern", "path", "covered"),
    [
        ("events/a", "events/a", True),
        ("events/a", "events/ab", False),
        ("/events/a/", "events/a", True),
        ("events/*", "events/a", True),
        ("events/*", "events", False),
        ("events/*", "events/a/b", False),
        ("events/*/x", "events/a/x", True),
        ("*", "events", True),
        ("*", "events/a", False),
        ("**", "events", True),
        ("**", "a/b/c", True),
        ("events/**", "events", True),
        ("events/**", "events/a/b/c", True),
        ("events/**", "event/a", False),
        ("**/x", "x", True),
        ("**/x", "a/b/x", True),
        ("**/x", "a/x/b", False),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "a/b/c", False),
        ("a/**/b/*/**", "a/x/b/b/y", True),
        ("a/**/b/*/**", "a/x/b", False),
        ("**/**", "a", True),
        ("ev*", "events", False),  # an asterisk inside a segment is just that
        ("ev*", "ev*", True),
        ("***", "a", False),
        ("a/%2A", "a/*", True),
        ("a/%2a%2A", "a/**", True),
        ("a/%2A", "a/b", False),
        ("a/*", "a/*", True),
        ("Events/*", "events/a", False),
    ],
)
def test_patterns(pattern: str, path: str, covered: bool) -> None:
    """`*` is one segment, `**` any number, the rest is itself."""
    assert StreamPattern(pattern).matches(path) is covered


def _by_definition(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """The rules as they are said, for short inputs."""
    if not pattern:
        return not path
    if pattern[0] == "**":
        return any(_by_definition(pattern[1:], path[count:]) for count in range(len(path) + 1))
    return bool(path) and pattern[0] in ("*", path[0]) and _by_definition(pattern[1:], path[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "*", "**"]), min_size=1, max_size=7).map(tuple),
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=7).map(tuple),
)
def test_patterns_follow_their_definition(pattern: tuple[str, ...], path: tuple[str, ...]) -> None:
    """Any mix of wildcards."""
    assert StreamPattern("/".join(pattern)).matches("/".join(path)) is _by_definition(pattern, path)


def test_no_pattern_takes_long() -> None:
    """The worst that fits the limits: wildcards without end, and a path that fails at its last segment."""
    pattern = StreamPattern("/".join(["**", "a"] * 200 + ["b"]))
    assert not pattern.matches("/".join(["a"] * 512))
