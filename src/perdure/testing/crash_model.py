"""What the crash simulator believes: the state that each commit left of each object.

`ObjectState` is one object at one moment. `History` is a whole store: for each object the
states after its commits, with the journal's sequence numbers. After a crash the store must
be as it was at one moment of the journal: every object in the state after its newest commit
up to some sequence number, which is no less than what was reported durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from ..storage.store import OpenObject, Store
from ..values import ObjectId

MIGRATIONS = (
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE INDEX notes_by_text ON notes(text)",
)
"""The schema of the simulator's objects."""

READ_BYTES = 1 << 40

NOTE_KEYS = ("writer a", "writer b", "é")
"""The keys of the simulator's notes."""


class StreamState(NamedTuple):
    """One stream: its entries, whether it has ended, its notes, what it was forked from."""

    entries: tuple[bytes, ...] = ()
    closed: bool = False
    notes: tuple[tuple[str, bytes], ...] = ()
    base: str | None = None
    hidden: bool = False

    def noted(self, key: str, value: bytes) -> StreamState:
        """The same with one more note."""
        return self._replace(notes=tuple(sorted({**dict(self.notes), key: value}.items())))


@dataclass(frozen=True)
class ObjectState:
    """Everything that an object has stored. ``exists``: whether the node index lists it."""

    values: dict[str, Any] = field(default_factory=dict)
    notes: dict[int, str] = field(default_factory=dict)
    streams: dict[str, StreamState] = field(default_factory=dict)
    alarm_ms: int | None = None
    exists: bool = False

    def copy(self) -> ObjectState:
        """A copy whose parts can be changed."""
        return replace(self, values=dict(self.values), notes=dict(self.notes), streams=dict(self.streams))


NOTHING = ObjectState()


class Commit(NamedTuple):
    """The state of one object from a journal sequence number on."""

    sequence: int
    state: ObjectState


class History:
    """The states that every object went through."""

    def __init__(self, first: dict[ObjectId, ObjectState] | None = None) -> None:
        self.commits: dict[ObjectId, list[Commit]] = {
            object_id: [Commit(0, state)] for object_id, state in (first or {}).items()
        }

    def add(self, object_id: ObjectId, sequence: int, state: ObjectState) -> None:
        """The object was committed."""
        self.commits.setdefault(object_id, [Commit(0, NOTHING)]).append(Commit(sequence, state))

    def at(self, object_id: ObjectId, sequence: int) -> ObjectState:
        """The object's state when the journal ended with ``sequence``."""
        state = NOTHING
        for commit in self.commits.get(object_id, ()):
            if commit.sequence > sequence:
                break
            state = commit.state
        return state

    def everything_at(self, sequence: int) -> dict[ObjectId, ObjectState]:
        """All objects that ever committed, as they were when the journal ended with ``sequence``."""
        return {object_id: self.at(object_id, sequence) for object_id in self.commits}

    def moments(self, durable: int, last: int) -> list[int]:
        """The sequence numbers at which the journal may have ended."""
        between = {
            commit.sequence
            for commits in self.commits.values()
            for commit in commits
            if durable < commit.sequence <= last
        }
        return [durable, *sorted(between)]


class Silent:
    """The owner of objects that the simulator opens: it commits by itself."""

    def on_dirty(self) -> None:
        """Nothing to arrange."""

    def on_broken(self, error: Exception) -> None:
        """The error is raised, too."""

    async def sync(self) -> None:
        raise AssertionError("the simulator never waits")


def read_object(opened: OpenObject) -> ObjectState:
    """The object's whole state, read through its storage (``exists`` is left out)."""
    storage = opened.storage
    table = storage.stream_table
    streams = {}
    names = [row[0] for row in storage.database.execute("SELECT name FROM _perdure_streams")]
    for name in names:
        stream = table.get(name)
        assert stream is not None
        entries = tuple(table.read(stream, 0, READ_BYTES))
        assert len(entries) == stream.position, f"{name}: {len(entries)} entries, position {stream.position}"
        notes = tuple((key, value) for key in sorted(NOTE_KEYS) if (value := table.note(stream, key)) is not None)
        base = None if stream.base is None else stream.base.name
        streams[name] = StreamState(entries, stream.closed, notes, base, stream.hidden)
    for name, state in streams.items():
        stream = table.get(name)
        assert stream is not None
        forks = sum(other.base == name for other in streams.values())
        assert stream.forks == forks, f"{name}: {forks} forks, counted {stream.forks}"
        assert forks or not state.hidden, f"{name} is hidden without a fork"
    return ObjectState(
        values=storage.list(limit=1_000_000),
        notes={row["id"]: row["text"] for row in storage.sql("SELECT id, text FROM notes ORDER BY id")},
        streams=streams,
        alarm_ms=storage.get_alarm(),
    )


def read_store(store: Store, object_ids: list[ObjectId]) -> dict[ObjectId, ObjectState]:
    """The state of these objects, each opened, checked by SQLite, read and closed again."""
    listed = {entry.object_id for entry in store.index.objects(limit=1_000_000)}
    assert listed <= set(object_ids), f"listed, but never committed: {listed - set(object_ids)}"
    found = {}
    for object_id in object_ids:
        opened = store.open(object_id, Silent(), MIGRATIONS)
        try:
            checked = opened.storage.sql("PRAGMA integrity_check")
            assert checked == [{"integrity_check": "ok"}], f"{object_id.key}: {checked[:3]}"
            found[object_id] = replace(read_object(opened), exists=object_id in listed)
        finally:
            store.close_object(opened)
    alarms = dict(store.index.alarms())
    expected = {object_id: state.alarm_ms for object_id, state in found.items() if state.alarm_ms is not None}
    assert alarms == expected, f"alarms in the index {alarms}, in the files {expected}"
    return found


def difference(found: ObjectState, expected: ObjectState) -> str:
    """In words, what was found for what was expected, without the length of a book."""
    words = []
    for name in ("values", "notes", "streams", "alarm_ms", "exists"):
        have, want = getattr(found, name), getattr(expected, name)
        if have != want:
            if isinstance(have, dict):
                keys = sorted({key for key in {*have, *want} if have.get(key) != want.get(key)}, key=str)
                words += [f"{name}[{key!r}]: {_short(have.get(key))} for {_short(want.get(key))}" for key in keys]
            else:
                words.append(f"{name}: {have!r} for {want!r}")
    return "; ".join(words[:4]) or "no difference"


def _short(value: Any) -> str:
    if isinstance(value, StreamState):
        ends = [entry[:12] for entry in value.entries[-2:]]
        return f"{len(value.entries)} entries{' closed' if value.closed else ''} {ends}"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]}... ({len(text)})"
