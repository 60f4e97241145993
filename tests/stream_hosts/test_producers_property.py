"""Whatever several producers send, in whatever order, how often, over crashes: the stream is what was accepted."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import NamedTuple

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.wire.durable_streams import join_json

from .asking import Answer, Streams


class Sent(NamedTuple):
    """An append: by whom, which one. ``producer`` None is a plain append."""

    producer: str | None
    epoch: int
    seq: int
    close: bool = False


ARRIVALS = st.builds(
    Sent,
    st.sampled_from(["a", "b", "é"]),
    st.integers(0, 2),
    st.integers(0, 4),
    st.sampled_from([False] * 15 + [True]),
)
PLAIN = st.builds(Sent, st.none(), st.just(0), st.just(0), st.just(False))
STEPS = st.lists(
    st.one_of(
        # Some at once, without waiting for each other.
        st.lists(ARRIVALS | PLAIN, min_size=1, max_size=6),
        st.sampled_from(["kill", "restart", "sleep"]),
    ),
    min_size=1,
    max_size=10,
)


class Log:
    """What the stream must be: the protocol's table, on the whole list of what was accepted."""

    def __init__(self) -> None:
        self.accepted: list[tuple[Sent, bytes]] = []
        self.closed_by: Sent | None = None

    def take(self, sent: Sent, payload: bytes) -> tuple[int, dict[str, str]]:
        """The status that this arrival must get, and some headers of its answer."""
        tail = {"stream-next-offset": f"{len(self.accepted):016}"}
        if self.closed_by is not None:
            if sent.producer is not None and sent == self.closed_by:
                pair = {"producer-epoch": str(sent.epoch), "producer-seq": str(sent.seq)}
                return 204, {**tail, **pair, "stream-closed": "true"}
            return 409, {**tail, "stream-closed": "true"}
        if sent.producer is None:
            self.accepted.append((sent, payload))
            return 204, {"stream-next-offset": f"{len(self.accepted):016}"}
        before = [item for item, _ in self.accepted if item.producer == sent.producer]
        epoch = max((item.epoch for item in before), default=-1)
        newest = max((item.seq for item in before if item.epoch == epoch), default=-1)
        if sent.epoch < epoch:
            return 403, {"producer-epoch": str(epoch)}
        if sent.epoch > epoch and before and sent.seq:
            return 400, {}
        if sent.epoch == epoch and sent.seq <= newest:
            return 204, {**tail, "producer-epoch": str(epoch), "producer-seq": str(newest)}
        if sent.seq != (newest + 1 if sent.epoch == epoch else 0):
            return 409, {"producer-expected-seq": str(newest + 1), "producer-received-seq": str(sent.seq)}
        self.accepted.append((sent, payload))
        end = {"stream-closed": "true"} if sent.close else {}
        if sent.close:
            self.closed_by = sent
        return 200, {"stream-next-offset": f"{len(self.accepted):016}", **end, "producer-seq": str(sent.seq)}

    @property
    def entries(self) -> list[bytes]:
        """The stream's entries."""
        return [payload for _, payload in self.accepted]


def _headers(sent: Sent, content_type: str) -> dict[str, str]:
    headers = {"content-type": content_type}
    if sent.producer is not None:
        numbers = {"producer-epoch": str(sent.epoch), "producer-seq": str(sent.seq)}
        headers |= {"producer-id": sent.producer, **numbers}
    return headers | ({"stream-closed": "true"} if sent.close else {})


def _agrees(answer: Answer, expected: tuple[int, dict[str, str]]) -> bool:
    status, headers = expected
    return answer.status == status and {name: answer.headers.get(name) for name in headers} == headers


async def _tell(folder: Path, steps: list[list[Sent] | str], content_type: str) -> None:
    streams, log, number = Streams(folder), Log(), 0
    await streams.start()
    await streams.ask("PUT", "s", b"", {"content-type": content_type})
    for step in steps:
        if step == "kill":
            await streams.kill()
        elif step == "restart":
            await streams.restart()
        elif step == "sleep":
            await streams.sleep("s")
        else:
            assert not isinstance(step, str)
            answers, expected = [], []
            for sent in step:
                # A retry has the payload that its first try would have had: what counts is which one is kept.
                payload = b'"%d %s"' % (number, repr(sent).encode().replace(b'"', b"'"))
                number += 1
                answers.append(streams.begin("POST", "s", payload, _headers(sent, content_type)))
                expected.append(log.take(sent, payload))
            async with asyncio.timeout(10):
                told = [Answer(await answer) for answer in answers]
            for sent, answer, should in zip(step, told, expected, strict=True):
                assert _agrees(answer, should), (sent, answer, should)
        found = await streams.whole("s")
        entries = log.entries
        assert found.body == (join_json(entries) if content_type == "application/json" else b"".join(entries))
        assert (found.headers.get("stream-closed") == "true") == (log.closed_by is not None)
    await streams.stop()


@settings(max_examples=30, deadline=None)
@given(STEPS, st.sampled_from(["application/json", "text/plain"]))
def test_a_stream_is_the_log_of_what_was_accepted(steps: list[list[Sent] | str], content_type: str) -> None:
    """Every arrival gets the protocol's verdict, and nothing else ever shows in the stream."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_tell(Path(folder), steps, content_type))


DELIVERIES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5)), max_size=40)


@settings(max_examples=30, deadline=None)
@given(DELIVERIES, st.lists(st.integers(0, 40), max_size=3))
def test_producers_that_retry_have_each_item_stored_once(deliveries: list[tuple[int, int]], kills: list[int]) -> None:
    """A network that repeats and reorders, a server that is killed: in the end each has all its items, in order."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_deliver(Path(folder), deliveries, kills))


async def _deliver(folder: Path, deliveries: list[tuple[int, int]], kills: list[int]) -> None:
    streams = Streams(folder)
    await streams.start()
    await streams.ask("PUT", "s", b"", {"content-type": "text/plain"})

    async def deliver(producer: int, seq: int) -> int:
        headers = _headers(Sent(f"p{producer}", 0, seq), "text/plain")
        return (await streams.ask("POST", "s", b"%d:%d;" % (producer, seq), headers)).status

    for number, (producer, seq) in enumerate(deliveries):
        if number in kills:
            await streams.kill()
        assert await deliver(producer, seq) in (200, 204, 409)
    for producer in range(3):
        for seq in range(6):
            assert await deliver(producer, seq) in (200, 204)
    items = (await streams.whole("s")).body.decode().split(";")[:-1]
    for producer in range(3):
        assert [item for item in items if item.startswith(f"{producer}:")] == [
            f"{producer}:{seq}" for seq in range(6)
        ]
    assert len(items) == 18
    await streams.stop()
