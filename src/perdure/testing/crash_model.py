"""What the crash simulator believes: the state that each commit left of each object.

`History` is a whole store: for each object the states after its commits, with the journal's
sequence numbers. After a crash the store must be as it was at one moment of the journal: every
object in the state after its newest commit up to some sequence number, which is no less than
what was reported durable. `ObjectState` is one object at one moment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any, ClassVar, NamedTuple

from ..storage.appends import StreamTable
from ..storage.store import OpenObject, Store
from ..storage.stored_stream import StoredStream
from ..values import ObjectId
from .disk import Operation

MIGRATIONS = (
    "CREATE TABLE notes(id INTEGER PRIMARY KEY, text TEXT NOT NULL)",
    "CREATE INDEX notes_by_text ON notes(text)",
)
"""The schema of the simulator's objects."""

READ_BYTES = 1 << 40

NOTE_KEYS = ("writer a", "writer b", "é")
"""The keys of the simulator's notes."""


class StreamState(NamedTuple):
    """One stream: the entries that it keeps, whether it has ended, its notes, what it was forked from.

    ``first`` is the position of the first entry: those before were trimmed.
    """

    entries: tuple[bytes, ...] = ()
    closed: bool = False
    notes: tuple[tuple[str, bytes], ...] = ()
    base: str | None = None
    hidden: bool = False
    first: int = 0

    @property
    def position(self) -> int:
        """The position after the last entry."""
        return self.first + len(self.entries)

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


COMMITTED = 1 << 60
"""A mark above it says: this sequence number was handed out; below it: this one is durable."""


class Commit(NamedTuple):
    """The state of one object from a journal sequence number on."""

    sequence: int
    state: Any


class Lost(AssertionError):
    """A recovered store is not what it must be."""


class History:
    """The states that every object went through: `ObjectState`, or whatever a workload keeps of its objects."""

    migrations: ClassVar[Mapping[str, tuple[str, ...]]] = {"Room": MIGRATIONS, "Log": MIGRATIONS}
    """The objects' classes, and their schemas."""

    def __init__(self, first: Mapping[ObjectId, Any] | None = None) -> None:
        self.commits: dict[ObjectId, list[Commit]] = {
            object_id: [Commit(0, state)] for object_id, state in (first or {}).items()
        }

    def nothing(self, object_id: ObjectId) -> Any:
        """The state of an object that never committed."""
        return NOTHING

    def add(self, object_id: ObjectId, sequence: int, state: Any) -> None:
        """The object was committed."""
        self.commits.setdefault(object_id, [Commit(0, self.nothing(object_id))]).append(Commit(sequence, state))

    def at(self, object_id: ObjectId, sequence: int) -> Any:
        """The object's state when the journal ended with ``sequence``."""
        state = self.nothing(object_id)
        for commit in self.commits.get(object_id, ()):
            if commit.sequence > sequence:
                break
            state = commit.state
        return state

    def expected(self, sequence: int, cut: int) -> dict[ObjectId, Any]:
        """All objects that ever committed, when the journal ended with ``sequence`` and the log at ``cut``."""
        return {object_id: self.at(object_id, sequence) for object_id in self.commits}

    def bounds(self, log: list[Operation], cut: int) -> tuple[int, int]:
        """When the log was cut there: what was reported durable, and what may be, as sequence numbers."""
        marks = [operation.number for operation in log[:cut] if operation.kind == "mark"]
        durable = max((mark for mark in marks if mark < COMMITTED), default=0)
        return durable, max((mark - COMMITTED for mark in marks if mark > COMMITTED), default=0)

    def moments(self, log: list[Operation], cut: int) -> list[int]:
        """The sequence numbers at which the journal may have ended, when the log of operations was cut there."""
        durable, last = self.bounds(log, cut)
        between = {
            commit.sequence
            for commits in self.commits.values()
            for commit in commits
            if durable < commit.sequence <= last
        }
        return [durable, *sorted(between)]

    def read(self, store: Store, log: list[Operation], cut: int) -> dict[ObjectId, Any]:
        """What a store holds after a crash at ``cut``."""
        return read_store(store, list(self.commits), self.migrations)

    def match(self, found: dict[ObjectId, Any], log: list[Operation], cut: int) -> dict[ObjectId, Any]:
        """The moment of the history that was found after a crash at ``cut``.

        Raises:
            Lost: there is none.
        """
        moments = self.moments(log, cut)
        possible = [self.expected(moment, cut) for moment in moments]
        for expected in possible:
            if found == expected:
                return expected
        nearest = max(possible, key=lambda expected: sum(found[key] == expected[key] for key in found))
        raise Lost(f"durable up to {moments[0]}, written up to {moments[-1]}: {differences(found, nearest)}")

    def after(self, expected: dict[ObjectId, Any], log: list[Operation], cut: int) -> History:
        """The history of a store that goes on from what was found after a crash at ``cut``."""
        return History(expected)


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
    check_rows(opened)
    streams = {}
    names = [row[0] for row in storage.database.execute("SELECT name FROM _perdure_streams")]
    for name in names:
        stream = table.get(name)
        assert stream is not None
        entries = read_entries(table, stream)
        notes = tuple((key, value) for key in sorted(NOTE_KEYS) if (value := table.note(stream, key)) is not None)
        base = None if stream.base is None else stream.base.name
        streams[name] = StreamState(entries, stream.closed, notes, base, stream.hidden, stream.first)
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


def check_rows(opened: OpenObject) -> None:
    """Nothing is left of streams that are gone."""
    for table in ("_perdure_segments", "_perdure_notes"):
        rows = opened.storage.database.execute(
            f"SELECT DISTINCT stream FROM {table} WHERE stream NOT IN (SELECT id FROM _perdure_streams)"
        )
        assert not rows, f"{table} holds rows of streams that are gone: {rows}"


def read_entries(table: StreamTable, stream: StoredStream) -> tuple[bytes, ...]:
    """All entries that the stream keeps, its bases' among them."""
    first = stream.first
    entries = tuple(table.read(stream, first, READ_BYTES))
    found = f"{stream.name}: {len(entries)} entries from {first} on"
    assert first + len(entries) == stream.position, f"{found}, position {stream.position}"
    own_bytes = sum(map(len, entries[max(0, stream.base_end - first) :]))
    assert own_bytes == stream.bytes, f"{found} of {own_bytes} bytes, counted {stream.bytes}"
    return entries


def read_store(
    store: Store,
    object_ids: list[ObjectId],
    migrations: Mapping[str, tuple[str, ...]],
    read: Callable[[OpenObject], Any] = read_object,
) -> dict[ObjectId, Any]:
    """The state of these objects, each opened, checked by SQLite, read by ``read`` and closed again.

    ``migrations``: of the objects' classes, by name.
    """
    listed = {entry.object_id for entry in store.index.objects(limit=1_000_000)}
    assert listed <= set(object_ids), f"listed, but never committed: {listed - set(object_ids)}"
    found, alarms = {}, {}
    for object_id in object_ids:
        opened = store.open(object_id, Silent(), migrations[object_id.class_name])
        try:
            checked = opened.storage.sql("PRAGMA integrity_check")
            assert checked == [{"integrity_check": "ok"}], f"{object_id.key}: {checked[:3]}"
            found[object_id] = replace(read(opened), exists=object_id in listed)
            alarm_ms = 0 if opened.storage.read_meta("held") is not None else opened.storage.get_alarm()
            if alarm_ms is not None:
                alarms[object_id] = alarm_ms
        finally:
            store.close_object(opened)
    indexed = dict(store.index.alarms())
    assert indexed == alarms, f"alarms in the index {indexed}, in the files {alarms}"
    return found


def differences(found: dict[ObjectId, Any], expected: dict[ObjectId, Any]) -> str:
    """In words, what was found for what was expected."""
    wrong = [key for key in found if found[key] != expected[key]]
    return "; ".join(f"{key.key}: {difference(found[key], expected[key])}" for key in wrong)


def difference(found: Any, expected: Any) -> str:
    """The same of one object, without the length of a book."""
    words = []
    for name in (item.name for item in fields(expected) if item.compare):
        have, want = getattr(found, name), getattr(expected, name)
        if have == want:
            continue
        if isinstance(have, dict) and isinstance(want, dict):
            keys = sorted({key for key in {*have, *want} if have.get(key) != want.get(key)}, key=str)
            words += [f"{name}[{key!r}]: {_told(have.get(key), want.get(key))}" for key in keys]
        else:
            words.append(f"{name}: {_told(have, want)}")
    return "; ".join(words[:4]) or "no difference"


def _told(found: Any, expected: Any) -> str:
    if is_dataclass(expected) and type(found) is type(expected):
        return f"({difference(found, expected)})"
    return f"{_short(found)} for {_short(expected)}"


def _short(value: Any) -> str:
    if isinstance(value, tuple) and value and isinstance(value[0], bytes):
        return f"{len(value)} entries {[entry[:12] for entry in value[-2:]]}"
    if isinstance(value, StreamState):
        ends = [entry[:12] for entry in value.entries[-2:]]
        return f"{len(value.entries)} entries{' closed' if value.closed else ''} {ends}"
    text = repr(value)
    return text if len(text) < 60 else f"{text[:56]}... ({len(text)})"
