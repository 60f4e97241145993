"""What the rooms of one round are asked to say, and when the server dies: all from one seed."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from typing import Literal

ClientKind = Literal["delta", "update", "fresh", "sse"]
EndKind = Literal["kill", "term"]

SYLLABLES = ("ba", "né", "ko", "ßu", "wörd", "中文", "🙂", "👩‍🚀", "tal", "\n\n", "`x`", '"q"', "\\", "\u2028")


SENDERS: tuple[ClientKind, ...] = ("delta", "update", "sse", "delta")


@dataclass(frozen=True)
class Order:
    """One message and the answer that it must get."""

    message_id: str
    content: str
    answer: str


@dataclass(frozen=True)
class RoomPlan:
    """One room: its messages, and its clients; the first client sends."""

    name: str
    orders: list[Order]
    clients: list[ClientKind]
    together: bool
    """Whether all messages are sent at once (they queue), or each after the answer before it."""


@dataclass(frozen=True)
class End:
    """How the server ends, and how long after it was ready (or, early, after it was started)."""

    kind: EndKind
    after_s: float
    early: bool


@dataclass(frozen=True)
class RoundPlan:
    """One round."""

    rooms: list[RoomPlan] = field(default_factory=list)
    ends: list[End] = field(default_factory=list)


def make_plan(seed: int, number: int, rooms: int) -> RoundPlan:
    """The plan of round ``number``."""
    chance = random.Random(f"{seed}/{number}")
    return RoundPlan(
        rooms=[_room(chance, f"round{number}-room{at}", at) for at in range(rooms)],
        ends=[_end(chance, first=at == 0) for at in range(chance.choice((1, 1, 2, 3)))],
    )


def _room(chance: random.Random, name: str, at: int) -> RoomPlan:
    sender: ClientKind = SENDERS[at % 4]
    others: list[ClientKind] = [chance.choice(("delta", "update", "fresh", "sse")) for _ in range(at % 3)]
    count = 1 if sender == "sse" else chance.choice((1, 1, 2, 3))
    orders = [_order(chance, f"{name}-message{number}") for number in range(count)]
    return RoomPlan(name, orders, [sender, *others], together=chance.random() < 0.5)


def _order(chance: random.Random, message_id: str) -> Order:
    kind = chance.choice(("words", "words", "count", "parts", "burst"))
    if kind == "count":
        count = chance.randint(5, 150)
        script = f"count={count}&delay_ms={chance.choice((0, 5, 20, 40))}"
        # The id makes two orders of one script different messages.
        content = json.dumps({"script": script, "for": message_id})
        return Order(message_id, content, " ".join(f"word{number}" for number in range(1, count + 1)))
    words = chance.randint(20, 300) if kind != "burst" else 5_000
    text = "".join(f"{number}{chance.choice(SYLLABLES)} " for number in range(words))
    size = chance.choice((3, 7, 16))
    delay_ms = 0 if kind == "burst" else chance.choice((5, 15, 30, 60))
    order = {
        "text": text,
        "piece_characters": size,
        # An answer of some seconds at most, whatever was drawn.
        "delay_ms": min(delay_ms, 6_000 * size / len(text)),
        "parts": kind == "parts",
        "for": message_id,
    }
    return Order(message_id, json.dumps(order, ensure_ascii=False), text)


def _end(chance: random.Random, *, first: bool) -> End:
    early = not first and chance.random() < 0.3
    return End(
        kind="kill" if chance.random() < 0.75 else "term",
        after_s=chance.uniform(0.05, 0.6) if early else chance.uniform(0.3, 2.5),
        early=early,
    )
