"""A producer's requests and what it makes of the answers; literal ones, and any schedule of a bad network."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.streams_client.producer_model import ModelServer, WildNetwork
from tests.streams_client.surroundings import NOON_S, World

from perdure.errors import Forbidden, LimitExceeded, LocalProtocolError, RemoteProtocolError
from perdure.streams_client import (
    EpochReused,
    ProducerFenced,
    ProducerStopped,
    SequenceGap,
    StreamClosed,
    StreamConflict,
    StreamUnreachable,
)
from perdure.streams_client.answers import Lost, Request, Response
from perdure.streams_client.core import StreamCore
from perdure.streams_client.producing import Outgoing, ProducerCore

URL = "http://test/s"
NOON_MS = 1_784_116_800_000
LATER_MS = NOON_MS + 5_000


def producer(world: World, *, content_type: str = "application/json", **options: Any) -> ProducerCore:
    """A producer that does not linger unless it is said."""
    return ProducerCore(StreamCore(URL, world.around, content_type=content_type), "p", **{"linger_ms": 0, **options})


def add(core: ProducerCore, *items: object) -> None:
    """Give it items."""
    for item in items:
        core.add(core.encode(item))


def taken(core: ProducerCore) -> Outgoing:
    """What it sends now."""
    outgoing = core.take()
    assert outgoing is not None
    return outgoing


def stored(seq: int, *, offset: str = "o1", status: int = 200, **headers: str) -> Response:
    """The server has this and all before."""
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    return Response(status, {"stream-next-offset": offset, "producer-epoch": "0", "producer-seq": str(seq), **more})


def gap(expected: int, received: int) -> Response:
    """Something before it is missing."""
    return Response(409, {"producer-expected-seq": str(expected), "producer-received-seq": str(received)})


def named(outgoing: Outgoing) -> tuple[int, int]:
    """A request's epoch and number."""
    headers = outgoing.request.headers
    return int(headers["producer-epoch"]), int(headers["producer-seq"])


# --- batches


def test_a_batch_is_one_request() -> None:
    """Messages in one array, under the producer's name, epoch and number."""
    core = producer(World(), epoch=2)
    add(core, {"a": 1}, [2])
    outgoing = taken(core)
    assert outgoing.request == Request(
        "POST",
        URL,
        {"producer-id": "p", "producer-epoch": "2", "producer-seq": "0", "content-type": "application/json"},
        b'[{"a":1},[2]]',
    )
    assert core.take() is None
    core.took(outgoing, stored(0, offset="o5"))
    assert (core.idle, core.offset, core.buffered_bytes) == (True, "o5", 0)


def test_bytes_are_joined() -> None:
    """A stream of bytes has no boundaries."""
    core = producer(World(), content_type="text/plain")
    add(core, "a", b"b")
    assert taken(core).request.body == b"ab"


def test_items_linger_for_others() -> None:
    """From the first one on; a flush and a full batch end it."""
    world = World()
    core = producer(world, linger_ms=5)
    add(core, 1)
    assert core.take() is None
    assert core.wake_ms() == world.now_ms + 5
    world.now_ms += 4
    add(core, 2)
    assert core.take() is None
    world.now_ms += 1
    assert taken(core).request.body == b"[1,2]"
    add(core, 3)
    core.push()
    assert taken(core).request.body == b"[3]"


def test_a_batch_has_a_limit() -> None:
    """It is sent when it is reached; a larger item goes alone."""
    core = producer(World(), linger_ms=1_000, batch_bytes_max=9)
    add(core, 111, 222)
    core_waits = core.take()
    add(core, 333)
    assert core_waits is not None
    assert core_waits.request.body == b"[111,222]"
    assert core.take() is None
    add(core, "larger than that", 4)
    core.push()
    assert [taken(core).request.body for _ in range(3)] == [b"[333]", b'["larger than that"]', b"[4]"]


def test_so_many_batches_are_on_their_way() -> None:
    """What comes meanwhile gathers in the next."""
    core = producer(World(), in_flight_max=2)
    add(core, 1)
    first = taken(core)
    add(core, 2)
    taken(core)
    add(core, 3)
    add(core, 4)
    assert core.take() is None
    core.took(first, stored(0))
    assert taken(core).request.body == b"[3,4]"


def test_the_buffer_has_a_limit() -> None:
    """Acknowledged items make room; one that never fits is an error."""
    core = producer(World(), content_type="text/plain", buffer_bytes_max=4)
    add(core, "abc")
    assert core.has_room(b"d")
    assert not core.has_room(b"de")
    core.took(taken(core), stored(0))
    assert core.has_room(b"abcd")
    with pytest.raises(LimitExceeded, match="buffer_bytes_max allows 4"):
        core.has_room(b"abcde")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epoch": -1},
        {"epoch": 2**53},
        {"batch_bytes_max": 0},
        {"in_flight_max": 0},
        {"buffer_bytes_max": 0},
        {"linger_ms": -1},
    ],
)
def test_wrong_options_are_refused(wrong: dict[str, Any]) -> None:
    """When the producer is made."""
    with pytest.raises(LocalProtocolError):
        producer(World(), **wrong)
    producer(World(), epoch=2**53 - 1, batch_bytes_max=1, in_flight_max=1, buffer_bytes_max=1)


def test_a_producer_has_a_name() -> None:
    """The server would refuse an empty one."""
    with pytest.raises(LocalProtocolError, match="must not be empty"):
        ProducerCore(StreamCore(URL, World().around), "")


# --- trying again


@pytest.mark.parametrize("outcome", [Lost("reset"), Response(500, {}), Response(429, {}), Response(503, {})])
def test_what_may_pass_is_sent_again_under_the_same_number(outcome: Response | Lost) -> None:
    """The server tells the second from a new one."""
    world = World()
    core = producer(world)
    add(core, 1)
    outgoing = taken(core)
    core.took(outgoing, outcome)
    assert core.take() is None
    assert core.wake_ms() == world.now_ms + 50
    world.now_ms += 50
    again = taken(core)
    assert again.request == outgoing.request
    core.took(again, stored(0, status=204))
    assert core.idle


def test_servers_may_say_when() -> None:
    """The next try is no sooner."""
    world = World()
    core = producer(world)
    add(core, 1)
    core.took(taken(core), Response(503, {"retry-after": "3"}))
    assert core.wake_ms() == world.now_ms + 3_000


def test_when_no_try_is_left_nothing_is_lost() -> None:
    """The producer fails with everything in its hands; it may be told to go on."""
    world = World(retry_for_s=1)
    core = producer(world)
    add(core, 1)
    core.took(taken(core), Lost("refused"))
    add(core, 2)
    second = taken(core)
    world.now_ms += 1_000
    core.took(taken(core), Lost("refused"))
    assert isinstance(core.failure, StreamUnreachable)
    with pytest.raises(StreamUnreachable):
        add(core, 3)
    assert (core.take(), core.wake_ms(), core.unacknowledged) == (None, None, [b"1", b"2"])
    core.took(second, Lost("refused"))
    core.revive()
    assert [named(taken(core)), named(taken(core))] == [(0, 0), (0, 1)]


# --- order


def test_a_batch_that_overtook_waits_for_those_before() -> None:
    """It is not sent again until they are there."""
    core = producer(World())
    batches = []
    for number in range(3):
        add(core, number)
        batches.append(taken(core))
    core.took(batches[2], gap(0, 2))
    core.took(batches[1], gap(0, 1))
    assert core.take() is None
    core.took(batches[0], stored(0))
    again = taken(core)
    assert named(again) == (0, 1)
    assert core.take() is None
    core.took(again, stored(1))
    assert named(taken(core)) == (0, 2)


def test_a_refusal_that_comes_late_is_no_gap() -> None:
    """What was missing then has come in the meantime."""
    core = producer(World())
    add(core, 0)
    first = taken(core)
    add(core, 1)
    second = taken(core)
    core.took(first, stored(0))
    core.took(second, gap(0, 1))
    assert core.failure is None
    assert named(taken(core)) == (0, 1)


def test_a_server_that_has_forgotten_is_an_error() -> None:
    """Everything before was acknowledged, and is not there."""
    core = producer(World())
    add(core, 0)
    core.took(taken(core), stored(0))
    add(core, 1)
    core.took(taken(core), gap(0, 1))
    assert isinstance(core.failure, SequenceGap)
    assert (core.failure.expected, core.failure.received) == (0, 1)


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (Response(409, {"stream-closed": "true", "stream-next-offset": "o9"}), StreamClosed),
        (Response(409, {}), StreamConflict),
        (Response(403, {}), Forbidden),
    ],
)
def test_refusals_stop_the_producer(response: Response, error: type[Exception]) -> None:
    """What comes behind a missing batch would be out of order."""
    core = producer(World())
    add(core, 1)
    first = taken(core)
    add(core, 2)
    second = taken(core)
    core.took(first, response)
    core.took(second, gap(0, 1))
    assert type(core.failure) is error
    core.revive()
    assert (type(core.failure), core.take(), core.unacknowledged) == (error, None, [b"1", b"2"])


# --- epochs


def test_a_higher_epoch_fences_the_producer() -> None:
    """The error says which."""
    core = producer(World(), epoch=2)
    add(core, 1)
    core.took(taken(core), Response(403, {"producer-epoch": "5"}))
    assert isinstance(core.failure, ProducerFenced)
    assert (core.failure.held, core.failure.presented) == (5, 2)


def test_a_claim_begins_with_the_time() -> None:
    """Which is above the epochs of all earlier runs, and says so."""
    assert NOON_MS == NOON_S * 1000
    assert producer(World(), auto_claim=True).epoch == NOON_MS
    assert producer(World(), auto_claim=True, epoch=LATER_MS).epoch == LATER_MS


def test_a_claim_takes_the_next_epoch_where_a_clock_goes_ahead() -> None:
    """With the first batch alone; the others follow when it is there."""
    core = producer(World(), auto_claim=True)
    add(core, 1)
    first = taken(core)
    add(core, 2)
    assert (core.take(), core.wake_ms()) == (None, None)
    core.took(first, Response(403, {"producer-epoch": str(LATER_MS)}))
    again = taken(core)
    assert (named(again), again.request.body, core.epoch) == ((LATER_MS + 1, 0), b"[1]", LATER_MS + 1)
    core.took(again, stored(0))
    assert named(taken(core)) == (LATER_MS + 1, 1)


def test_a_claim_is_made_once() -> None:
    """Whoever comes later is newer: two producers do not take turns in fencing each other."""
    core = producer(World(), auto_claim=True)
    add(core, 1)
    core.took(taken(core), stored(0))
    add(core, 2)
    core.took(taken(core), Response(403, {"producer-epoch": str(LATER_MS)}))
    assert isinstance(core.failure, ProducerFenced)


def test_what_may_be_stored_is_not_claimed_for() -> None:
    """In another epoch it might be there twice."""
    world = World()
    for outcome in (Lost("reset"), Response(502, {})):
        core = producer(world, auto_claim=True)
        add(core, 1)
        core.took(taken(core), outcome)
        world.now_ms += 100
        core.took(taken(core), Response(403, {"producer-epoch": str(LATER_MS)}))
        assert isinstance(core.failure, ProducerFenced)


@pytest.mark.parametrize("outcome", [Lost("refused", arrived=False), Response(503, {})])
def test_what_is_surely_not_stored_is_claimed_for(outcome: Response | Lost) -> None:
    """A server that was not there yet has stored nothing."""
    world = World()
    core = producer(world, auto_claim=True)
    add(core, 1)
    core.took(taken(core), outcome)
    world.now_ms += 100
    core.took(taken(core), Response(403, {"producer-epoch": str(LATER_MS)}))
    assert named(taken(core)) == (LATER_MS + 1, 0)


def test_an_epoch_that_was_used_before_is_noticed() -> None:
    """The server takes the new run's first batch for the old one's and stores nothing."""
    core = producer(World())
    add(core, 1)
    core.took(taken(core), stored(0, status=204))
    assert isinstance(core.failure, EpochReused)
    assert "epoch 0 of producer 'p' was used before" in str(core.failure)
    assert core.unacknowledged == [b"1"]


def test_a_number_that_was_never_reached_is_another_runs() -> None:
    """Even where a try of ours was lost."""
    world = World()
    core = producer(world)
    add(core, 1)
    core.took(taken(core), Lost("reset"))
    world.now_ms += 100
    core.took(taken(core), stored(7, status=204))
    assert isinstance(core.failure, EpochReused)


def test_a_claim_leaves_a_used_epoch_behind() -> None:
    """Two runs that began in the same millisecond get one each."""
    core = producer(World(), auto_claim=True)
    add(core, 1)
    core.took(taken(core), stored(3, status=204))
    assert named(taken(core)) == (NOON_MS + 1, 0)


def test_a_server_without_producers_is_taken_at_its_word() -> None:
    """It stores, and answers without their headers."""
    core = producer(World())
    add(core, 1)
    core.took(taken(core), Response(204, {"stream-next-offset": "o1"}))
    assert core.idle
    assert core.failure is None


# --- closing


def test_closing_is_the_last_batch() -> None:
    """It goes when all else is stored, with the last items, and is confirmed."""
    core = producer(World())
    add(core, 1)
    first = taken(core)
    core.end([2, 3])
    with pytest.raises(ProducerStopped):
        add(core, 4)
    assert core.unacknowledged == [b"1", b"2", b"3"]
    assert core.take() is None
    core.took(first, stored(0))
    closing = taken(core)
    assert closing.request.headers["stream-closed"] == "true"
    assert (closing.request.body, named(closing)) == (b"[2,3]", (0, 1))
    assert not core.idle
    core.took(closing, stored(1, offset="o9", stream_closed="true"))
    assert (core.idle, core.closed, core.offset, core.unacknowledged) == (True, True, "o9", [])


def test_closing_is_repeated_like_every_batch() -> None:
    """Without items it has no body."""
    world = World()
    core = producer(world)
    core.end([])
    closing = taken(core)
    assert closing.request.headers == {
        "producer-id": "p",
        "producer-epoch": "0",
        "producer-seq": "0",
        "stream-closed": "true",
    }
    assert closing.request.body is None
    core.took(closing, Lost("reset"))
    world.now_ms += 50
    again = taken(core)
    assert again.request == closing.request
    core.took(again, stored(0, status=204, stream_closed="true"))
    assert core.closed


@pytest.mark.parametrize(
    "response",
    [stored(0, status=204), Response(204, {"stream-closed": "true", "producer-seq": "0"})],
    ids=["open", "no offset"],
)
def test_closing_must_be_confirmed(response: Response) -> None:
    """A server that does not know how to close took it for something else."""
    core = producer(World())
    core.end([])
    core.took(taken(core), response)
    assert isinstance(core.failure, RemoteProtocolError)
    assert not core.closed


# --- any schedule

SCHEDULE = st.lists(st.integers(0, 10_000), max_size=120)


@given(SCHEDULE, st.integers(1, 25), st.integers(1, 5))
@settings(max_examples=300, deadline=None)
def test_any_schedule_leaves_exactly_the_items_in_order(
    chances: list[int], item_count: int, in_flight_max: int
) -> None:
    """Requests that are late, lost, doubled and overtaken, answers that are lost: each item is there once."""
    world = World(retry_for_s=None)
    server = ModelServer()
    linger_ms = chances[0] % 7 if chances else 5
    core = producer(world, in_flight_max=in_flight_max, linger_ms=linger_ms, batch_bytes_max=8, buffer_bytes_max=20)
    items: list[object] = list(range(100, 100 + item_count))
    WildNetwork(world, server, core, chances).run(items)
    assert core.failure is None
    assert core.idle
    assert server.messages == items
    assert server.closed


@given(SCHEDULE, st.integers(1, 25), st.sampled_from([(0, 0), (4, 9), (LATER_MS, 0), (LATER_MS, 3)]))
@example([], 1, (LATER_MS, 0))
@settings(max_examples=300, deadline=None)
def test_any_schedule_of_a_claim(chances: list[int], item_count: int, before: tuple[int, int]) -> None:
    """After an earlier run: all items once and in order. Or fenced off, which needs a clock that goes ahead."""
    world = World(retry_for_s=None)
    server = ModelServer()
    server.producers["p"] = before
    core = producer(world, auto_claim=True, batch_bytes_max=8, buffer_bytes_max=20)
    items: list[object] = list(range(100, 100 + item_count))
    WildNetwork(world, server, core, chances).run(items)
    if core.failure is None:
        assert core.idle
        assert server.messages == items
    else:
        assert isinstance(core.failure, ProducerFenced)
        assert before[0] == LATER_MS
        assert server.messages == []
