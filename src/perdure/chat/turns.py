"""The turns of a room: which question is answered next, how a turn begins, ends, and is taken up after a crash.

One turn runs at a time. Answers that go on (their results are in) come before questions that wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal

import structlog

from ..wire.fold import MessageFold
from ..wire.messages import ChatMessage
from ..wire.ui_chunks import Abort, Start, decode_chunk, encode_chunk
from .mentions import DEFAULT_MODEL, seen_by, speaker_of
from .steps import Steps
from .transcript import StoredMessage, stream_name
from .turn import Outcome, Turn

if TYPE_CHECKING:
    from .room import ChatRoom

log = structlog.get_logger("perdure.chat")

Recovery = Literal["continue", "retry", "fail"]

TURN_STREAM_KEEP_MS = 24 * 60 * 60 * 1000
"""How long the chunks of an ended leg are kept beside the message that they became."""


class Turns:
    """Runs the turns of one room."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._transcript = room.transcript
        self.running: Turn | None = None
        self._ready: list[StoredMessage] = []
        self._paused = False
        self._timer: asyncio.Task[None] | None = None
        self._asking: set[str] = set()
        self._asked: set[str] = set()

    # --- what comes in

    def wait_for(self, question: StoredMessage) -> None:
        """A question waits for its turn from now on; it begins when it may."""
        room = self._room
        assert question.answer_id is not None
        # The stream is there before the turn begins: a reader may come at once.
        room.streams.create(stream_name(question.answer_id))
        room.hold_awake("turns", True)
        if room.has_before_turn and question.id not in self._asking:
            self._asking.add(question.id)
            room.background(self._ask_before(question), name="before_turn")
        else:
            self.begin_next()

    def go_on(self, answer: StoredMessage) -> None:
        """An answer's results are in: it goes on in a new leg, as soon as it may."""
        self._transcript.begin_leg(answer)
        self._room.streams.create(answer.stream_name)
        self._room.hold_awake("turns", True)
        self._ready.append(answer)
        self._room.listeners.on_updated(answer)
        self.begin_next()

    def stop(self, reason: str) -> bool:
        """End the running turn; False when none is running."""
        return self.running is not None and self.running.stop(reason)

    def cut_off(self, reason: str, *, from_seq: int) -> None:
        """End what runs, and whatever waits from that message on: it is about to be removed. Nothing begins."""
        self._paused = True
        running = self.running
        if running is not None and running.answer.seq >= from_seq:
            running.stop(reason)
            running.settle("aborted", None)
        for answer in [item for item in self._ready if item.seq >= from_seq]:
            self._ready.remove(answer)
            self._end_unused(answer.id, answer.leg)
            self._transcript.settle(answer, answer.message, "aborted", None)
        for question in self._transcript.waiting():
            if question.seq >= from_seq:
                self.skip(question)
        self._paused = False

    def skip(self, question: StoredMessage) -> None:
        """The question will not be answered: the readers of its answer's stream get an end."""
        self._transcript.set_status(question, "answered")
        self._room.speakers.forget(question.answer_id or "")
        alone = all(item.answer_id != question.answer_id for item in self._transcript.waiting())
        if question.answer_id is not None and alone:
            self._end_unused(question.answer_id, 1)

    async def _ask_before(self, question: StoredMessage) -> None:
        try:
            await self._room.ask_before_turn(question)
        except Exception:
            self.skip(question)
            self.begin_next()
            raise
        self._asked.add(question.id)
        self.begin_next()

    # --- what begins

    def begin_next(self) -> None:
        """Begin the next turn, if none is running and one may begin."""
        if self.running is not None or self._paused:
            return
        if self._ready:
            self._continue(self._ready.pop(0))
            return
        waiting = self._transcript.waiting()
        if not waiting:
            self._room.hold_awake("turns", False)
        elif group := self._next_group(waiting):
            self._begin(group)

    def _next_group(self, waiting: list[StoredMessage]) -> list[StoredMessage]:
        """The questions that the next turn answers; none where they must wait for something."""
        group = [item for item in waiting if item.answer_id == waiting[0].answer_id]
        due_ms = max(item.due_ms or 0 for item in group)
        if due_ms > (now_ms := self._room.now_ms()):
            self._wake_in(due_ms - now_ms)
            return []
        if self._room.has_before_turn:
            unasked = [item for item in group if item.id not in self._asked]
            for item in unasked:
                if item.id not in self._asking:  # a crash came before the hook had answered
                    self.wait_for(item)
            if unasked:
                return []
        return group

    def _wake_in(self, delay_ms: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._room.background(self._wait(delay_ms), name="debounce")

    async def _wait(self, delay_ms: int) -> None:
        await asyncio.sleep(delay_ms / 1000)
        self._timer = None
        self.begin_next()

    def _begin(self, group: list[StoredMessage]) -> None:
        room, question = self._room, group[-1]
        answer_id = question.answer_id or room.context.new_id()
        name = room.speakers.of(answer_id)[0] if room.models else DEFAULT_MODEL
        for item in group:
            self._transcript.set_status(item, "answered")
            self._asking.discard(item.id)
            self._asked.discard(item.id)
        answer = self._transcript.add(
            ChatMessage(answer_id, "assistant", [], {"model": name} if name else None),
            room.now_ms(),
            "streaming",
            answers=question.id,
            attempt=1,
        )
        self._forget_old_streams()
        turn = self._make(_merged(group), answer, MessageFold(answer_id))
        self._run(turn, new=True)

    def _continue(self, answer: StoredMessage) -> None:
        """Begin the next leg of an answer."""
        question = self._question_of(answer)
        turn = self._make(question, answer, MessageFold(answer.id, message=answer.message))
        self._run(turn, new=True)

    def _make(self, question: StoredMessage, answer: StoredMessage, fold: MessageFold) -> Turn:
        room = self._room
        return Turn(
            question,
            answer,
            room.streams.create(answer.stream_name),
            fold,
            room.listeners,
            self._on_settled,
            room.context.after_durable,
            room.context.runtime.pace.join,
        )

    def _run(self, turn: Turn, *, new: bool) -> None:
        room = self._room
        messages = self._transcript.conversation(self._question_of(turn.answer), turn.answer)
        if room.models:
            messages = seen_by(messages, speaker_of(turn.answer.message))
        steps = Steps(room, turn, messages)
        self.running = turn
        room.hold_awake("turns", True)
        room.listeners.on_turn(turn, new=new and turn.leg == 1)
        if new:
            turn.begin()
        else:
            turn.go_on()
        room.context.runtime.metrics.turns_running.inc()
        turn.task = room.background(steps.run(), name="turn")
        turn.task.add_done_callback(lambda _task: self._on_task_done(turn))

    def _on_task_done(self, turn: Turn) -> None:
        context = self._room.context
        context.runtime.metrics.turns_running.dec()
        if context.parking and turn.outcome is None:
            turn.flush()
            self._transcript.count_park(turn.answer)

    def _question_of(self, answer: StoredMessage) -> StoredMessage:
        question = self._transcript.find(answer.answers) if answer.answers else None
        return question or answer

    # --- what ends

    def _on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        room = self._room
        self._transcript.settle(turn.answer, turn.fold.message(), outcome, error)
        if outcome != "waiting":
            room.tool_calls.forget(turn.answer.id)
        room.storage.put("_ended_ms", room.now_ms())
        if self.running is turn:
            self.running = None
        room.listeners.on_settled(turn, outcome, error)
        room.context.runtime.metrics.turns.labels(outcome).inc()
        if room.models and turn.leg == 1:
            self._ask_next(turn, outcome)
        self.begin_next()

    def _ask_next(self, turn: Turn, outcome: Outcome) -> None:
        """The next of several models that were asked begins; where the answer was stopped, none does."""
        room = self._room
        _, *rest = room.speakers.of(turn.answer.id)
        room.speakers.forget(turn.answer.id)
        question = self._transcript.find(turn.question.id)
        if rest and outcome != "aborted" and question is not None:
            answer_id = room.context.new_id()
            self._transcript.ask_again(question, answer_id)
            room.speakers.plan(answer_id, rest)
            self.wait_for(question)

    def _end_unused(self, answer_id: str, leg: int) -> None:
        """Give the stream of a leg that will never come an end."""
        stream = self._room.streams.create(stream_name(answer_id, leg))
        if not stream.closed:
            for chunk in (Start(message_id=answer_id), Abort()):
                stream.append(encode_chunk(chunk))
            stream.close()

    def _forget_old_streams(self) -> None:
        """Delete the chunks of legs that ended long ago; their messages have what they said."""
        before_ms = self._room.now_ms() - TURN_STREAM_KEEP_MS
        for name in self._room.storage.stream_table.closed_before(before_ms, 4):
            self._room.streams.delete(name)

    # --- after a crash

    async def recover(self) -> None:
        """Take up the turns that a crash interrupted, then those that waited."""
        self._paused = True
        for answer in self._transcript.streaming():
            if answer.leg > 1 and not self._room.streams.create(answer.stream_name).position:
                self._ready.append(answer)  # its leg had not begun
            else:
                await self._recover(answer)
        self._paused = False
        self.begin_next()

    async def _recover(self, answer: StoredMessage) -> None:
        fold = MessageFold(answer.id, message=answer.message)
        stream = self._room.streams.create(answer.stream_name)
        for entry in stream.entries():
            fold.push(decode_chunk(entry))
        for call in self._room.tool_calls.of(answer.id):
            if call.approval is not None:  # somebody answered while the leg ran: no chunk tells it
                fold.respond_to_approval(call.call_id, call.approval)
        question = self._transcript.find(answer.answers) if answer.answers else None
        turn = self._make(question or answer, answer, fold)
        choice: Recovery = "fail"
        if question is not None and self.running is None:
            choice = await self._choose(turn)
        if choice == "continue" and question is not None:
            self._transcript.set_attempt(answer, answer.attempt + 1)
            self._run(turn, new=False)
        elif choice == "retry" and question is not None:
            self._retry(turn)
        else:
            turn.settle("failed", "the answer was interrupted and could not be continued")

    async def is_continued(self, turn: Turn) -> bool:
        """The running turn was interrupted (its model fell silent): whether it goes on.

        Where it is to be made again instead, it has ended.
        """
        choice = await self._choose(turn)
        if choice == "continue":
            self._transcript.set_attempt(turn.answer, turn.answer.attempt + 1)
        elif choice == "retry":
            self._retry(turn)
        return choice != "fail"

    async def _choose(self, turn: Turn) -> Recovery:
        answer = turn.answer
        crashes = answer.attempt - answer.parks
        choice = await self._room.choose_recovery(answer.id, turn.fold.text, crashes)
        log.info("turn interrupted", room=self._room.name, answer=answer.id, recovery=choice, attempt=answer.attempt)
        return choice

    def _retry(self, turn: Turn) -> None:
        question = self._transcript.find(turn.question.id)
        if question is not None:
            answer_id = self._room.context.new_id()
            self._transcript.ask_again(question, answer_id)
            if self._room.models:
                self._room.speakers.plan(answer_id, self._room.speakers.of(turn.answer.id))
        turn.settle("aborted", None)


def _merged(group: list[StoredMessage]) -> StoredMessage:
    """The question of a turn: the last one, with the text of all that it answers."""
    if len(group) == 1:
        return group[0]
    question = group[-1]
    message = question.message
    text = "\n\n".join(item.message.text for item in group if item.message.text)
    others = [part for part in message.parts if part.get("type") != "text"]
    merged = ChatMessage(message.id, message.role, [{"type": "text", "text": text}, *others], message.metadata)
    return StoredMessage(
        question.seq,
        question.id,
        question.role,
        question.created_ms,
        question.status,
        question.answers,
        question.answer_id,
        question.attempt,
        question.parks,
        question.error,
        question.leg,
        question.due_ms,
        merged,
    )
