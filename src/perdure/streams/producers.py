"""Idempotent producers: tell a retry from new data (Durable Streams, section 5.2.1).

A producer numbers its appends 0, 1, 2, ... within an epoch; a restart of it takes the next
epoch. For each stream and producer the newest accepted pair is kept, in the same commit as
the data, so a crash between the two cannot happen::

    epoch  < kept epoch             stale: another has taken over
    epoch  > kept epoch             accepted if seq is 0
    seq   <= kept seq               duplicate
    seq    = kept seq + 1           accepted
    seq    > kept seq + 1           gap: what is between has not arrived
    nothing kept                    accepted if seq is 0, else a gap

The kept pair is a note of the stream: key ``producer:<id>``, value two u64, little-endian. Who
closed a stream is the note ``closed-by``: the same pair, then the id.
"""

from __future__ import annotations

import struct
from enum import Enum
from typing import NamedTuple

_PAIR = struct.Struct("<QQ")

NOTE_PREFIX = "producer:"
CLOSED_BY = "closed-by"


class ProducerState(NamedTuple):
    """The newest accepted append of a producer."""

    epoch: int
    seq: int

    def encode(self) -> bytes:
        return _PAIR.pack(self.epoch, self.seq)


class Verdict(Enum):
    """What an append is."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"
    STALE = "stale"
    GAP = "gap"
    BAD_START = "bad start"


def judge(kept: ProducerState | None, epoch: int, seq: int) -> Verdict:
    """Compare an append's numbers with the newest accepted ones."""
    if kept is None:
        return Verdict.ACCEPTED if seq == 0 else Verdict.GAP
    if epoch < kept.epoch:
        return Verdict.STALE
    if epoch > kept.epoch:
        return Verdict.ACCEPTED if seq == 0 else Verdict.BAD_START
    if seq <= kept.seq:
        return Verdict.DUPLICATE
    return Verdict.ACCEPTED if seq == kept.seq + 1 else Verdict.GAP


def decode_state(value: bytes | None) -> ProducerState | None:
    """The kept pair of a note."""
    return None if value is None else ProducerState(*_PAIR.unpack(value))


def encode_closer(producer_id: str, epoch: int, seq: int) -> bytes:
    """The note of who closed the stream."""
    return _PAIR.pack(epoch, seq) + producer_id.encode()


def decode_closer(value: bytes | None) -> tuple[str, int, int] | None:
    """Who closed the stream: id, epoch, sequence number; None when no producer did."""
    if value is None:
        return None
    epoch, seq = _PAIR.unpack_from(value)
    return value[_PAIR.size :].decode(), epoch, seq
