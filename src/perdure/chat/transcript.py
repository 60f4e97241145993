"""The transcript: a room's messages in its own tables.

::

    messages   seq         order of arrival; after a cut numbers come again (offsets tell by ``cuts``)
               id          the message's id on every wire
               role        user | assistant | system
               created_ms  Unix milliseconds
               status      user:       waiting (its turn has not begun) | answered
                           assistant:  streaming | waiting (for a person or a client; see
                                       tool_calls.py) | complete | aborted | failed
               answers     assistant: the id of the user message that it answers
               answer_id   user: the id that its answer has or will have (null: none is made)
               attempt     assistant: how often the model was started for it
               parks       assistant: how many of these starts a planned stop of the server cut off
               error       assistant, failed: why
               message     the UIMessage as JSON; of a streaming answer, as its leg began
               leg         assistant: the number of its newest leg
               due_ms      user, waiting: its turn does not begin before (null: at once)
    room       one row: ``cuts``, how often messages were removed

The chunks of an answer's leg are in the stream ``turns/<answer id>`` (the first leg) or
``turns/<answer id>.<leg>``; its message is their fold, stored when the leg ends. Messages that wait
together for one answer have its id in common (``answer_id``); it answers the last of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import overload

import msgspec

from ..storage.object_storage import Storage
from ..wire.messages import ChatMessage, decode_message, encode_message
from . import branches, runs, tool_calls
from .mentions import speaker_of

MIGRATIONS = (
    """
    CREATE TABLE messages(
      seq INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      role TEXT NOT NULL,
      created_ms INTEGER NOT NULL,
      status TEXT NOT NULL,
      answers TEXT,
      answer_id TEXT,
      attempt INTEGER NOT NULL DEFAULT 0,
      parks INTEGER NOT NULL DEFAULT 0,
      error TEXT,
      message TEXT NOT NULL
    );
    CREATE INDEX messages_open ON messages(status) WHERE status IN ('waiting', 'streaming');
    CREATE TABLE room(id INTEGER PRIMARY KEY, cuts INTEGER NOT NULL);
    INSERT INTO room VALUES(1, 0);
    """,
    f"""
    ALTER TABLE messages ADD COLUMN leg INTEGER NOT NULL DEFAULT 1;
    ALTER TABLE messages ADD COLUMN due_ms INTEGER;
    {tool_calls.MIGRATION}
    {branches.MIGRATION}
    {runs.MIGRATION}
    """,
)

COLUMNS = "seq, id, role, created_ms, status, answers, answer_id, attempt, parks, error, leg, due_ms, message"


CONTEXT_MESSAGES_MAX = 1_000
"""Newest messages that a model is shown: reading them must not hold up other rooms."""


class StoredMessage(msgspec.Struct):
    """One row of the transcript."""

    seq: int
    id: str
    role: str
    created_ms: int
    status: str
    answers: str | None
    answer_id: str | None
    attempt: int
    parks: int
    error: str | None
    leg: int
    due_ms: int | None
    message: ChatMessage

    @property
    def stream_name(self) -> str:
        """The stream that holds the chunks of the answer's newest leg."""
        return stream_name(self.id, self.leg)


def stream_name(answer_id: str, leg: int = 1) -> str:
    """The name of the stream with the chunks of an answer's leg."""
    return f"turns/{answer_id}" if leg == 1 else f"turns/{answer_id}.{leg}"


class Transcript:
    """Reads and writes the messages of one room."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def _rows(self, where: str, *bindings: object) -> list[StoredMessage]:
        rows = self._storage.database.execute(f"SELECT {COLUMNS} FROM messages {where}", bindings)
        return [_stored(*row) for row in rows]

    def find(self, message_id: str) -> StoredMessage | None:
        """The message of that id."""
        rows = self._rows("WHERE id = ?", message_id)
        return rows[0] if rows else None

    def newest(self, limit: int, before_seq: int | None = None) -> list[StoredMessage]:
        """The newest messages (before one), oldest first."""
        if before_seq is None:
            return self._rows("ORDER BY seq DESC LIMIT ?", limit)[::-1]
        return self._rows("WHERE seq < ? ORDER BY seq DESC LIMIT ?", before_seq, limit)[::-1]

    def after(self, seq: int, limit: int = -1) -> list[StoredMessage]:
        """The messages that came after one, oldest first."""
        return self._rows("WHERE seq > ? ORDER BY seq LIMIT ?", seq, limit)

    def at(self, seq: int) -> StoredMessage | None:
        """The message with that number."""
        rows = self._rows("WHERE seq = ?", seq)
        return rows[0] if rows else None

    def streaming(self) -> list[StoredMessage]:
        """Answers whose turn has begun and not ended (after a crash: was interrupted)."""
        return self._rows("WHERE status = 'streaming' ORDER BY seq")

    def waiting(self) -> list[StoredMessage]:
        """User messages whose turn has not begun, oldest first."""
        return self._rows("WHERE status = 'waiting' AND role = 'user' ORDER BY seq")

    def count_waiting(self) -> int:
        """How many user messages wait for their turn."""
        rows = self._storage.database.execute(
            "SELECT count(*) FROM messages WHERE status = 'waiting' AND role = 'user'"
        )
        return int(rows[0][0])

    def newest_waiting(self) -> StoredMessage | None:
        """The user message that came last of those that wait for their turn."""
        rows = self._rows("WHERE status = 'waiting' AND role = 'user' ORDER BY seq DESC LIMIT 1")
        return rows[0] if rows else None

    def last(self, role: str | None = None) -> StoredMessage | None:
        """The newest message (of that role)."""
        rows = self._rows("WHERE ?1 IS NULL OR role = ?1 ORDER BY seq DESC LIMIT 1", role)
        return rows[0] if rows else None

    @property
    def last_seq(self) -> int:
        rows = self._storage.database.execute("SELECT coalesce(max(seq), 0) FROM messages")
        return int(rows[0][0])

    @property
    def cuts(self) -> int:
        """How often messages were removed: an offset from before a cut is no longer good."""
        return int(self._storage.database.execute("SELECT cuts FROM room")[0][0])

    def add(
        self,
        message: ChatMessage,
        created_ms: int,
        status: str,
        *,
        answers: str | None = None,
        answer_id: str | None = None,
        attempt: int = 0,
        due_ms: int | None = None,
    ) -> StoredMessage:
        """Append a message; its id must be new."""
        self._begin()
        self._storage.database.execute(
            "INSERT INTO messages(id, role, created_ms, status, answers, answer_id, attempt, due_ms, message)"
            " VALUES(?,?,?,?,?,?,?,?,?)",
            (message.id, message.role, created_ms, status, answers, answer_id, attempt, due_ms, _encode(message)),
        )
        seq = self._storage.database.connection.last_insert_rowid()
        return StoredMessage(
            seq,
            message.id,
            message.role,
            created_ms,
            status,
            answers,
            answer_id,
            attempt,
            parks=0,
            error=None,
            leg=1,
            due_ms=due_ms,
            message=message,
        )

    def set_status(self, stored: StoredMessage, status: str) -> None:
        self._begin()
        self._storage.database.execute("UPDATE messages SET status = ? WHERE seq = ?", (status, stored.seq))
        stored.status = status

    def set_attempt(self, stored: StoredMessage, attempt: int) -> None:
        self._begin()
        self._storage.database.execute("UPDATE messages SET attempt = ? WHERE seq = ?", (attempt, stored.seq))
        stored.attempt = attempt

    def begin_leg(self, answer: StoredMessage) -> None:
        """The answer goes on in a new leg."""
        self._begin()
        self._storage.database.execute(
            "UPDATE messages SET status = 'streaming', leg = leg + 1, attempt = 1, parks = 0 WHERE seq = ?",
            (answer.seq,),
        )
        answer.status, answer.leg, answer.attempt, answer.parks = "streaming", answer.leg + 1, 1, 0

    def change(self, stored: StoredMessage, message: ChatMessage) -> None:
        """The message is now this one."""
        self._begin()
        self._storage.database.execute(
            "UPDATE messages SET message = ? WHERE seq = ?", (_encode(message), stored.seq)
        )
        stored.message = message

    def count_park(self, stored: StoredMessage) -> None:
        """A planned stop of the server cuts the running start off."""
        self._begin()
        self._storage.database.execute("UPDATE messages SET parks = parks + 1 WHERE seq = ?", (stored.seq,))
        stored.parks += 1

    def ask_again(self, question: StoredMessage, answer_id: str) -> None:
        """The question waits for a new answer, with this id."""
        self._begin()
        self._storage.database.execute(
            "UPDATE messages SET status = 'waiting', answer_id = ?, due_ms = NULL WHERE seq = ?",
            (answer_id, question.seq),
        )
        question.status, question.answer_id, question.due_ms = "waiting", answer_id, None

    def settle(self, stored: StoredMessage, message: ChatMessage, status: str, error: str | None) -> None:
        """Store an answer as its turn left it."""
        self._begin()
        self._storage.database.execute(
            "UPDATE messages SET status = ?, error = ?, message = ? WHERE seq = ?",
            (status, error, _encode(message), stored.seq),
        )
        stored.status, stored.error, stored.message = status, error, message

    def cut_from(self, seq: int) -> list[StoredMessage]:
        """Remove the message with that number and all after it; return them."""
        removed = self._rows("WHERE seq >= ? ORDER BY seq", seq)
        if removed:
            self._begin()
            self._storage.database.execute("DELETE FROM messages WHERE seq >= ?", (seq,))
            self._storage.database.execute("UPDATE room SET cuts = cuts + 1")
        return removed

    def conversation(self, question: StoredMessage, answer: StoredMessage) -> Sequence[ChatMessage]:
        """What a model is shown to make ``answer``: each earlier question with the newest answer of each model to it,
        then ``question``, and what other models have answered to that.

        Read when it is first looked at: not every answer needs it, and a long one takes milliseconds.
        """
        return _Conversation(lambda: self._read_conversation(question, answer))

    def _read_conversation(self, question: StoredMessage, made: StoredMessage) -> list[ChatMessage]:
        messages = self.newest(CONTEXT_MESSAGES_MAX)
        answers: dict[str, dict[str, StoredMessage]] = {}
        for stored in messages:
            if stored.role == "assistant" and stored.answers is not None and stored.status != "streaming":
                answers.setdefault(stored.answers, {})[speaker_of(stored.message)] = stored
        answers.get(question.id, {}).pop(speaker_of(made.message), None)
        shown: list[ChatMessage] = []
        for stored in messages:
            if stored.seq == question.seq or (stored.role == "user" and stored.status == "waiting"):
                continue
            if stored.role == "assistant":
                if stored.answers is None:
                    shown.append(stored.message)
                continue
            if stored.seq > question.seq and stored.role == "user":
                continue
            shown.append(stored.message)
            shown += _worth_showing(answers.get(stored.id))
        return [*shown, question.message, *_worth_showing(answers.get(question.id))]

    def _begin(self) -> None:
        if not self._storage.dirty:
            self._storage.mark_dirty()
        self._storage.database.begin()


class _Conversation(Sequence[ChatMessage]):
    """Messages that are read at first use."""

    def __init__(self, read: Callable[[], list[ChatMessage]]) -> None:
        self._read = read

    @cached_property
    def _messages(self) -> list[ChatMessage]:
        return self._read()

    @overload
    def __getitem__(self, index: int) -> ChatMessage: ...

    @overload
    def __getitem__(self, index: slice) -> list[ChatMessage]: ...

    def __getitem__(self, index: int | slice) -> ChatMessage | list[ChatMessage]:
        return self._messages[index]

    def __len__(self) -> int:
        return len(self._messages)

    def __repr__(self) -> str:
        return repr(self._messages)


def _stored(
    seq: int,
    id: str,
    role: str,
    created_ms: int,
    status: str,
    answers: str | None,
    answer_id: str | None,
    attempt: int,
    parks: int,
    error: str | None,
    leg: int,
    due_ms: int | None,
    message: str,
) -> StoredMessage:
    return StoredMessage(
        seq,
        id,
        role,
        created_ms,
        status,
        answers,
        answer_id,
        attempt,
        parks,
        error,
        leg,
        due_ms,
        decode_message(message),
    )


def _worth_showing(answers: dict[str, StoredMessage] | None) -> list[ChatMessage]:
    return [stored.message for stored in (answers or {}).values() if _says_something(stored.message)]


def _says_something(message: ChatMessage) -> bool:
    """Whether an answer is worth showing to a model: it has text, files or calls of tools."""
    return bool(message.text) or any(
        part.get("type") in ("file", "dynamic-tool") or str(part.get("type")).startswith("tool-")
        for part in message.parts
    )


def _encode(message: ChatMessage) -> str:
    return encode_message(message).decode()
