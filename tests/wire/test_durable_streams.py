"""Durable Streams on the wire: what each header and query says, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import RemoteProtocolError
from perdure.wire.durable_streams import (
    CONTENT_TYPE_BYTES_MAX,
    CURSOR_EPOCH_MS,
    CURSOR_INTERVAL_MS,
    CURSOR_JITTER_MS_MAX,
    NUMBER_MAX,
    PRODUCER_ID_BYTES_MAX,
    QUERY_FIELDS_MAX,
    STREAM_SEQ_BYTES_MAX,
    AppendRequest,
    CreateRequest,
    ForkRequest,
    Producer,
    ReadRequest,
    etag,
    format_time,
    is_json,
    join_json,
    matches_etag,
    media_type,
    needs_base64,
    next_cursor,
    parse_append,
    parse_create,
    parse_read,
    split_json,
)

PLAIN = CreateRequest("text/plain", None, None, False, None)

# --- create


def test_a_plain_create() -> None:
    """The content type as it was given; no life, open, no fork."""
    assert parse_create({b"content-type": b" text/plain "}) == PLAIN
    given = {b"content-type": b"application/json; charset=utf-8", b"stream-ttl": b"60", b"stream-closed": b"true"}
    assert parse_create(given) == CreateRequest("application/json; charset=utf-8", 60, None, True, None)


@pytest.mark.parametrize("content_type", [b"", b"text", b"/", b"te xt/plain", b"text/plain\x01", b"\xff/\xff"])
def test_without_a_valid_content_type_it_is_bytes(content_type: bytes) -> None:
    """As the protocol says; a fork inherits its source's."""
    assert parse_create({b"content-type": content_type}).content_type == "application/octet-stream"
    fork = {b"content-type": content_type, b"stream-forked-from": b"/v1/stream/a"}
    assert parse_create(fork).content_type is None


def test_a_content_type_has_a_largest_size() -> None:
    """The longest one is taken, one byte more is refused."""
    longest = "text/" + "p" * (CONTENT_TYPE_BYTES_MAX - 5)
    assert parse_create({b"content-type": longest.encode()}).content_type == longest
    with pytest.raises(RemoteProtocolError, match="256 bytes at most"):
        parse_create({b"content-type": longest.encode() + b"p"})


@pytest.mark.parametrize(("value", "seconds"), [(b"0", 0), (b"1", 1), (b"9007199254740991", NUMBER_MAX)])
def test_a_time_to_live_is_a_whole_number(value: bytes, seconds: int) -> None:
    """From 0 to what JavaScript counts to."""
    assert parse_create({b"stream-ttl": value}).ttl_s == seconds


@pytest.mark.parametrize(
    "value",
    [b"", b"-1", b"+1", b"01", b"1.0", b"1e3", b" 1", b"1 ", b"x", b"9007199254740992", b"9" * 30, "٣".encode()],
)
def test_other_numbers_are_refused(value: bytes) -> None:
    """Signs, leading zeros, decimals, blanks, letters, too much: for the time to live and for sub-offsets."""
    with pytest.raises(RemoteProtocolError, match="Stream-TTL is a whole number from 0 to 9007199254740991"):
        parse_create({b"stream-ttl": value})
    with pytest.raises(RemoteProtocolError, match="Stream-Fork-Sub-Offset is a whole number"):
        parse_create({b"stream-forked-from": b"/v1/stream/a", b"stream-fork-sub-offset": value})


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (b"1970-01-01T00:00:00Z", 0),
        (b"1970-01-01t00:00:00z", 0),
        (b"1970-01-01 00:00:01Z", 1_000),
        (b"2027-01-31T12:00:00.1239Z", 1_801_396_800_123),
        (b"2027-01-31T14:00:00+02:00", 1_801_396_800_000),
        (b"0001-01-01T00:00:00+23:59", -62_135_683_140_000),
        (b"9999-12-31T23:59:59-23:59", 253_402_387_139_000),
    ],
)
def test_an_expiry_is_a_time_of_rfc_3339(text: bytes, at_ms: int) -> None:
    """With any offset from UTC, and fractions down to the millisecond."""
    assert parse_create({b"stream-expires-at": text}).expires_at_ms == at_ms


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"2027-01-31", b"2027-01-31T12:00:00", b"2027-13-31T12:00:00Z", b"2027-02-30T12:00:00Z"),
        *(b"2027-01-31T25:00:00Z", b"2027-01-31T12:00:00+25:00", b"20270131T120000Z", b"1801396800", b"tomorrow"),
        *("٢٠٢٧-01-31T12:00:00Z".encode(), b"10000-01-01T00:00:00Z", b"2027-01-31T12:00:00.Z"),
    ],
)
def test_other_times_are_refused(text: bytes) -> None:
    """No zone, no such day, another format."""
    with pytest.raises(RemoteProtocolError, match="Stream-Expires-At is a time like"):
        parse_create({b"stream-expires-at": text})


def test_a_stream_has_one_end() -> None:
    """Either a time to live or an expiry."""
    with pytest.raises(RemoteProtocolError, match="not both"):
        parse_create({b"stream-ttl": b"1", b"stream-expires-at": b"2027-01-31T12:00:00Z"})


@given(st.integers(0, 250_000_000_000_000))
def test_times_are_written_as_they_are_read(at_ms: int) -> None:
    """To the millisecond."""
    assert parse_create({b"stream-expires-at": format_time(at_ms).encode()}).expires_at_ms == at_ms


def test_times_are_in_utc() -> None:
    """With milliseconds."""
    assert format_time(1_801_396_800_123) == "2027-01-31T12:00:00.123Z"


def test_a_fork_names_its_source_and_its_place() -> None:
    """The tail, unless an offset is given; a sub-offset of 0 is none."""
    source = {b"stream-forked-from": b" /v1/stream/a "}
    assert parse_create(source).fork == ForkRequest("/v1/stream/a", None, 0)
    place = {b"stream-fork-offset": b"0000000000000002", b"stream-fork-sub-offset": b"3"}
    assert parse_create(source | place).fork == ForkRequest("/v1/stream/a", "0000000000000002", 3)
    assert parse_create(source | {b"stream-fork-sub-offset": b"0"}).fork == ForkRequest("/v1/stream/a", None, 0)


def test_the_start_may_be_written_as_the_reference_server_does() -> None:
    """Its clients fork there."""
    fork = {b"stream-forked-from": b"a", b"stream-fork-offset": b"0000000000000000_0000000000000000"}
    assert parse_create(fork).fork == ForkRequest("a", "-1", 0)


@pytest.mark.parametrize("name", [b"stream-fork-offset", b"stream-fork-sub-offset"])
def test_a_place_needs_a_source(name: bytes) -> None:
    """Else it is a mistake, not a stream without a source."""
    with pytest.raises(RemoteProtocolError, match="need Stream-Forked-From"):
        parse_create({name: b"0"})


def test_a_source_has_a_name() -> None:
    """Blanks are none."""
    with pytest.raises(RemoteProtocolError, match="is the path of a stream"):
        parse_create({b"stream-forked-from": b"  "})


# --- append


@pytest.mark.parametrize(
    ("value", "closed"),
    [
        *((b"true", True), (b"TRUE", True), (b"True", True), (b" tRuE ", True)),
        *((b"false", False), (b"1", False), (b"yes", False), (b"", False), (b"true,true", False)),
    ],
)
def test_closed_counts_when_it_is_true(value: bytes, closed: bool) -> None:
    """In any case; other values are as if the header were absent, on both methods."""
    assert parse_append({b"stream-closed": value}).closed is closed
    assert parse_create({b"stream-closed": value}).closed is closed


def test_a_plain_append() -> None:
    """Nobody in particular appends."""
    assert parse_append({}) == AppendRequest(None, False, None, None)
    assert parse_append({b"content-type": b"text/plain"}) == AppendRequest("text/plain", False, None, None)


def test_a_producer_has_three_headers() -> None:
    """Numbers may have leading zeros; the id may be any text."""
    headers = {b"producer-id": "Zoë 1".encode(), b"producer-epoch": b"007", b"producer-seq": b"9007199254740991"}
    assert parse_append(headers).producer == Producer("Zoë 1", 7, NUMBER_MAX)


@pytest.mark.parametrize("missing", [b"producer-id", b"producer-epoch", b"producer-seq"])
def test_two_producer_headers_are_too_few(missing: bytes) -> None:
    """All three or none."""
    headers = {b"producer-id": b"p", b"producer-epoch": b"0", b"producer-seq": b"0"}
    del headers[missing]
    with pytest.raises(RemoteProtocolError, match="together"):
        parse_append(headers)


@pytest.mark.parametrize("value", [b"", b"-1", b"+1", b"1.0", b"x", b"9007199254740992", b"0" * 21, "٣".encode()])
def test_producer_numbers_are_digits(value: bytes) -> None:
    """Up to what JavaScript counts to."""
    headers = {b"producer-id": b"p", b"producer-epoch": b"0", b"producer-seq": b"0"}
    with pytest.raises(RemoteProtocolError, match="Producer-Epoch is a whole number"):
        parse_append(headers | {b"producer-epoch": value})
    with pytest.raises(RemoteProtocolError, match="Producer-Seq is a whole number"):
        parse_append(headers | {b"producer-seq": value})


def test_a_producers_id_has_a_largest_size() -> None:
    """The longest one is taken; one byte more, and none at all, are refused."""
    headers = {b"producer-epoch": b"0", b"producer-seq": b"0"}
    longest = b"p" * PRODUCER_ID_BYTES_MAX
    assert parse_append(headers | {b"producer-id": longest}).producer == Producer("p" * 256, 0, 0)
    for name in (longest + b"p", b""):
        with pytest.raises(RemoteProtocolError, match="Producer-Id has 1 to 256 bytes"):
            parse_append(headers | {b"producer-id": name})


def test_a_stream_seq_has_a_largest_size() -> None:
    """The longest one is taken; one byte more, and none at all, are refused."""
    longest = b"s" * STREAM_SEQ_BYTES_MAX
    assert parse_append({b"stream-seq": longest}).stream_seq == longest
    for value in (longest + b"s", b""):
        with pytest.raises(RemoteProtocolError, match="Stream-Seq has 1 to 256 bytes"):
            parse_append({b"stream-seq": value})


# --- read


@pytest.mark.parametrize(
    ("query", "request_"),
    [
        (b"", ReadRequest(None, "", None)),
        (b"offset=-1", ReadRequest("-1", "", None)),
        (b"offset=now&live=sse", ReadRequest("now", "sse", None)),
        (b"live=long-poll&offset=0000000000000001&cursor=12", ReadRequest("0000000000000001", "long-poll", "12")),
        (b"live=&token=abc&x", ReadRequest(None, "", None)),
        (b"offset=%2D1", ReadRequest("-1", "", None)),
    ],
)
def test_a_read_says_where_and_how(query: bytes, request_: ReadRequest) -> None:
    """What is not of the protocol is ignored."""
    assert parse_read(query) == request_


@pytest.mark.parametrize(
    ("query", "told"),
    [
        (b"offset=", "the offset is empty"),
        (b"offset", "the offset is empty"),
        (b"offset=1&offset=1", "more than one offset"),
        (b"offset=-1&live=true", "live is long-poll or sse"),
        (b"live=sse", "a live read needs an offset"),
        (b"live=long-poll", "a live read needs an offset"),
    ],
)
def test_other_reads_are_refused(query: bytes, told: str) -> None:
    """With the reason."""
    with pytest.raises(RemoteProtocolError, match=told):
        parse_read(query)


def test_a_query_has_a_most_of_fields() -> None:
    """So many are read; one more is refused, not a failure of the server."""
    assert parse_read(b"offset=-1" + b"&x=1" * (QUERY_FIELDS_MAX - 1)) == ReadRequest("-1", "", None)
    with pytest.raises(RemoteProtocolError, match="50 fields at most"):
        parse_read(b"offset=-1" + b"&x=1" * QUERY_FIELDS_MAX)


@given(st.binary(max_size=60))
def test_any_query_is_read_or_refused(query: bytes) -> None:
    """No bytes make it fail."""
    try:
        parse_read(query)
    except RemoteProtocolError:
        pass


# --- content types


def test_content_types_are_compared_without_parameters() -> None:
    """In small letters."""
    assert media_type(" Text/Plain ; charset=utf-8") == "text/plain"
    assert is_json("Application/JSON;charset=utf-8")
    assert not is_json("application/jsonl")
    types = ("text/html", "application/json", "application/octet-stream", "image/png")
    assert [needs_base64(kind) for kind in types] == [False, False, True, True]


# --- JSON


@pytest.mark.parametrize(
    ("body", "messages"),
    [
        (b'{"a": 1}', [b'{"a": 1}']),
        (b' [1, "x" ,[2, 3],{"b":[4]} ]\n', [b"1", b'"x"', b"[2, 3]", b'{"b":[4]}']),
        (b"[]", []),
        (b"[[]]", [b"[]"]),
        (b"null", [b"null"]),
        ('["ß",{"é":"🙂"}]'.encode(), ['"ß"'.encode(), '{"é":"🙂"}'.encode()]),
        (b'["\\ud83d", {"a" : "\\udc00"}]', [b'"\\ud83d"', b'{"a" : "\\udc00"}']),
        (b' "\\ud83d" ', [b'"\\ud83d"']),
        (b'[1 , "\\ud83d" ,\n[ ]]', [b"1", b'"\\ud83d"', b"[ ]"]),
        (b"[1e400,-0,12345678901234567890123]", [b"1e400", b"-0", b"12345678901234567890123"]),
    ],
)
def test_one_level_of_array_is_taken_apart(body: bytes, messages: list[bytes]) -> None:
    """Each element is a message, byte for byte; half surrogate pairs, which JavaScript may send, are let through."""
    assert split_json(body) == messages


@pytest.mark.parametrize(
    "body",
    [
        *(
            b"{",
            b"[1,]",
            b"[1 2]",
            b"1 2",
            b"[1]]",
            b"[1],",
            b"NaN",
            b"[Infinity]",
            b"'a'",
            b'"\xff"',
            b"\xef\xbb\xbf1",
        ),
        *(b"", b"  ", b"[,]", b'["\\ud83d",]', b'["\\ud83d"] x', b"[NaN, " + b'"\\ud83d"]', b"\x00", b'"\n"'),
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """Also where it is nearly JSON."""
    with pytest.raises(RemoteProtocolError):
        split_json(body)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    """Not a failure of the server."""
    with pytest.raises(RemoteProtocolError):
        split_json(opening * 200_000)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.lists(JSON, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_messages_are_what_json_says(values: list[object], indent: int | None, ascii_only: bool) -> None:
    """Splitting and joining change nothing but blanks between messages."""
    body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    messages = split_json(body)
    assert [json.loads(message) for message in messages] == values
    assert json.loads(join_json(messages)) == values


@given(st.text(alphabet='[]{},:"\\ud83 \t1aé', max_size=30))
def test_any_text_is_split_or_refused(text: str) -> None:
    """As the standard library judges it (which takes no NaN here)."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    try:
        expected = json.loads(text, parse_constant=refuse)
    except ValueError:
        with pytest.raises(RemoteProtocolError):
            split_json(text.encode())
        return
    messages = [json.loads(message) for message in split_json(text.encode())]
    assert messages == (expected if isinstance(expected, list) else [expected])


# --- caching


def test_an_etag_changes_with_all_that_a_read_depends_on() -> None:
    """The stream, both ends, and whether it is closed."""
    tags = {
        etag("03.1", "-1", "0000000000000002", False),
        etag("03.1", "-1", "0000000000000002", True),
        etag("03.1", "-1", "0000000000000003", False),
        etag("03.1", "0000000000000001", "0000000000000002", False),
        etag("03.2", "-1", "0000000000000002", False),
    }
    assert len(tags) == 5
    assert '"03.1:-1:0000000000000002:c"' in tags


def test_an_etag_is_a_header_whatever_the_stream_is_called() -> None:
    """Plain characters, without what ends it or parts it from the next; different names stay different."""
    assert etag('Room/Zoë "1", 2.7', "-1", "0", False) == '"Room/Zo%C3%AB%20%221%22%2C%202.7:-1:0"'
    assert etag("Room/Zo%C3%AB.7", "-1", "0", False) == '"Room/Zo%25C3%25AB.7:-1:0"'


@pytest.mark.parametrize(
    ("given", "matches"),
    [
        *((None, False), (b"", False), (b'"a"', True), (b'W/"a"', True), (b"*", True), (b'"b"', False)),
        *((b'"b", "a"', True), (b'"b" ,W/"a"', True), (b"a", False), (b"\xff", False)),
    ],
)
def test_if_none_match_is_a_list(given: bytes | None, matches: bool) -> None:
    """Of tags, weak or not; a star is any."""
    assert matches_etag(given, '"a"') is matches


# --- cursors

NOW_MS = CURSOR_EPOCH_MS + 1_000 * CURSOR_INTERVAL_MS + 19_999


@pytest.mark.parametrize("cursor", [None, "", "x", "-1", "0", "999", "1e3", "0999", "9" * 17, "9007199254740992"])
def test_a_cursor_counts_intervals(cursor: str | None) -> None:
    """Of 20 s, from 9 October 2024; a client's smaller or odd one changes nothing."""
    assert next_cursor(NOW_MS, cursor, 0.5) == 1_000
    assert next_cursor(NOW_MS + 1, cursor, 0.5) == 1_001


@pytest.mark.parametrize(
    ("cursor", "jitter", "expected"), [("1000", 0.0, 1_001), ("1000", 1.0, 1_180), ("5000", 0.5, 5_090)]
)
def test_a_cursor_goes_past_the_clients(cursor: str, jitter: float, expected: int) -> None:
    """By one interval to an hour of them, so that no cache answers two clients alike for ever."""
    assert next_cursor(NOW_MS, cursor, jitter) == expected


@given(st.integers(0, 2**60), st.floats(0, 1), st.integers(0, 10**9))
def test_cursors_rise(given: int, jitter: float, elapsed_s: int) -> None:
    """Strictly above the client's, by an hour at most above it or the time's own."""
    now_ms = CURSOR_EPOCH_MS + elapsed_s * 1_000
    current = next_cursor(now_ms, None, 0)
    cursor = next_cursor(now_ms, str(given), jitter)
    if given <= NUMBER_MAX:
        assert cursor > given
        assert cursor - max(given, current) <= CURSOR_JITTER_MS_MAX // CURSOR_INTERVAL_MS
    else:
        assert cursor == current
