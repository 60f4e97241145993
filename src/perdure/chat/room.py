"""`ChatRoom`: a durable object that holds a conversation and lets a model answer in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec
import structlog

from ..errors import BadArguments, LimitExceeded, Overloaded, PerdureError
from ..models.base import Model, TurnContext
from ..models.registry import resolve_model
from ..objects.connections import Connection
from ..objects.object import Context, DurableObject, callable
from ..wire.fold import MessageFold
from ..wire.messages import ChatMessage, user_message
from ..wire.room import (
    CLIENT_ID_BYTES_MAX,
    PING,
    PONG,
    USER_NAME_BYTES_MAX,
    error_frame,
)
from ..wire.ui_chunks import Abort, Chunk, Start, decode_chunk, encode_chunk
from .audience import DELTA, UPDATE, Audience, as_room_message
from .room_session import handle_frame
from .session import SessionLog
from .transcript import MIGRATIONS, StoredMessage, Transcript, stream_name
from .turn import Outcome, Turn

log = structlog.get_logger("perdure.chat")

Policy = Literal["queue", "latest"]
Recovery = Literal["continue", "retry", "fail"]

WAITING_MESSAGES_MAX = 1_000
"""User messages of one room that wait for their turn; the next one is refused."""

PAGE_MESSAGES_MAX = 1_001
"""Messages that one call of `ChatRoom.messages` returns at most."""

CONTINUATIONS_MAX = 3
"""Crashes after which the default `ChatRoom.on_interrupted` still continues an answer."""

TURN_STREAM_KEEP_MS = 24 * 60 * 60 * 1000
"""How long the chunks of an ended turn are kept beside the message that they became."""

REPLAY_GRACE_MS = 5_000
"""How long after its end an answer is still replayed to a client that asks to resume."""


CALLER = "the caller's name"

CallerName: TypeAlias = Annotated[str | None, CALLER]
"""An argument that says who calls: from outside, the name of an authenticated user goes before any given one."""


class Submitted(msgspec.Struct):
    """A message that the room has taken.

    ``answer_id`` is the id that its answer has or will have (None: the room does not answer),
    ``known`` is true when the message was there already.
    """

    message_id: str
    answer_id: str | None
    known: bool = False


@dataclass(frozen=True, slots=True)
class InterruptedTurn:
    """A turn that a crash or a restart cut off: what was said, and how many crashes it has been through.

    A planned stop of the server is not counted.
    """

    answer_id: str
    partial: str
    crashes: int


class ChatRoom(DurableObject):
    """A room: its messages, its turns, its clients. Derive from it.

    ``model``: a name like ``"anthropic:claude-haiku-4-5"`` or ``"local:smollm2"``, a model object
    or pydantic-ai Agent; None makes a room of people only. Or override `respond`.
    ``policy``: what a message does that arrives during a turn. ``queue``: it waits for its own
    turn. ``latest``: it ends the running turn and gets the next one.
    """

    migrations = MIGRATIONS
    auto_response = (PING.decode(), PONG.decode())

    model: ClassVar[Any] = None
    instructions: ClassVar[str] = ""
    policy: ClassVar[Policy] = "queue"

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.transcript = Transcript(self.storage)
        self.audience = Audience(self.transcript, context.connections, context.broadcast)
        self._session = SessionLog(self.streams, self.transcript, self.name)
        self._turn: Turn | None = None
        self._cutting = False

    # --- hooks

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        """Answer: yield text, or chunks. Override it to bring your own model.

        ``turn.text`` is the newest user message, ``turn.messages`` the conversation, ``turn.partial``
        what was already said before a crash: go on after it.
        """
        model = self.get_model()
        if model is not None:
            async with aclosing(model.respond(turn)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    yield piece

    async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
        """What to do with a turn that a crash cut off: ``continue`` it (the text that was seen stays and
        goes on), ``retry`` with a new answer, or ``fail`` it. Default: continue, at most 3 times."""
        return "continue" if turn.crashes <= CONTINUATIONS_MAX else "fail"

    # --- calls

    @callable
    async def submit(self, text: str, *, user: CallerName = None, id: str | None = None) -> Submitted:
        """Say something in the room. With an ``id`` that the room knows, nothing is said again.

        ``user`` is the name that the message carries; over RPC an authenticated user cannot give another.

        Raises:
            BadArguments: the text is empty.
            LimitExceeded: ``message_bytes_max``, ``client_id_bytes_max``, ``user_name_bytes_max``.
            Overloaded: too many messages wait for their turn (``waiting_messages_max``).
        """
        if not text.strip():
            raise BadArguments("a message must not be empty")
        return self.submit_message(user_message(id or self.context.new_id(), text, user=user))

    @callable
    async def stop(self) -> bool:
        """End the running answer; what was said stays. False when none is running."""
        return self._turn is not None and self._turn.stop("stopped")

    @callable
    async def retry(self) -> Submitted | None:
        """Make the last answer again: the old one is removed. None when there is nothing to answer."""
        return self.regenerate(None)

    @callable
    async def messages(self, limit: int = 100, before: str | None = None) -> list[ChatMessage]:
        """The newest messages (older than the message ``before``), oldest first; a running answer as it is now.

        ``limit`` counts up to `PAGE_MESSAGES_MAX`.
        """
        return [self._shown(stored) for stored in self._page(limit, before)]

    # --- for the surfaces

    def room_messages(self, limit: int = 100, before: str | None = None) -> tuple[list[dict[str, Any]], bool]:
        """Messages as plain room clients see them, and whether there are older ones."""
        page = self._page(limit + 1, before)
        shown = [msgspec.to_builtins(as_room_message(item, self._shown(item).text)) for item in page[-limit:]]
        return shown, len(page) > limit

    def room_message(self, message_id: str) -> dict[str, Any] | None:
        """One message as plain room clients see it."""
        stored = self.transcript.find(message_id)
        if stored is None:
            return None
        shown: dict[str, Any] = msgspec.to_builtins(as_room_message(stored, self._shown(stored).text))
        return shown

    @property
    def room_offset(self) -> str:
        """Where a client stands that has everything."""
        return str(self.audience.offset)

    @property
    def streaming_answer(self) -> str | None:
        """The id of the answer that is being made."""
        return self._turn.answer.id if self._turn is not None else None

    @property
    def resumable_answer(self) -> str | None:
        """The id of the answer that a returning client is replayed: the running or the just ended one."""
        if self._turn is not None:
            return self._turn.answer.id
        last = self.transcript.last()
        if last is None or last.role != "assistant":
            return None
        ended_ms = self.storage.get("_ended_ms", 0)
        return last.id if self.now_ms() - ended_ms <= REPLAY_GRACE_MS else None

    def _page(self, limit: int, before: str | None) -> list[StoredMessage]:
        before_seq = None
        if before is not None:
            stored = self.transcript.find(before)
            if stored is None:
                return []
            before_seq = stored.seq
        return self.transcript.newest(max(0, min(limit, PAGE_MESSAGES_MAX)), before_seq)

    def _shown(self, stored: StoredMessage) -> ChatMessage:
        turn = self._turn
        return turn.fold.message() if turn is not None and turn.answer.id == stored.id else stored.message

    # --- messages in

    def submit_message(self, message: ChatMessage) -> Submitted:
        """Take a user's message in and see to its answer."""
        limit = self.context.runtime.limits.message_bytes_max
        if len(message.text) > limit // 4 and (size := len(message.text.encode())) > limit:
            raise LimitExceeded("message_bytes_max", size, limit)
        _check_size("client_id_bytes_max", message.id, CLIENT_ID_BYTES_MAX)
        _check_size("user_name_bytes_max", message.user or "", USER_NAME_BYTES_MAX)
        known = self.transcript.find(message.id)
        if known is not None:
            return Submitted(known.id, known.answer_id, known=True)
        answer_id, status = None, "answered"
        if self._answers():
            waiting = self.transcript.count_waiting()
            if waiting >= WAITING_MESSAGES_MAX:
                raise Overloaded(
                    f"{waiting:,} messages wait for their answers already (waiting_messages_max); try again later"
                )
            answer_id, status = self.context.new_id(), "waiting"
        stored = self.transcript.add(message, self.now_ms(), status, answer_id=answer_id)
        if answer_id is not None:
            # The stream is there before the turn begins: a reader may come at once.
            self.streams.create(stream_name(answer_id))
            self.context.hold_awake(True)
        self.audience.on_message(stored)
        self._session.on_message(stored)
        if answer_id is not None:
            if self._turn is not None and self.policy == "latest":
                self._turn.stop("superseded")
            self._next_turn()
        return Submitted(stored.id, answer_id)

    def regenerate(self, answer_id: str | None) -> Submitted | None:
        """Remove an answer (None: the last) and all after it; answer its question again."""
        target = self.transcript.find(answer_id) if answer_id else None
        if target is not None and target.role != "assistant":
            target = None
        target = target or self.transcript.last("assistant")
        question = self.transcript.find(target.answers) if target is not None and target.answers else None
        question = question or self.transcript.last("user")
        if question is None or not self._answers():
            return None
        return self._ask_again(question, question.message, from_seq=question.seq + 1)

    def edit(self, message: ChatMessage) -> Submitted:
        """Replace a user's message, remove all after it, answer it again. An unknown one is submitted."""
        known = self.transcript.find(message.id)
        if known is None or known.role != "user":
            return self.submit_message(message)
        if known.message.parts == message.parts:
            return Submitted(known.id, known.answer_id, known=True)
        return self._ask_again(known, message, from_seq=known.seq)

    def _ask_again(self, question: StoredMessage, message: ChatMessage, from_seq: int) -> Submitted:
        running, self._cutting = self._turn, True
        if running is not None:
            running.stop("superseded")
            running.settle("aborted", None)
        self._cutting = False
        answer_id = self.context.new_id()
        removed = self.transcript.cut_from(from_seq)
        for stored in removed:
            self._close_unused_stream(stored)
        if removed:
            self.audience.on_removed(removed)
            self._session.on_removed()
        if from_seq == question.seq:
            question = self.transcript.add(message, self.now_ms(), "waiting", answer_id=answer_id)
            self.audience.on_message(question)
            self._session.on_message(question)
        else:
            self.transcript.ask_again(question, answer_id)
        self.streams.create(stream_name(answer_id))
        self.context.hold_awake(True)
        self._next_turn()
        return Submitted(question.id, answer_id)

    def _close_unused_stream(self, stored: StoredMessage) -> None:
        """A removed question's answer will not come: its readers get an end."""
        if stored.role == "user" and stored.status == "waiting" and stored.answer_id is not None:
            self._end_unused(stored)

    # --- turns

    def _answers(self) -> bool:
        return self.model is not None or type(self).respond is not ChatRoom.respond

    @classmethod
    def get_model(cls) -> Model | None:
        """The class's model, made at first use and shared by its rooms."""
        if cls.model is None:
            return None
        resolved = cls.__dict__.get("_resolved_model")
        if resolved is None:
            resolved = resolve_model(cls.model)
            cls._resolved_model = resolved
        model: Model = resolved
        return model

    @classmethod
    async def on_server_start(cls) -> None:
        """Make the model, so that a wrong name or a missing key is told before anyone waits for an answer.

        Raises:
            ConfigError: there is no such model here; the message says what to do.
        """
        # Importing a provider's library takes up to a second.
        await asyncio.to_thread(cls.get_model)

    @classmethod
    async def on_server_stop(cls) -> None:
        """Let go of the model: its processes and connections."""
        resolved: Model | None = cls.__dict__.get("_resolved_model")
        if resolved is not None:
            cls._resolved_model = None
            await resolved.aclose()

    _resolved_model: ClassVar[Model | None] = None

    def _next_turn(self) -> None:
        """Begin the turn of a waiting message, if none is running."""
        if self._turn is not None or self._cutting:
            return
        waiting = self.transcript.waiting()
        if self.policy == "latest":
            for skipped in waiting[:-1]:
                self._end_unused(skipped)
                self.transcript.set_status(skipped, "answered")
            waiting = waiting[-1:]
        if not waiting:
            self.context.hold_awake(False)
            return
        question = waiting[0]
        answer_id = question.answer_id or self.context.new_id()
        context_messages = self.transcript.conversation(question)
        self.transcript.set_status(question, "answered")
        answer = self.transcript.add(
            ChatMessage(id=answer_id, role="assistant", parts=[]),
            self.now_ms(),
            "streaming",
            answers=question.id,
            attempt=1,
        )
        self._forget_old_streams()
        self._start(question, answer, MessageFold(answer_id), context_messages, new=True)

    def _start(
        self,
        question: StoredMessage,
        answer: StoredMessage,
        fold: MessageFold,
        messages: Sequence[ChatMessage],
        *,
        new: bool,
    ) -> None:
        stream = self.streams.create(answer.stream_name)
        turn = Turn(question, answer, stream, fold, self, self.context.after_durable, self.context.runtime.pace.join)
        self._turn = turn
        self.context.hold_awake(True)
        partial = fold.text
        self.audience.on_turn(turn, new=new)
        if new:
            turn.begin()
        else:
            turn.go_on()
        context = TurnContext(
            text=question.message.text,
            messages=messages,
            partial=partial,
            instructions=self.instructions,
            attempt=answer.attempt,
            room=self.name,
            turn_id=answer.id,
        )
        self.context.runtime.metrics.turns_running.inc()
        turn.task = self.background(turn.run(self.respond, context), name="turn")
        turn.task.add_done_callback(lambda _task: self._on_turn_task_done(turn))

    def _on_turn_task_done(self, turn: Turn) -> None:
        self.context.runtime.metrics.turns_running.dec()
        if self.context.parking and turn.outcome is None:
            turn.flush()
            self.transcript.count_park(turn.answer)

    def on_text(self, turn: Turn, text: str) -> None:
        """The running turn said something (TurnListener)."""
        self.audience.on_text(turn, text)

    def on_chunk(self, turn: Turn, chunk: Chunk) -> None:
        """The running turn's stream grew (TurnListener)."""
        self._session.on_chunk(turn, chunk)

    def open_session(self) -> None:
        """Make the room's session stream, if it has none: all that is said, as AG-UI events."""
        self._session.open(self._turn)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The running turn has ended (TurnListener)."""
        self.transcript.settle(turn.answer, turn.fold.message(), outcome, error)
        self.storage.put("_ended_ms", self.now_ms())
        self._turn = None
        self.audience.on_settled(turn, outcome, error)
        self.context.runtime.metrics.turns.labels(outcome).inc()
        self._next_turn()

    def _end_unused(self, question: StoredMessage) -> None:
        """Give the stream of an answer that will never come an end."""
        if question.answer_id is None:
            return
        stream = self.streams.create(stream_name(question.answer_id))
        if not stream.closed:
            for chunk in (Start(message_id=question.answer_id), Abort()):
                stream.append(encode_chunk(chunk))
            stream.close()

    def _forget_old_streams(self) -> None:
        """Delete the chunks of turns that ended long ago; their messages have what they said."""
        before_ms = self.now_ms() - TURN_STREAM_KEEP_MS
        for name in self.storage.stream_table.closed_before(before_ms, 4):
            self.streams.delete(name)

    # --- after a crash

    async def handle_start(self) -> None:
        """Take up the turns that a crash interrupted, then those that waited."""
        for answer in self.transcript.streaming():
            await self._recover(answer)
        if self._turn is None:
            self._next_turn()
        await self.on_start()

    async def _recover(self, answer: StoredMessage) -> None:
        fold = MessageFold(answer.id)
        stream = self.streams.create(answer.stream_name)
        offset = "-1"
        while True:
            batch = stream.read(offset)
            for entry in batch.entries:
                fold.push(decode_chunk(entry))
            offset = batch.next_offset
            if batch.up_to_date:
                break
        question = self.transcript.find(answer.answers) if answer.answers else None
        choice: Recovery = "fail"
        if question is not None and self._turn is None:
            crashes = answer.attempt - answer.parks
            choice = await self.on_interrupted(InterruptedTurn(answer.id, fold.text, crashes))
        log.info("turn interrupted", room=self.name, answer=answer.id, recovery=choice, attempt=answer.attempt)
        if choice == "continue" and question is not None:
            self.transcript.set_attempt(answer, answer.attempt + 1)
            self._start(question, answer, fold, self.transcript.conversation(question), new=False)
            return
        turn = Turn(
            question or answer,
            answer,
            stream,
            fold,
            self,
            self.context.after_durable,
            self.context.runtime.pace.join,
        )
        if choice == "retry" and question is not None:
            self.transcript.ask_again(question, self.context.new_id())
            turn.settle("aborted", None)
        else:
            turn.settle("failed", "the answer was interrupted and could not be continued")

    # --- WebSocket clients

    async def handle_connect(self, connection: Connection) -> None:
        """Greet a client: everything, or what it missed since its offset."""
        connection.tag(DELTA if connection.query.get("delta") == "1" else UPDATE)
        self.context.touch_connections()
        self.audience.greet(connection)
        await self.on_connect(connection)

    async def handle_message(self, connection: Connection, data: str | bytes) -> None:
        """A client's frame."""
        await handle_frame(self, connection, data)

    async def on_error(self, connection: Connection | None, error: Exception) -> None:
        """Tell the client whose frame failed."""
        if connection is not None:
            known = isinstance(error, PerdureError)
            code = error.code if isinstance(error, PerdureError) else "internal_error"
            text = str(error) if known else "something went wrong in the room; it has been logged"
            connection.send_frame(error_frame(code, text, known and getattr(error, "retryable", False)))


def _check_size(limit: str, text: str, bytes_max: int) -> None:
    if len(text) > bytes_max // 4 and (size := len(text.encode())) > bytes_max:
        raise LimitExceeded(limit, size, bytes_max)
