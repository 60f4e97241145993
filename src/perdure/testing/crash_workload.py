"""The crash simulator's workload: a store used in every way that an application and its runtime use it.

Everything that happens is decided by one `random.Random`, so a seed is a whole story. What
was committed goes into a `History`; ``on_durable`` is logged among the file operations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from ..errors import StorageError
from ..storage.journal import JournalEntry
from ..storage.store import Checkpoint, OpenObject, Store
from ..storage.stored_stream import StoredStream
from ..values import ObjectId
from .crash_model import (
    COMMITTED,
    MIGRATIONS,
    NOTE_KEYS,
    NOTHING,
    History,
    ObjectState,
    Silent,
    StreamState,
    difference,
    read_object,
)
from .disk import RecordingFiles

OBJECT_IDS = (*(ObjectId("Room", f"room {number}") for number in range(5)), ObjectId("Log", "Ångström/✓"))
STREAM_COUNT = 5
"""Streams that an object may have."""


class _Undo(Exception):
    """Raised in a transaction to roll it back."""


class Workload:
    """A store at work. ``history`` says what must be found in it."""

    def __init__(
        self,
        folder: Path,
        files: RecordingFiles,
        random: Random,
        history: History,
        make_store: type[Store] = Store,
    ) -> None:
        self.folder = folder
        self.files = files
        self.random = random
        self.history = history
        self._make_store = make_store
        self._opened: dict[ObjectId, OpenObject] = {}
        self._states: dict[ObjectId, ObjectState] = {}
        self._handles: dict[tuple[ObjectId, str], StoredStream] = {}
        self._checkpoints: dict[ObjectId, Checkpoint | None] = {}
        self._now_ms = 1_790_000_000_000
        self._counter = 0
        self.store = self._start()

    # --- the journal's listener

    def on_durable(self, sequence: int) -> None:
        """From the journal."""
        self.files.mark(sequence)

    def on_failed(self, entries: Sequence[JournalEntry], error: StorageError) -> None:
        """From the journal: without faults nothing may fail."""
        raise AssertionError(f"{len(entries)} commits failed") from error

    def _start(self) -> Store:
        store = self._make_store(
            self.folder,
            self,
            notify=lambda callback: callback(),
            files=self.files,
            threaded=False,
            clock_ms=self._clock_ms,
        )
        for class_name in sorted({object_id.class_name for object_id in OBJECT_IDS}):
            store.prepare_class(class_name, MIGRATIONS)
        return store

    def _clock_ms(self) -> int:
        self._now_ms += 7
        return self._now_ms

    # --- the story

    def run(self, steps: int) -> None:
        """Do so many random things."""
        actions: tuple[tuple[Callable[[], None], int], ...] = (
            (self.turn, 40),
            (self.pump, 14),
            (self.checkpoint_step, 16),
            (self.hibernate, 8),
            (self.delete_all, 3),
            (self.look, 4),
            (self.discard, 3),
            (self.restart, 1),
        )
        names, weights = zip(*actions, strict=True)
        for action in self.random.choices(names, weights, k=steps):
            action()

    def close(self) -> None:
        """Commit what is pending and let go of the folder, as a drained process does."""
        self.pump()
        for object_id in list(self._opened):
            self._close(object_id)
        self._checkpoints.clear()
        self.store.close()

    def check(self) -> None:
        """What is open is as the history says."""
        for object_id, opened in self._opened.items():
            found = replace(read_object(opened), exists=self._states[object_id].exists)
            assert found == self._states[object_id], f"{object_id.key}: {difference(found, self._states[object_id])}"

    def turn(self) -> None:
        """Some writes of one object and their commit."""
        opened = self._open(self._pick())
        state = self._states[opened.object_id].copy()
        state = self._write(opened, state, self.random.randint(1, 4), depth=0)
        self._commit(opened, state)

    def delete_all(self) -> None:
        """An object is emptied, sometimes to be filled again in the same turn."""
        opened = self._open(self._pick())
        opened.storage.delete_all()
        self._drop_handles(opened.object_id)
        state = NOTHING.copy()
        if self.random.random() < 0.4:
            opened.storage.put("again", 1)
            state = replace(state, values={"again": 1}, exists=True)
        self._commit(opened, state, keep_exists=True)

    def look(self) -> None:
        """An object is opened and read, and closed again if it has nothing that only the journal has."""
        object_id = self._pick()
        opened = self._open(object_id)
        found = replace(read_object(opened), exists=self._states[object_id].exists)
        assert found == self._states[object_id], f"{object_id.key}: {difference(found, self._states[object_id])}"
        if not self.store.has_live_records(opened):
            self._close(object_id)

    def pump(self) -> None:
        """The journal's writer has its turn."""
        self.store.journal.pump()

    def checkpoint_step(self) -> None:
        """The next of the three steps of some object's checkpoint; commits may come between."""
        if self._checkpoints and self.random.random() < 0.7:
            object_id = self.random.choice(list(self._checkpoints))
            self._go_on(object_id)
        elif self._opened:
            object_id = self.random.choice(list(self._opened))
            if object_id not in self._checkpoints:
                self._materialise(self._opened[object_id])
                self._checkpoints[object_id] = None

    def _go_on(self, object_id: ObjectId) -> None:
        checkpoint = self._checkpoints.pop(object_id)
        opened = self._opened.get(object_id)
        if checkpoint is not None:
            checkpoint.run()
            if checkpoint.sequence > self.store.journal.durable_sequence:
                self.pump()
            self.store.finish_checkpoint(checkpoint)
        elif opened is None:
            self.store.abandon_checkpoint(object_id.key)
        else:
            begun = self.store.begin_checkpoint(opened)
            if begun is not None:
                self._checkpoints[object_id] = begun

    def hibernate(self) -> None:
        """An object's file is brought up to date and closed; the last step may come later, or never."""
        ready = [object_id for object_id in self._opened if object_id not in self._checkpoints]
        if not ready:
            return
        object_id = self.random.choice(ready)
        opened = self._opened[object_id]
        if self.store.has_live_records(opened):
            self._materialise(opened)
            self.pump()
            checkpoint = self.store.begin_checkpoint(opened)
            assert checkpoint is not None
            self._checkpoints[object_id] = checkpoint
        self._close(object_id)
        if object_id in self._checkpoints and self.random.random() < 0.5:
            self._go_on(object_id)

    def discard(self) -> None:
        """An instance is thrown away, with a turn that it had not committed."""
        if not self._opened:
            return
        object_id = self.random.choice(list(self._opened))
        opened = self._opened.pop(object_id)
        if self._checkpoints.get(object_id, opened) is None:
            self._go_on(object_id)
        self._write(opened, self._states[object_id].copy(), 2, depth=0)
        self._drop_handles(object_id)
        del self._states[object_id]
        self.store.discard(opened)

    def restart(self) -> None:
        """The process ends, having committed everything or not checkpointed anything, and starts again."""
        self.close()
        self.store = self._start()

    # --- writes

    def _write(self, opened: OpenObject, state: ObjectState, count: int, depth: int) -> ObjectState:
        writes = (self._put, self._delete, self._insert, self._change_notes, self._set_alarm, self._append)
        weights = [5, 2, 3, 2, 2, 8]
        streams = (self._note, self._fork, self._end_stream, self._trim)
        for write in self.random.choices((*writes, *streams, self._transact), [*weights, 3, 2, 3, 3, 2], k=count):
            state = write(opened, state, depth)
        return state

    def _text(self) -> str:
        self._counter += 1
        size = self.random.choices((8, 100, 3_000, 60_000), (60, 30, 9, 1))[0]
        return f"{self._counter}:" + "x" * size

    def _put(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        key, value = f"key {self.random.randrange(12)}", self._text()
        opened.storage.put(key, value)
        state.values[key] = value
        return state

    def _delete(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        key = f"key {self.random.randrange(12)}"
        deleted = opened.storage.delete(key)
        assert deleted == (key in state.values)
        state.values.pop(key, None)
        return state

    def _insert(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        text = self._text()
        (row,) = opened.storage.sql("INSERT INTO notes(text) VALUES(?) RETURNING id", text)
        state.notes[row["id"]] = text
        return state

    def _change_notes(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        number, text = self.random.randrange(1, 9), self._text()
        if self.random.random() < 0.6:
            opened.storage.sql("UPDATE notes SET text = ? WHERE id = ?", text, number)
            if number in state.notes:
                state.notes[number] = text
        else:
            opened.storage.sql("DELETE FROM notes WHERE id >= ?", number)
            for gone in [note for note in state.notes if note >= number]:
                del state.notes[gone]
        return state

    def _set_alarm(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        at_ms = self.random.choice((None, self._now_ms + self.random.randrange(1_000_000)))
        opened.storage.set_alarm(at_ms)
        return replace(state, alarm_ms=at_ms)

    def _append(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        name = self._stream_name(state)
        stream = self._handle(opened, name)
        table = opened.storage.stream_table
        if stream is None:
            stream = table.create(name, "application/json", self._now_ms)
            self._handles[opened.object_id, name] = stream
            state.streams[name] = StreamState()
        if not (stream.closed or stream.hidden):
            entries = [self._text().encode() for _ in range(self.random.randint(1, 6))]
            opened.storage.mark_dirty()
            position = table.append(stream, entries)
            before = state.streams[name]
            after = state.streams[name] = before._replace(entries=(*before.entries, *entries))
            assert position == after.position
        return state

    def _trim(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        name = self._stream_name(state)
        stream = self._handle(opened, name)
        if stream is not None:
            before = state.streams[name]
            wanted = self.random.randint(before.first, before.position)
            first = opened.storage.stream_table.trim(stream, wanted)
            is_shared = before.base is not None or any(other.base == name for other in state.streams.values())
            assert first == before.first if is_shared else before.first <= first <= wanted
            state.streams[name] = before._replace(entries=before.entries[first - before.first :], first=first)
        return state

    def _note(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        name = self._stream_name(state)
        stream = self._handle(opened, name)
        if stream is not None:
            key, value = self.random.choice(NOTE_KEYS), self._text().encode()[:40]
            opened.storage.mark_dirty()
            opened.storage.stream_table.set_note(stream, key, value)
            state.streams[name] = state.streams[name].noted(key, value)
        return state

    def _fork(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        base_name = self._stream_name(state)
        name = f"stream {self.random.randrange(STREAM_COUNT)}"
        base = self._handle(opened, base_name)
        if base is not None and not base.hidden and name not in state.streams:
            kept = state.streams[base_name]
            end = self.random.randint(kept.first, kept.position)
            stream = opened.storage.stream_table.create(
                name, base.content_type, self._now_ms, options=b"fork", base=base, base_end=end
            )
            assert stream.position == end
            state.streams[name] = StreamState(kept.entries[: end - kept.first], base=base_name, first=kept.first)
        return state

    def _end_stream(self, opened: OpenObject, state: ObjectState, _depth: int) -> ObjectState:
        name = self._stream_name(state)
        stream = self._handle(opened, name)
        if stream is not None and not stream.hidden:
            if stream.closed or self.random.random() < 0.4:
                opened.storage.stream_table.delete(stream)
                self._handles.pop((opened.object_id, name), None)
                _delete(state.streams, name)
            else:
                opened.storage.stream_table.close(stream)
                state.streams[name] = state.streams[name]._replace(closed=True)
        return state

    def _stream_name(self, state: ObjectState) -> str:
        """One of the streams that there are, or a new one."""
        new = f"stream {self.random.randrange(STREAM_COUNT)}"
        return self.random.choice(sorted(state.streams)) if state.streams and self.random.random() < 0.5 else new

    def _transact(self, opened: OpenObject, state: ObjectState, depth: int) -> ObjectState:
        if depth > 2:
            return state
        with suppress(_Undo), opened.storage.transaction():
            inside = self._write(opened, state.copy(), self.random.randint(1, 4), depth + 1)
            if self.random.random() < 0.5:
                raise _Undo
            return inside
        return state

    def _handle(self, opened: OpenObject, name: str) -> StoredStream | None:
        """The stream; held on to for the object's life in memory (as applications do), or found anew."""
        key = (opened.object_id, name)
        stream = self._handles.pop(key, None)
        if stream is None or stream.gone:
            stream = opened.storage.stream_table.get(name)
        if stream is not None and self.random.random() < 0.7:
            self._handles[key] = stream
        return stream

    def _drop_handles(self, object_id: ObjectId) -> None:
        for key in [key for key in self._handles if key[0] == object_id]:
            del self._handles[key]

    # --- opening, committing, closing

    def _pick(self) -> ObjectId:
        return self.random.choice(OBJECT_IDS)

    def _open(self, object_id: ObjectId) -> OpenObject:
        opened = self._opened.get(object_id)
        if opened is None:
            if not self.store.may_open(object_id.key):
                self.pump()
            opened = self._opened[object_id] = self.store.open(object_id, Silent(), MIGRATIONS)
            self._states[object_id] = self.history.at(object_id, COMMITTED)
        return opened

    def _commit(self, opened: OpenObject, state: ObjectState, *, keep_exists: bool = False) -> None:
        before = opened.last_sequence
        sequence = self.store.commit(opened)
        if sequence == before:
            return
        self.files.mark(COMMITTED + sequence)
        if not keep_exists:
            state = replace(state, exists=True)
        self._states[opened.object_id] = state
        self.history.add(opened.object_id, sequence, state)

    def _materialise(self, opened: OpenObject) -> None:
        before = opened.last_sequence
        sequence = self.store.materialise(opened)
        if sequence != before:
            self.files.mark(COMMITTED + sequence)
            state = self._states[opened.object_id] = replace(self._states[opened.object_id], exists=True)
            self.history.add(opened.object_id, sequence, state)

    def _close(self, object_id: ObjectId) -> None:
        self.store.close_object(self._opened.pop(object_id))
        self._drop_handles(object_id)
        del self._states[object_id]


def _delete(streams: dict[str, StreamState], name: str | None) -> None:
    """What is expected of a deletion: a base goes when its last fork has gone."""
    while name is not None:
        if any(other.base == name for other in streams.values()):
            streams[name] = streams[name]._replace(hidden=True)
            return
        base = streams.pop(name).base
        name = base if base is not None and streams[base].hidden else None


@contextmanager
def objects_workload(
    folder: Path, files: RecordingFiles, random: Random, history: History, make_store: type[Store] = Store
) -> Iterator[Workload]:
    """A workload on the store in ``folder``."""
    yield Workload(folder, files, random, history, make_store)
