"""Idempotent producers: each pair of numbers has one verdict, and the kept pair is all that it takes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.streams.producers import (
    ProducerState,
    Verdict,
    decode_closer,
    decode_state,
    encode_closer,
    judge,
)

LARGEST = 2**53 - 1


@pytest.mark.parametrize(
    ("kept", "epoch", "seq", "verdict"),
    [
        (None, 0, 0, Verdict.ACCEPTED),
        (None, LARGEST, 0, Verdict.ACCEPTED),
        (None, 0, 1, Verdict.GAP),
        ((3, 5), 3, 6, Verdict.ACCEPTED),
        ((3, 5), 3, 5, Verdict.DUPLICATE),
        ((3, 5), 3, 0, Verdict.DUPLICATE),
        ((3, 5), 3, 7, Verdict.GAP),
        ((3, 5), 3, LARGEST, Verdict.GAP),
        ((3, 5), 2, 6, Verdict.STALE),
        ((3, 5), 2, 0, Verdict.STALE),
        ((3, 5), 4, 0, Verdict.ACCEPTED),
        ((3, 5), 9, 0, Verdict.ACCEPTED),
        ((3, 5), 4, 6, Verdict.BAD_START),
        ((0, LARGEST), 0, LARGEST, Verdict.DUPLICATE),
    ],
)
def test_each_pair_has_a_verdict(kept: tuple[int, int] | None, epoch: int, seq: int, verdict: Verdict) -> None:
    """As the table of section 5.2.1 says."""
    assert judge(None if kept is None else ProducerState(*kept), epoch, seq) is verdict


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60))
def test_what_is_accepted_is_numbered_without_gaps(arrivals: list[tuple[int, int]]) -> None:
    """Whatever arrives in whatever order: each epoch's accepted numbers are 0, 1, 2, ..., epochs only rise."""
    kept: ProducerState | None = None
    accepted: list[tuple[int, int]] = []
    for epoch, seq in arrivals:
        verdict = judge(kept, epoch, seq)
        assert (verdict is Verdict.DUPLICATE) == (
            (epoch, seq) in accepted and epoch == max(epoch for epoch, _ in accepted)
        )
        if verdict is Verdict.ACCEPTED:
            kept = ProducerState(epoch, seq)
            accepted.append((epoch, seq))
    assert accepted == sorted(set(accepted))
    for epoch in {epoch for epoch, _ in accepted}:
        numbers = [seq for at, seq in accepted if at == epoch]
        assert numbers == list(range(len(numbers)))


NUMBERS = st.integers(0, LARGEST)


@given(st.text(min_size=1), NUMBERS, NUMBERS)
def test_what_is_kept_comes_back(producer_id: str, epoch: int, seq: int) -> None:
    """The pair, and who closed the stream."""
    assert decode_state(ProducerState(epoch, seq).encode()) == (epoch, seq)
    assert decode_closer(encode_closer(producer_id, epoch, seq)) == (producer_id, epoch, seq)


def test_the_bytes_of_what_is_kept() -> None:
    """As the module's drawing says: they are on disks."""
    assert ProducerState(1, 258).encode() == b"\x01\0\0\0\0\0\0\0\x02\x01\0\0\0\0\0\0"
    assert encode_closer("é", 1, 2) == b"\x01\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\xc3\xa9"
    assert (decode_state(None), decode_closer(None)) == (None, None)
