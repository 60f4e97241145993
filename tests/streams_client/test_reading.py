"""A reader's way along a stream: literal answers in, requests and batches out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.streams_client.surroundings import World

from perdure import errors
from perdure.errors import LimitExceeded, LocalProtocolError, OffsetError, RemoteProtocolError
from perdure.streams_client import Batch, Live, StreamGone, StreamUnreachable
from perdure.streams_client.answers import Lost
from perdure.streams_client.core import Wait
from perdure.streams_client.reading import HangUp, Open, Opened, Read, Reading, Whole

URL = "http://test/s"
JSON = "application/json"
BYTES = "application/octet-stream"


@dataclass
class Answer:
    """What a server does with one request. ``cut``: the connection breaks after the body; None ends it cleanly.

    ``takes_ms`` is how long the answer's end takes to come.
    """

    headers: dict[str, str] = field(default_factory=dict)
    body: Iterable[bytes] = ()
    status: int = 200
    cut: str | None = None
    takes_ms: float = 0


def whole(body: bytes, offset: str, *, content_type: str = JSON, **headers: str) -> Answer:
    """A catch-up answer or a poll's."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer({"content-type": content_type, "stream-next-offset": offset, **named}, [body] if body else [])


def tail(body: bytes, offset: str, *, content_type: str = JSON, **headers: str) -> Answer:
    """The answer that reaches the tail."""
    return whole(body, offset, content_type=content_type, stream_up_to_date="true", **headers)


def events(*text: str, cut: str | None = None, takes_ms: float = 60_000, base64: bool = False) -> Answer:
    """A connection for events that sends these pieces of text."""
    headers = {"content-type": "text/event-stream"}
    if base64:
        headers["stream-sse-data-encoding"] = "base64"
    return Answer(headers, [piece.encode() for piece in text], cut=cut, takes_ms=takes_ms)


def data(text: str) -> str:
    """An event of data."""
    return f"event: data\ndata: {text}\n\n"


def control(offset: str, **more: Any) -> str:
    """A control event."""
    fields = "".join(f',"{name}":{str(value).lower()}' for name, value in more.items())
    return f'event: control\ndata: {{"streamNextOffset":"{offset}","streamCursor":"c{offset}"{fields}}}\n\n'


@dataclass
class Way:
    """What happened on a way: addresses asked for (their query), batches, waits, answers left early."""

    asked: list[str] = field(default_factory=list)
    batches: list[Batch] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    hung_up: int = 0

    @property
    def messages(self) -> list[Any]:
        """All messages that came."""
        return [message for batch in self.batches for message in batch.messages]

    @property
    def data(self) -> bytes:
        """All bytes that came."""
        return b"".join(batch.data for batch in self.batches)


class Enough(Exception):
    """There are no more answers."""


def walk(world: World, reading: Reading, *answers: Answer | Lost) -> Way:
    """Lead a reader through these answers; it may go on for ever behind them."""
    way = Way()
    left = iter(answers)
    answer = Answer()
    pieces: list[bytes | Lost] = []
    steps = reading.steps()
    outcome: Opened | bytes | Lost | None = None
    for _ in range(10_000):
        try:
            step = steps.send(outcome)
        except StopIteration:
            assert next(left, None) is None, "the reader ended early"
            return way
        outcome = None
        match step:
            case Open(request, _):
                following = next(left, None)
                if following is None:
                    way.asked.append(request.url.removeprefix(URL))
                    return way
                way.asked.append(request.url.removeprefix(URL))
                if isinstance(following, Lost):
                    outcome = following
                else:
                    answer = following
                    pieces = [*answer.body, Lost(answer.cut) if answer.cut is not None else b""]
                    outcome = Opened(answer.status, answer.headers)
            case Read():
                outcome = pieces.pop(0)
                if not pieces:
                    world.now_ms += answer.takes_ms
            case HangUp():
                way.hung_up += 1
            case Wait(ms):
                way.waits.append(ms)
                world.now_ms += ms
            case Batch():
                way.batches.append(step)
    raise AssertionError("the reader goes round in circles")


def reader(world: World, **options: Any) -> Reading:
    """A reader of the stream."""
    return Reading(URL, world.around, **options)


# --- catching up


def test_reading_to_the_tail() -> None:
    """Answer after answer, each from where the one before ended."""
    world = World()
    reading = reader(world, live=False)
    way = walk(world, reading, whole(b'[{"a":1}]', "o1"), whole(b"[2,3]", "o2"), tail(b"[4]", "o3"))
    assert way.asked == ["?offset=-1", "?offset=o1", "?offset=o2"]
    assert way.batches == [
        Batch(b'[{"a":1}]', [{"a": 1}], "o1", False, False, JSON),
        Batch(b"[2,3]", [2, 3], "o2", False, False, JSON),
        Batch(b"[4]", [4], "o3", True, False, JSON),
    ]
    assert (reading.offset, reading.up_to_date, reading.closed, reading.content_type) == ("o3", True, False, JSON)


def test_an_empty_stream_is_one_empty_batch() -> None:
    """It says that the tail is reached."""
    world = World()
    way = walk(world, reader(world, live=False), tail(b"[]", "o0"))
    assert way.batches == [Batch(b"[]", [], "o0", True, False, JSON)]


def test_bytes_that_look_like_no_messages_are_bytes() -> None:
    """Only a JSON stream's `[]` is nothing."""
    world = World()
    way = walk(world, reader(world, live=False), tail(b"[]", "o1", content_type=BYTES))
    assert way.batches == [Batch(b"[]", [], "o1", True, False, BYTES)]


def test_the_tail_is_known_without_its_header() -> None:
    """An empty answer that goes no further is the tail (section 5.6)."""
    world = World()
    way = walk(world, reader(world, live=False), whole(b"x", "o1", content_type=BYTES), whole(b"", "o1"))
    assert way.asked == ["?offset=-1", "?offset=o1"]
    assert [batch.up_to_date for batch in way.batches] == [False, True]


def test_a_closed_stream_ends_the_way() -> None:
    """In any mode; the last batch says so."""
    for live in ("auto", "sse", "long-poll", False):
        world = World()
        way = walk(world, reader(world, live=live), tail(b"[1]", "o1", stream_closed="TRUE"))
        assert way.batches == [Batch(b"[1]", [1], "o1", True, True, JSON)]


def test_closed_counts_when_it_is_true() -> None:
    """Other values are no end."""
    world = World()
    way = walk(world, reader(world), tail(b"[1]", "o1", stream_closed="1"))
    assert [batch.closed for batch in way.batches] == [False]
    assert way.asked == ["?offset=-1", "?offset=o1&live=sse"]


def test_a_body_that_is_cut_is_asked_for_again() -> None:
    """What came of it is thrown away: it counts when it is whole."""
    world = World()
    half = Answer({"content-type": BYTES, "stream-next-offset": "o1"}, [b"ab"], cut="reset")
    way = walk(world, reader(world, live=False), half, tail(b"abc", "o1", content_type=BYTES))
    assert way.asked == ["?offset=-1", "?offset=-1"]
    assert (way.data, way.waits) == (b"abc", [50.0])


def test_json_that_is_cut_is_an_error_and_the_offset_stays() -> None:
    """A clean end of half a body is no network's doing."""
    world = World()
    reading = reader(world)
    with pytest.raises(RemoteProtocolError, match="not valid JSON"):
        walk(world, reading, whole(b'[{"a":', "o1"))
    assert reading.offset == "-1"


def test_an_answer_without_its_offset_is_an_error() -> None:
    """Going on from nowhere would repeat or lose."""
    world = World()
    with pytest.raises(RemoteProtocolError, match="Stream-Next-Offset"):
        walk(world, reader(world), Answer({"content-type": BYTES}, [b"x"]))


def test_data_that_does_not_move_the_offset_is_an_error() -> None:
    """Reading it would never end."""
    world = World()
    with pytest.raises(RemoteProtocolError, match="does not move on"):
        walk(world, reader(world, offset="o1"), whole(b"x", "o1", content_type=BYTES))


def test_a_body_has_a_limit() -> None:
    """One byte more is an error, not memory."""
    world = World()
    assert walk(world, reader(world, live=False, body_bytes_max=4), tail(b"[12]", "o1")).messages == [12]
    with pytest.raises(LimitExceeded, match="body_bytes_max allows 4"):
        walk(world, reader(world, live=False, body_bytes_max=4), tail(b"[123]", "o1"))


# --- refusals and retries


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, errors.StreamNotFound), (410, StreamGone), (400, OffsetError), (401, errors.Unauthenticated)],
)
def test_refusals_end_the_way(status: int, error: type[Exception]) -> None:
    """They are typed, and final at once."""
    world = World()
    with pytest.raises(error):
        walk(world, reader(world), Answer({}, [b"no"], status=status))


def test_a_refusals_text_is_read_to_a_limit() -> None:
    """A page of a proxy need not be read whole."""
    world = World()
    way = walk(world, reader(world), Answer({}, [b"x" * 4_095, b"y", b"z"], status=503), tail(b"[1]", "o1"))
    assert way.hung_up == 1
    assert way.messages == [1]


def test_busy_servers_and_lost_connections_are_tried_again() -> None:
    """After growing waits, and no sooner than the server asks for."""
    world = World()
    way = walk(
        world,
        reader(world, live=False),
        Lost("refused"),
        Answer({}, [], status=502),
        Answer({"retry-after": "2"}, [], status=503),
        Answer({"retry-after": "1"}, [], status=429, cut="reset"),
        tail(b"[1]", "o1"),
    )
    assert way.asked == ["?offset=-1"] * 5
    assert way.waits == [50.0, 65.0, 2_000.0, 1_000.0]


def test_progress_makes_waits_short_again() -> None:
    """The time to try for counts from the first failure in a row."""
    world = World(retry_for_s=1)
    failures: list[Answer | Lost] = [Lost("refused"), Answer({}, status=500)]
    way = walk(
        world,
        reader(world, live=False),
        *failures,
        whole(b"[1]", "o1"),
        *failures,
        tail(b"[2]", "o2"),
    )
    assert way.waits == [50.0, 65.0, 50.0, 65.0]
    with pytest.raises(StreamUnreachable, match="refused"):
        walk(world, reader(world), *[Lost("refused")] * 12)


def test_without_time_to_try_a_cut_is_an_error() -> None:
    """`retry_for_s=0` leaves going on to the application, which has the offset."""
    world = World(retry_for_s=0)
    reading = reader(world)
    with pytest.raises(StreamUnreachable):
        walk(world, reading, tail(b"[1]", "o1"), events(data("[2]"), control("o2"), data("[3]"), cut="reset"))
    assert reading.offset == "o2"


# --- events


def test_events_follow_the_tail() -> None:
    """Each event of data comes with the control event behind it."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        events(
            control("o1", upToDate=True),
            data("[2]") + control("o2"),
            data("[3]") + data("[4,5]") + control("o3", upToDate=True),
            data("[6]") + control("o4", streamClosed=True),
        ),
    )
    assert way.asked == ["?offset=-1", "?offset=o1&live=sse"]
    assert way.batches == [
        Batch(b"[1]", [1], "o1", True, False, JSON),
        Batch(b"[2]", [2], "o2", False, False, JSON),
        Batch(b"[3,4,5]", [3, 4, 5], "o3", True, False, JSON),
        Batch(b"[6]", [6], "o4", True, True, JSON),
    ]


def test_reaching_the_tail_again_is_told_without_data() -> None:
    """Being there still is not."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        events(control("o1", upToDate=True), data("[2]") + control("o2"), *[control("o2", upToDate=True)] * 3),
    )
    assert [(batch.offset, batch.up_to_date, batch.messages) for batch in way.batches[1:]] == [
        ("o2", False, [2]),
        ("o2", True, []),
    ]


def test_a_close_without_data_is_a_batch() -> None:
    """The reader hears of the end."""
    world = World()
    way = walk(world, reader(world), tail(b"[1]", "o1"), events(control("o1", streamClosed=True)))
    assert way.batches[1:] == [Batch(b"[]", [], "o1", True, True, JSON)]
    assert way.hung_up == 1


def test_data_without_its_control_event_does_not_count() -> None:
    """It comes again on the next connection, and is given out once."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        events(data("[2]"), cut="reset"),
        events(data("[2]"), control("o2")[:-1], cut="reset"),
        events(data("[2]") + control("o2")),
    )
    assert way.asked[1:] == [
        "?offset=o1&live=sse",
        "?offset=o1&live=sse",
        "?offset=o1&live=sse",
        "?offset=o2&live=sse&cursor=co2",
    ]
    assert way.messages == [1, 2]


def test_a_clean_end_is_a_rotation() -> None:
    """The next connection begins at once, with the newest cursor."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        events(control("o1", upToDate=True)),
        events(data("[2]") + control("o2", upToDate=True)),
    )
    assert way.asked[1:] == [
        "?offset=o1&live=sse",
        "?offset=o1&live=sse&cursor=co1",
        "?offset=o2&live=sse&cursor=co2",
    ]
    assert way.waits == []


def test_other_events_and_comments_are_skipped() -> None:
    """The protocol may grow."""
    world = World()
    noise = ": keep-alive\n\nid: 7\nretry: 10\nevent: news\ndata: {}\n\ndata: plain\n\n"
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        events(noise + data("[2]") + noise + control("o2")),
    )
    assert way.messages == [1, 2]


@pytest.mark.parametrize("text", ["{invalid", "", "[]", '{"streamCursor":"c"}', '{"streamNextOffset":7}'])
def test_a_control_event_that_is_none_is_an_error(text: str) -> None:
    """Without its offset nothing can go on."""
    world = World()
    with pytest.raises(RemoteProtocolError, match="control event"):
        walk(world, reader(world), tail(b"[1]", "o1"), events(f"event: control\ndata: {text}\n\n"))


def test_bytes_come_in_base64() -> None:
    """Each event by itself, in one line or several, where the answer's header says so."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"\x00", "o1", content_type=BYTES),
        events(data("AQID\ndata: BAU=") + data("Bg==") + control("o2", streamClosed=True), base64=True),
    )
    assert way.batches[1] == Batch(b"\x01\x02\x03\x04\x05\x06", [], "o2", True, True, BYTES)


def test_text_is_followed_by_events_on_demand() -> None:
    """By itself the reader polls, which keeps line ends as they are."""
    world = World()
    start = tail(b"a\r\n", "o1", content_type="text/plain")
    way = walk(world, reader(world), start, tail(b"b\r\n", "o2", content_type="text/plain"))
    assert way.asked == ["?offset=-1", "?offset=o1&live=long-poll", "?offset=o2&live=long-poll"]
    assert way.data == b"a\r\nb\r\n"
    way = walk(world, reader(world, live="sse"), start, events(data("b\ndata: c") + control("o2")))
    assert way.data == b"a\r\nb\nc"


def test_an_event_has_a_limit() -> None:
    """And so has all data before its control event."""
    world = World()
    start = tail(b"[1]", "o1")
    fits = events(data("[2]") + data("[3]") + control("o2", streamClosed=True))
    assert walk(world, reader(world, event_bytes_max=66, body_bytes_max=6), start, fits).messages == [1, 2, 3]
    with pytest.raises(LimitExceeded, match="body_bytes_max allows 5"):
        walk(world, reader(world, body_bytes_max=5), start, fits)
    with pytest.raises(LimitExceeded, match="event_bytes_max allows 65"):
        walk(world, reader(world, event_bytes_max=65), start, fits)


# --- events that do not last


def test_three_short_connections_lead_to_polling() -> None:
    """For good: a proxy that holds events back will go on doing so."""
    world = World()
    way = walk(
        world,
        reader(world),
        tail(b"[1]", "o1"),
        *[events(control("o1", upToDate=True), takes_ms=999)] * 3,
        tail(b"[2]", "o2", stream_cursor="c9"),
    )
    assert way.asked[1:] == [
        "?offset=o1&live=sse",
        *["?offset=o1&live=sse&cursor=co1"] * 2,
        "?offset=o1&live=long-poll&cursor=co1",
        "?offset=o2&live=long-poll&cursor=c9",
    ]
    assert way.waits == [50.0, 65.0]


def test_a_connection_that_lasts_forgives_the_short_ones() -> None:
    """A second is enough."""
    world = World()
    short = [events(takes_ms=999)] * 2
    way = walk(world, reader(world), tail(b"[1]", "o1"), *short, events(takes_ms=1_000), *short, events())
    assert {query.rpartition("=")[2] for query in way.asked[1:]} == {"sse"}


def test_who_insists_on_events_keeps_them() -> None:
    """With growing waits between connections that do not last."""
    world = World()
    way = walk(world, reader(world, live="sse"), tail(b"[1]", "o1"), *[events(takes_ms=0)] * 5)
    assert {query.rpartition("=")[2] for query in way.asked[1:]} == {"sse"}
    assert way.waits == pytest.approx([50, 65, 84.5, 109.85, 142.805])


@pytest.mark.parametrize(
    "refusal",
    [Answer({}, [b"no events here"], status=400), Answer({"content-type": BYTES}, status=204)],
    ids=["refused", "empty"],
)
def test_servers_without_events_are_polled(refusal: Answer) -> None:
    """The first draft of the protocol had events for some streams only."""
    world = World()
    way = walk(world, reader(world), tail(b"\x00", "o1", content_type=BYTES), refusal)
    assert way.asked[1:] == ["?offset=o1&live=sse", "?offset=o1&live=long-poll"]


# --- polling


def test_a_poll_that_times_out_is_repeated() -> None:
    """With the newest cursor, and without a word to the reader."""
    world = World()
    nothing = Answer({"stream-next-offset": "o1", "stream-cursor": "c2"}, status=204, takes_ms=20_000)
    ended = Answer({"stream-next-offset": "o2", "stream-closed": "true"}, status=204)
    way = walk(
        world,
        reader(world, live="long-poll"),
        tail(b"[1]", "o1", stream_cursor="c1"),
        nothing,
        tail(b"[2]", "o2", stream_cursor="c3"),
        ended,
    )
    assert way.asked == [
        "?offset=-1",
        "?offset=o1&live=long-poll&cursor=c1",
        "?offset=o1&live=long-poll&cursor=c2",
        "?offset=o2&live=long-poll&cursor=c3",
    ]
    assert way.batches[1:] == [Batch(b"[2]", [2], "o2", True, False, JSON), Batch(b"[]", [], "o2", True, True, JSON)]


def test_polls_that_are_answered_with_nothing_at_once_are_not_repeated_at_once() -> None:
    """Something between here and the server does not hold them."""
    world = World()
    nothing = Answer({"stream-next-offset": "o1"}, status=204, takes_ms=49)
    held = Answer({"stream-next-offset": "o1"}, status=204, takes_ms=50)
    way = walk(world, reader(world, live="long-poll"), tail(b"[1]", "o1"), nothing, nothing, held, nothing)
    assert way.waits == [50.0, 65.0, 50.0]


def test_who_fell_behind_catches_up_before_polling() -> None:
    """Answers without a wait may come from a cache."""
    for live, content_type in (("long-poll", JSON), ("auto", "text/plain")):
        world = World()
        way = walk(
            world,
            reader(world, live=live),
            tail(b"[1]", "o1", content_type=content_type),
            whole(b"[2]", "o2", content_type=content_type),
            tail(b"[3]", "o3", content_type=content_type),
        )
        assert way.asked == ["?offset=-1", "?offset=o1&live=long-poll", "?offset=o2", "?offset=o3&live=long-poll"]


def test_now_is_made_an_offset_first() -> None:
    """A cut cannot lose what comes between."""
    world = World()
    way = walk(world, reader(world, offset="now"), tail(b"[]", "o7"), events(cut="reset"))
    assert way.asked == ["?offset=now", "?offset=o7&live=sse", "?offset=o7&live=sse"]


@pytest.mark.parametrize("wrong", [{"live": "websocket"}, {"live": True}, {"offset": ""}])
def test_wrong_arguments_are_refused(wrong: dict[str, Any]) -> None:
    """Before anything is sent."""
    with pytest.raises(LocalProtocolError):
        reader(World(), **wrong)


# --- everything at once


class GrowingStream:
    """A server whose stream has the numbers below ten as messages, some of them later; they are the offsets, too.

    ``chances`` say how each answer fares; when they are used up all goes well.
    """

    def __init__(self, chances: list[int]) -> None:
        self._chances = iter(chances)
        self.length = 0

    def answer(self, url: str) -> tuple[Opened | Lost, list[bytes | Lost]]:
        """The head of an answer, and its body as it comes."""
        if self._draw(0, 3, well=1) == 0:
            return Lost("refused"), []
        self.length = self._draw(self.length, 10, well=10)
        query = dict(pair.split("=") for pair in url.partition("?")[2].split("&"))
        start = max(0, int(query["offset"]))
        if query.get("live") == "sse":
            headers, body = {"content-type": "text/event-stream"}, self._events(start)
            ends_cleanly = self._draw(0, 1, well=1) == 1  # wherever that is
        else:
            headers, body = self._whole(start)
            ends_cleanly = False
        length = self._draw(0, len(body), well=len(body))
        end: bytes | Lost = b"" if ends_cleanly or length == len(body) else Lost("reset")
        return Opened(200, headers), [body[:length], end] if length else [end]

    def _whole(self, start: int) -> tuple[dict[str, str], bytes]:
        end = self._draw(min(start + 1, self.length), self.length, well=self.length)
        headers = {"content-type": JSON, "stream-next-offset": str(end)}
        if end == self.length:
            headers["stream-up-to-date"] = "true"
            if end == 10:
                headers["stream-closed"] = "true"
        return headers, str(list(range(start, end))).encode()

    def _events(self, start: int) -> bytes:
        text = "".join(data(f"[{number}]") + self._control(number + 1) for number in range(start, self.length))
        return (text or self._control(start)).encode()

    def _control(self, offset: int) -> str:
        if offset < self.length:
            return control(str(offset))
        return control(str(offset), **({"streamClosed": True} if offset == 10 else {"upToDate": True}))

    def _draw(self, low: int, high: int, *, well: int) -> int:
        chance = next(self._chances, None)
        return well if chance is None else low + chance % (high - low + 1)


@given(st.sampled_from(["auto", "sse", "long-poll", False]), st.lists(st.integers(0, 10_000), max_size=80))
def test_any_cuts_lose_and_repeat_nothing(live: Live, chances: list[int]) -> None:
    """Answers that are cut anywhere, whatever the mode: every message once, in order, and the end."""
    world = World(retry_for_s=None)
    reading = reader(world, live=live)
    server = GrowingStream(chances)
    steps = reading.steps()
    outcome: Opened | bytes | Lost | None = None
    pieces: list[bytes | Lost] = []
    batches: list[Batch] = []
    for number in range(1_000):
        try:
            step = steps.send(outcome)
        except StopIteration:
            break
        outcome = None
        if isinstance(step, Batch):
            batches.append(step)
        elif isinstance(step, Open):
            outcome, pieces = server.answer(step.request.url)
        elif isinstance(step, Read):
            outcome = pieces.pop(0)
            world.now_ms += 700
        assert number < 999, "the reader goes round in circles"
    messages = [message for batch in batches for message in batch.messages]
    assert messages == list(range(10 if live is not False else len(messages)))
    assert batches[-1].offset == str(len(messages))
    assert batches[-1].closed == (len(messages) == 10)


def test_the_whole_is_all_batches_in_one() -> None:
    """Of messages and of bytes, up to a limit."""
    json_whole = Whole(8)
    json_whole.add(Batch(b"[1,2]", [1, 2], "o1", False, False, JSON))
    json_whole.add(Batch(b"[3]", [3], "o2", True, True, JSON))
    assert json_whole.batch == Batch(b"[1,2,3]", [1, 2, 3], "o2", True, True, JSON)
    bytes_whole = Whole(8)
    bytes_whole.add(Batch(b"[ab", [], "o1", False, False, BYTES))
    bytes_whole.add(Batch(b"cdef]", [], "o2", True, False, BYTES))
    assert bytes_whole.batch == Batch(b"[abcdef]", [], "o2", True, False, BYTES)
    with pytest.raises(LimitExceeded, match="body_bytes_max allows 8"):
        bytes_whole.add(Batch(b"x", [], "o3", True, False, BYTES))
