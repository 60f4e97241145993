"""Any tree of forks, over all hosts and over crashes, is what lists would be (section 1.5 of the protocol)."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.stream_hosts.directory import home_of
from perdure.wire.durable_streams import join_json

from .asking import Answer, Streams

PATHS = ("a", "b", "c", "d/e", "é", "f")
"""Their homes differ: a fork lives with its source, so most of these live away from home."""


class Step(NamedTuple):
    """What is done. ``which`` and ``source`` choose among the paths that fit, or, ``anywhere``, among all."""

    action: str
    which: int
    source: int
    anywhere: bool
    number: int
    more: int


CHANGES = ["create", "append", "append", "fork", "fork", "fork", "fork", "close", "delete", "delete"]

STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(CHANGES * 2 + ["kill", "restart", "sleep"]),
        st.integers(0, 5),
        st.integers(0, 5),
        st.sampled_from([False] * 5 + [True]),
        st.integers(0, 12),
        st.integers(0, 12),
    ),
    min_size=5,
    max_size=30,
)


@dataclass
class Node:
    """One stream of the model. A deleted one that still has forks is ``hidden``."""

    type: str
    entries: list[bytes]
    parent: Node | None = None
    closed: bool = False
    hidden: bool = False
    forks: int = 0
    origin: tuple[Any, ...] = field(default=())

    @property
    def body(self) -> bytes:
        return join_json(self.entries) if self.type == "application/json" else b"".join(self.entries)


class Tree:
    """The model: lists, and who was forked from whom."""

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.serial = 0

    def alive(self, path: str) -> Node | None:
        node = self.nodes.get(path)
        return None if node is None or node.hidden else node

    def absent_status(self, path: str) -> int:
        """The status of a request for a stream that is not alive."""
        return 410 if path in self.nodes else 404

    def message(self, kind: str) -> bytes:
        """An entry that no other is like."""
        self.serial += 1
        text = f"entry {self.serial}"
        return json.dumps({"n": text}).encode() if kind == "application/json" else text.encode()

    def remove(self, path: str) -> None:
        node: Node | None = self.nodes[path]
        assert node is not None
        if node.forks:
            node.hidden = True
            return
        while node is not None:
            del self.nodes[next(path for path, item in self.nodes.items() if item is node)]
            node = node.parent
            if node is not None:
                node.forks -= 1
                if node.forks or not node.hidden:
                    return

    def parted(self, source: Node, offset: int | None, sub_offset: int) -> list[bytes] | None:
        """What a fork begins with; None: there is no such place."""
        position = len(source.entries) if offset is None else offset
        if position > len(source.entries):
            return None
        entries = source.entries[:position]
        if source.type == "application/json":
            position += sub_offset
            return None if position > len(source.entries) else source.entries[:position]
        for entry in source.entries[position:]:
            if sub_offset < len(entry):
                return [*entries, entry[:sub_offset]] if sub_offset else entries
            entries.append(entry)
            sub_offset -= len(entry)
        return None if sub_offset else entries


def _chosen(paths: Sequence[str], number: int) -> str:
    return paths[number % len(paths)]


def _type(content_type: str) -> dict[str, str]:
    return {"content-type": content_type}


class Story:
    """Streams and their model, side by side."""

    def __init__(self, folder: Path) -> None:
        self.streams = Streams(folder)
        self.tree = Tree()

    async def expect(
        self, status: int, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        answer = await self.streams.ask(method, path, body, headers)
        assert answer.status == status, (method, path, headers, answer)
        return answer

    def path_for(self, step: Step) -> str:
        """Mostly a free path to make something at, or a stream to do something with."""
        makes = step.action in ("create", "fork")
        fit = [path for path in PATHS if (path not in self.tree.nodes if makes else self.tree.alive(path))]
        return _chosen(PATHS if step.anywhere else fit or PATHS, step.which)

    def source_for(self, step: Step) -> str:
        """Mostly a stream that can be forked."""
        fit = [path for path in PATHS if self.tree.alive(path)]
        return _chosen(PATHS if step.anywhere and step.more % 2 else fit or PATHS, step.source)

    async def take(self, step: Step) -> None:
        if not step.anywhere and not any(self.tree.alive(path) for path in PATHS):
            step = step._replace(action="create")  # else most of a story would be about nothing
        path = self.path_for(step)
        node = self.tree.alive(path)
        match step.action:
            case "create":
                await self.create(step, path, node)
            case "fork":
                await self.fork(step, path, self.source_for(step), node)
            case "append" if node is not None:
                entry = self.tree.message(node.type)
                await self.expect(409 if node.closed else 204, "POST", path, entry, _type(node.type))
                if not node.closed:
                    node.entries.append(entry)
            case "close" if node is not None:
                await self.expect(204, "POST", path, headers={"stream-closed": "true"})
                node.closed = True
            case "delete" if node is not None:
                await self.expect(204, "DELETE", path)
                self.tree.remove(path)
            case "append" | "close" | "delete":
                method = "DELETE" if step.action == "delete" else "POST"
                await self.expect(self.tree.absent_status(path), method, path, b"x", _type("text/plain"))
            case "kill":
                await self.streams.kill()
            case "restart":
                await self.streams.restart()
            case _:
                await self.streams.sleep(path)

    async def create(self, step: Step, path: str, node: Node | None) -> None:
        kind = "application/json" if step.number % 2 else "text/plain"
        if path in self.tree.nodes:
            like = node is not None and (node.type, node.closed, node.origin) == (kind, False, ())
            await self.expect(200 if like else 409, "PUT", path, headers=_type(kind))
            return
        entries = [self.tree.message(kind) for _ in range(step.number % 3)]
        body = (join_json(entries) if kind == "application/json" else b"".join(entries)) if entries else b""
        await self.expect(201, "PUT", path, body, _type(kind))
        self.tree.nodes[path] = Node(kind, entries if kind == "application/json" or not body else [body])

    async def fork(self, step: Step, path: str, source_path: str, node: Node | None) -> None:
        source = self.tree.nodes.get(source_path)
        entries_and_one_more = len(source.entries) + 2 if source is not None else 1
        offset = None if step.number > 9 else step.number % entries_and_one_more
        sub_offset = step.more if step.more < 9 else 0
        headers = {"stream-forked-from": f"/v1/stream/{source_path}"}
        headers |= {} if offset is None else {"stream-fork-offset": f"{offset:016}"}
        headers |= {"stream-fork-sub-offset": str(sub_offset)} if sub_offset else {}
        origin = (source_path, offset, sub_offset)
        if path in self.tree.nodes:
            # The same fork again is no error; where the source's tail was asked for, it may have been any offset.
            like = (
                node is not None
                and not node.closed
                and node.origin[:1] == origin[:1]
                and node.origin[2:] == origin[2:]
                and (offset is None or node.origin[1] == offset)
            )
            await self.expect(200 if like else 409, "PUT", path, headers=headers)
            return
        if source is None or source.hidden:
            await self.expect(404 if source is None else 409, "PUT", path, headers=headers)
            return
        entries = self.tree.parted(source, offset, sub_offset)
        if entries is None:
            await self.expect(400, "PUT", path, headers=headers)
            return
        other = "text/plain" if source.type == "application/json" else "application/json"
        if step.more == 12:
            await self.expect(409, "PUT", path, headers=headers | _type(other))
            return
        first = [self.tree.message(source.type)] if step.more % 3 == 0 else []
        answer = await self.expect(201, "PUT", path, b"".join(first), headers)
        source.forks += 1
        position = len(source.entries) if offset is None else offset
        self.tree.nodes[path] = Node(
            source.type, [*entries, *first], source, origin=(source_path, position, sub_offset)
        )
        assert answer.headers["stream-next-offset"] == f"{len(entries) + len(first):016}"
        assert answer.headers["content-type"] == source.type

    async def check(self) -> None:
        """Every path is as the model says: what it holds, or why it holds nothing."""
        for path in PATHS:
            node = self.tree.alive(path)
            found = await self.streams.whole(path)
            if node is None:
                assert found.status == self.tree.absent_status(path), (path, found)
                continue
            assert (found.status, found.body) == (200, node.body), path
            assert found.headers["stream-next-offset"] == f"{len(node.entries):016}"
            assert (found.headers.get("stream-closed") == "true") == node.closed
            if node.entries:
                middle = len(node.entries) // 2
                rest = await self.streams.ask("GET", path, query=f"offset={middle:016}")
                assert rest.body == Node(node.type, node.entries[middle:]).body

    async def finish(self) -> None:
        """What nobody reads any more is gone from the disk."""
        rows = await self.streams.row_counts()
        assert rows["_perdure_streams"] == len(self.tree.nodes)
        for path in PATHS:
            if self.tree.alive(path) is not None:
                await self.expect(204, "DELETE", path)
                self.tree.remove(path)
        assert self.tree.nodes == {}
        assert set((await self.streams.row_counts()).values()) == {0}
        for path in PATHS:
            await self.expect(201, "PUT", path)


async def _tell(folder: Path, steps: list[Step]) -> None:
    story = Story(folder)
    await story.streams.start()
    for number in (5, 2):  # one of messages, one of bytes
        await story.take(Step("create", 0, 0, False, number, 0))
    for step in steps:
        await story.take(step)
        await story.check()
    await story.finish()
    await story.streams.stop()


def test_the_paths_live_in_different_hosts() -> None:
    """Else the property would say little."""
    assert len({home_of(path) for path in PATHS}) > 3


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_any_tree_reads_as_lists_do(steps: list[Step]) -> None:
    """Offsets, sub-offsets, soft deletes, reference counts, over crashes; at the end nothing is left."""
    with tempfile.TemporaryDirectory() as folder:
        uvloop.run(_tell(Path(folder), steps))
