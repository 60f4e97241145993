"""What a client asks of a stream, and what it makes of the answers; literal requests and answers."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.streams_client.surroundings import World

import perdure.streams_client
from perdure import errors
from perdure.errors import ConfigError, LocalProtocolError, OffsetError, PerdureError, RemoteProtocolError
from perdure.streams_client import (
    CreateResult,
    Source,
    StreamClosed,
    StreamConflict,
    StreamGone,
    StreamInfo,
    StreamRefused,
    StreamUnreachable,
)
from perdure.streams_client.answers import Lost, Request, Response, path_of, refusal, with_query
from perdure.streams_client.core import StreamCore, Wait, address_of

URL = "http://test/v1/stream/a"
TAIL = {"stream-next-offset": "o9"}


def stream(world: World | None = None, *, content_type: str | None = None) -> StreamCore:
    """The core of one stream."""
    return StreamCore(URL, (world or World()).around, content_type=content_type)


def steps_of(flow: Any, *answers: Response | Lost | None) -> tuple[list[Any], Any]:
    """What the flow asks for when it is given these answers (None after a wait), and its result."""
    asked: list[Any] = []
    step: Any = flow.send(None)
    for answer in answers:
        asked.append(step)
        try:
            step = flow.send(answer)
        except StopIteration as end:
            assert answer is answers[-1], "the flow ended early"
            return asked, end.value
    raise AssertionError(f"the flow goes on with {step}")


def outcome_of(flow: Any, *answers: Response | Lost | None) -> Any:
    """The flow's result."""
    return steps_of(flow, *answers)[1]


# --- creating


def test_a_plain_stream_is_of_bytes() -> None:
    """Nothing needs to be said."""
    asked, result = steps_of(stream().create(), Response(201, {**TAIL, "content-type": "application/octet-stream"}))
    assert asked == [Request("PUT", URL, {"content-type": "application/octet-stream"}, None)]
    assert result == CreateResult(True, "o9", "application/octet-stream", False)


def test_everything_that_can_be_said_of_a_new_stream() -> None:
    """200 says that it was there already."""
    core = stream()
    expires = datetime(2026, 7, 15, 12, 30, tzinfo=UTC)
    asked, result = steps_of(
        core.create(content_type="application/json", items=[{"a": 1}, 2], closed=True, expires_at=expires),
        Response(200, {**TAIL, "content-type": "application/json", "stream-closed": "TRUE"}),
    )
    assert asked == [
        Request(
            "PUT",
            URL,
            {
                "content-type": "application/json",
                "stream-expires-at": "2026-07-15T12:30:00Z",
                "stream-closed": "true",
            },
            b'[{"a":1},2]',
        )
    ]
    assert result == CreateResult(False, "o9", "application/json", True)
    assert core.content_type == "application/json"


def test_a_fork_names_its_source_by_path() -> None:
    """It takes the source's content type where none is given."""
    source = Source("http://test/v1/stream/a%20b?sig=1", offset="o3", sub_offset=2)
    asked, result = steps_of(
        stream().create(source=source, ttl_s=60), Response(201, {**TAIL, "content-type": "text/plain"})
    )
    assert asked[0].headers == {
        "stream-forked-from": "/v1/stream/a%20b",
        "stream-fork-offset": "o3",
        "stream-fork-sub-offset": "2",
        "stream-ttl": "60",
    }
    assert result.content_type == "text/plain"


@pytest.mark.parametrize(
    "wrong",
    [
        {"ttl_s": 1, "expires_at": "2026-07-15T12:30:00Z"},
        {"ttl_s": -1},
        {"expires_at": datetime(2026, 7, 15)},
        {"source": Source(URL, sub_offset=-1)},
        {"source": Source(URL), "items": [b"x"]},
    ],
)
def test_what_cannot_be_created_is_not_sent(wrong: dict[str, Any]) -> None:
    """The mistake is this program's."""
    with pytest.raises(LocalProtocolError):
        stream().create(**wrong).send(None)


# --- appending


def test_an_append_asks_for_the_content_type_once() -> None:
    """Then it is known."""
    core = stream()
    head = Response(200, {**TAIL, "content-type": "application/json"})
    asked, result = steps_of(core.append([[1]]), head, Response(204, {"stream-next-offset": "o10"}))
    assert asked == [
        Request("HEAD", URL, {}),
        Request("POST", URL, {"content-type": "application/json"}, b"[[1]]"),
    ]
    assert result == "o10"
    asked, _ = steps_of(core.append([2, 3], seq="s7"), Response(204, TAIL))
    assert asked == [Request("POST", URL, {"content-type": "application/json", "stream-seq": "s7"}, b"[2,3]")]


def test_nothing_cannot_be_appended() -> None:
    """The protocol has no empty append."""
    with pytest.raises(LocalProtocolError, match="nothing to append"):
        stream(content_type="text/plain").append([]).send(None)


def test_an_answer_without_its_offset_is_an_error() -> None:
    """A proxy that strips the protocol's headers must not go unnoticed."""
    with pytest.raises(RemoteProtocolError, match="Stream-Next-Offset"):
        outcome_of(stream(content_type="text/plain").append(["a"]), Response(204, {}))


# --- closing


def test_a_plain_close_has_no_body() -> None:
    """It is idempotent by itself."""
    asked, result = steps_of(stream().close(), Response(204, {**TAIL, "stream-closed": "true"}))
    assert asked == [Request("POST", URL, {"stream-closed": "true"}, None)]
    assert result == "o9"


def test_a_close_with_items_is_made_idempotent() -> None:
    """Its tries carry one producer's id, so that the server knows the second as the first."""
    core = stream(content_type="text/plain")
    asked, _ = steps_of(core.close(["bye"]), Lost("cut"), None, Response(204, {**TAIL, "stream-closed": "true"}))
    request = Request(
        "POST",
        URL,
        {
            "stream-closed": "true",
            "content-type": "text/plain",
            "producer-id": "id1",
            "producer-epoch": "0",
            "producer-seq": "0",
        },
        b"bye",
    )
    assert asked == [request, Wait(50.0), request]


def test_a_close_that_is_not_confirmed_is_an_error() -> None:
    """A server that does not know how to close took it for something else."""
    with pytest.raises(RemoteProtocolError, match="did not confirm"):
        outcome_of(stream().close(), Response(204, TAIL))


# --- deleting, asking


def test_a_stream_that_a_lost_try_has_deleted_is_deleted() -> None:
    """But one that was never there is not found."""
    assert outcome_of(stream().delete(), Lost("cut"), None, Response(404, {})) is None
    with pytest.raises(errors.StreamNotFound):
        outcome_of(stream().delete(), Response(404, {}))
    with pytest.raises(errors.StreamNotFound):
        outcome_of(stream().delete(), Lost("refused", arrived=False), None, Response(404, {}))


def test_what_a_server_says_about_a_stream() -> None:
    """Its headers as values."""
    headers = {**TAIL, "content-type": "text/plain", "stream-ttl": "60", "stream-closed": "true"}
    asked, result = steps_of(stream().head(), Response(200, headers))
    assert asked == [Request("HEAD", URL, {}, None)]
    assert result == StreamInfo("o9", "text/plain", True, 60, None)
    ends = {**TAIL, "stream-expires-at": "2026-07-15T12:30:00Z", "stream-closed": "no"}
    assert outcome_of(stream().head(), Response(200, ends)) == StreamInfo(
        "o9", "application/octet-stream", False, None, "2026-07-15T12:30:00Z"
    )


# --- trying again


def test_lost_connections_and_busy_servers_are_tried_again() -> None:
    """With the same request, after growing waits, and no sooner than the server asks for."""
    core = stream(content_type="text/plain")
    request = Request("POST", URL, {"content-type": "text/plain"}, b"a")
    asked, result = steps_of(
        core.append(["a"]),
        Lost("refused"),
        None,
        Response(500, {}),
        None,
        Response(503, {"retry-after": "2"}),
        None,
        Response(429, {"retry-after": "Wed, 15 Jul 2026 12:00:03 GMT"}),
        None,
        Response(204, TAIL),
    )
    assert asked[::2] == [request] * 5
    assert asked[1::2] == [Wait(50.0), Wait(65.0), Wait(2_000.0), Wait(3_000.0)]
    assert result == "o9"


def test_when_no_try_is_left_the_error_says_what_was_last() -> None:
    """It is retryable: the server may be back later."""
    world = World(retry_for_s=1)
    flow = stream(world).head()
    flow.send(None)
    assert flow.send(Lost("connection refused")) == Wait(50.0)
    flow.send(None)
    world.now_ms += 1_000
    with pytest.raises(StreamUnreachable, match=r"HEAD http://test/v1/stream/a: connection refused") as caught:
        flow.send(Lost("connection refused"))
    assert (caught.value.retryable, caught.value.last_status) == (True, None)


def test_a_demand_for_more_time_than_there_is_ends_the_tries() -> None:
    """The error says how long the server wants to be left alone."""
    flow = stream(World(retry_for_s=5)).head()
    flow.send(None)
    with pytest.raises(StreamUnreachable, match="was answered 503") as caught:
        flow.send(Response(503, {"retry-after": "6"}, b"maintenance"))
    assert (caught.value.last_status, caught.value.retry_after_s) == (503, 6.0)


# --- refusals


@pytest.mark.parametrize(
    ("method", "response", "error", "message"),
    [
        ("GET", Response(404, {}), errors.StreamNotFound, "there is no stream at http://test/v1/stream/a"),
        ("GET", Response(410, {}, b"Stream is gone"), StreamGone, "http://test/v1/stream/a: Stream is gone"),
        ("GET", Response(400, {}, b"Invalid offset format"), OffsetError, "Invalid offset format"),
        ("GET", Response(401, {}), errors.Unauthenticated, "status 401"),
        ("GET", Response(403, {}), errors.Forbidden, "status 403"),
        ("POST", Response(409, {"stream-closed": "true"}), StreamClosed, "the stream has ended"),
        ("POST", Response(409, {"stream-closed": "yes"}, b"Sequence conflict"), StreamConflict, "Sequence conflict"),
        ("POST", Response(413, {}, b"too  \n large"), StreamRefused, "POST was answered 413: too large"),
        ("POST", Response(405, {}, b"<html>no</html>"), StreamRefused, "POST was answered 405: status 405"),
        ("POST", Response(501, {}), StreamRefused, "POST was answered 501: status 501"),
        (
            "PUT",
            Response(400, {}, b'{"error":{"code":"x","message":"bad TTL","retryable":false}}'),
            StreamRefused,
            "PUT was answered 400: bad TTL",
        ),
        (
            "PUT",
            Response(302, {}),
            RemoteProtocolError,
            "PUT was answered 302, which the protocol does not know",
        ),
    ],
)
def test_refusals_are_typed(method: str, response: Response, error: type[PerdureError], message: str) -> None:
    """And say what the server said, in one line, without the address's secrets."""
    found = refusal(Request(method, f"{URL}?sig=secret", {}), response)
    assert type(found) is error
    assert str(found) == message


def test_a_closed_stream_says_where_it_ended() -> None:
    """The client's `StreamClosed` is also that of `perdure.errors`."""
    found = refusal(Request("POST", URL, {}), Response(409, {"stream-closed": "True", **TAIL}))
    assert isinstance(found, StreamClosed)
    assert isinstance(found, errors.StreamClosed)
    assert found.offset == "o9"


def test_a_refusal_is_final_at_once() -> None:
    """No try follows it."""
    with pytest.raises(StreamConflict):
        outcome_of(stream(content_type="text/plain").append(["a"]), Response(409, {}))


# --- addresses


@pytest.mark.parametrize(
    ("path", "url"),
    [
        ("orders", "http://test/v1/stream/orders"),
        ("/rooms/a b/turns/1", "http://test/v1/stream/rooms/a%20b/turns/1"),
        ("50%?#é", "http://test/v1/stream/50%25%3F%23%C3%A9"),
        ("https://other/s/x%2Fy?sig=1", "https://other/s/x%2Fy?sig=1"),
    ],
)
def test_paths_are_encoded_and_addresses_are_taken_as_they_are(path: str, url: str) -> None:
    """A path is a name; who has an address has encoded it."""
    assert address_of("http://test/v1/stream/", path) == url


@pytest.mark.parametrize(
    ("base", "path"), [(None, "orders"), ("test/v1", "orders"), ("ftp://test", "a"), (None, "http://test/a#b")]
)
def test_what_is_no_address_is_refused(base: str | None, path: str) -> None:
    """Where the stream is named, before anything is sent."""
    with pytest.raises(ConfigError):
        address_of(base, path)


def test_a_query_keeps_what_the_address_has() -> None:
    """Signed addresses stay signed; values are encoded."""
    assert with_query(URL, offset="-1") == f"{URL}?offset=-1"
    assert (
        with_query(f"{URL}?sig=a%2Fb", offset="1_2", cursor="a b&c") == f"{URL}?sig=a%2Fb&offset=1_2&cursor=a%20b%26c"
    )
    assert path_of("http://test/v1/stream/x%2Fy?sig=1") == "/v1/stream/x%2Fy"


# --- purity

SHELLS = {"__init__", "http", "asynchronous", "synchronous", "async_producer", "sync_producer"} | {
    "async_transport",
    "sync_transport",
}


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.partition(".")[0] for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield (node.module or "").partition(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.level == 1:
            yield f".{node.module}"


def test_the_cores_are_pure() -> None:
    """No I/O, no clock, no chance: only the shells import those, and no core imports a shell."""
    folder = Path(perdure.streams_client.__file__).parent
    impure = {
        "asyncio",
        "threading",
        "socket",
        "time",
        "random",
        "os",
        "uuid",
        "httpx2",
        *(f".{name}" for name in SHELLS),
    }
    cores = [path for path in sorted(folder.glob("*.py")) if path.stem not in SHELLS]
    assert [path.stem for path in cores] == ["answers", "content", "core", "errors", "producing", "reading", "retry"]
    assert {path.stem: set(_imports(path)) & impure for path in cores} == {path.stem: set() for path in cores}
