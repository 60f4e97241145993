"""Offsets: each greater as text than all before it, the same for ever, and each where the rest begins."""

from __future__ import annotations

import tempfile
from pathlib import Path

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.values import OFFSET_DIGITS, format_offset, parse_offset
from perdure.wire.durable_streams import join_json

from .asking import Streams

POSITIONS = st.integers(0, 10**OFFSET_DIGITS - 1)


@given(POSITIONS, POSITIONS)
def test_offsets_sort_as_text(one: int, other: int) -> None:
    """Over all numbers of digits; none is what a client may say instead of one."""
    assert (format_offset(one) < format_offset(other)) == (one < other)
    assert parse_offset(format_offset(one)) == one
    assert "-1" < format_offset(one) < "now"
    assert not set(format_offset(one)) & set(",&=?/ ")


STEPS = st.lists(st.integers(1, 30) | st.sampled_from(["kill", "restart", "sleep"]), max_size=10)


async def _tell(folder: Path, steps: list[int | str]) -> None:
    streams, messages, given = Streams(folder), list[bytes](), ["0000000000000000"]
    await streams.start()
    headers = {"content-type": "application/json"}
    await streams.ask("PUT", "s", b"[]", headers)
    for step in steps:
        if step == "kill":
            await streams.kill()
        elif step == "restart":
            await streams.restart()
        elif step == "sleep":
            await streams.sleep("s")
        else:
            new = [b"%d" % (len(messages) + number) for number in range(int(step))]
            answer = await streams.ask("POST", "s", join_json(new), headers)
            messages += new
            given.append(answer.headers["stream-next-offset"])
    assert given == sorted(set(given))
    for offset in given:
        rest = await streams.ask("GET", "s", query=f"offset={offset}")
        assert rest.body == join_json(messages[parse_offset(offset) :])
        assert rest.headers["stream-next-offset"] == given[-1]
    await streams.stop()


@settings(max_examples=20, deadline=None)
@given(STEPS)
def test_each_offset_is_where_the_rest_begins(steps: list[int | str]) -> None:
    """Whatever happened between."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_tell(Path(folder), steps))
