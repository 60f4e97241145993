"""Changes of what was said: edits, answers made again, branches, and whole transcripts that are replaced.

What an edit or a new answer puts out of place is kept as a branch (branches.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..errors import BadArguments, LimitExceeded
from ..wire.messages import ChatMessage
from .branches import Alternatives, Branches
from .submitted import Submitted
from .transcript import StoredMessage

if TYPE_CHECKING:
    from .room import ChatRoom

REPLACED_MESSAGES_MAX = 1_000
"""Messages that `Editing.replace` takes."""


class Editing:
    """Changes one room's transcript."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._transcript = room.transcript
        self._branches = Branches(room.storage, room.transcript)

    def regenerate(self, answer_id: str | None) -> Submitted | None:
        """Make an answer (None: the last) again; it and all after it becomes a branch. None: there is no question."""
        target = self._transcript.find(answer_id) if answer_id else None
        if target is not None and target.role != "assistant":
            target = None
        target = target or self._transcript.last("assistant")
        question = self._transcript.find(target.answers) if target is not None and target.answers else None
        question = question or self._transcript.last("user")
        speakers = self._room.speakers_for(question.message) if question is not None else []
        if question is None or not speakers:
            return None
        self._remove_from(question.seq + 1, keep=True)
        new_id = self._room.context.new_id()
        self._transcript.ask_again(question, new_id)
        self._room.speakers.plan(new_id, speakers)
        self._room.turns.wait_for(question)
        return Submitted(question.id, question.answer_id)

    def edit(self, known: StoredMessage, message: ChatMessage) -> Submitted:
        """Replace a user's message; the old one and all after it becomes a branch. The new one is answered."""
        if known.message.parts == message.parts:
            return Submitted(known.id, known.answer_id, known=True)
        room = self._room
        self._remove_from(known.seq, keep=True)
        speakers = room.speakers_for(message)
        answer_id = room.context.new_id() if speakers else None
        status = "answered" if answer_id is None else "waiting"
        question = self._transcript.add(message, room.now_ms(), status, answer_id=answer_id)
        room.listeners.on_message(question)
        if answer_id is not None:
            room.speakers.plan(answer_id, speakers)
            room.turns.wait_for(question)
        return Submitted(question.id, answer_id)

    def branches_of(self, message_id: str) -> Alternatives:
        """Which of the alternatives of its place a message is."""
        return self._branches.of(message_id)

    def choose_branch(self, message_id: str, index: int) -> bool:
        """Show alternative number ``index`` (from 0) of a message's place. False: it is shown already.

        Raises:
            BadArguments: there is no such message or alternative.
        """
        stored = self._transcript.find(message_id)
        there = self._branches.of(message_id)
        if stored is None or not 0 <= index < there.count:
            raise BadArguments(f"there is no alternative {index} of message {message_id}")
        branch = self._branches.find(message_id, index)
        if branch is None:
            return False
        self._room.turns.cut_off("superseded", from_seq=stored.seq)
        removed = self._transcript.after(stored.seq - 1)
        came_back = self._branches.bring_back(branch, stored.seq)
        self._room.listeners.on_removed(removed)
        for item in came_back:
            self._room.listeners.on_message(item)
        self._room.turns.begin_next()
        return True

    def clear(self) -> None:
        """Remove all messages and branches."""
        self._remove_from(0, keep=False)
        self._branches.clear()
        self._room.turns.begin_next()

    def replace(self, messages: Sequence[ChatMessage]) -> None:
        """Let these be the room's messages, instead of all that was said. Nothing is answered.

        Raises:
            LimitExceeded: ``replaced_messages_max``, ``message_bytes_max`` and so on.
            BadArguments: two messages have one id.
        """
        if len(messages) > REPLACED_MESSAGES_MAX:
            raise LimitExceeded("replaced_messages_max", len(messages), REPLACED_MESSAGES_MAX)
        if len({message.id for message in messages}) < len(messages) or not all(message.id for message in messages):
            raise BadArguments("each message needs an id of its own")
        for message in messages:
            self._room.check_message(message)
        self.clear()
        question: str | None = None
        for message in messages:
            status = "complete" if message.role == "assistant" else "answered"
            answers = question if message.role == "assistant" else None
            stored = self._transcript.add(message, self._room.now_ms(), status, answers=answers)
            question = stored.id if message.role == "user" else question
            self._room.listeners.on_message(stored)

    def _remove_from(self, seq: int, *, keep: bool) -> None:
        """Remove the end of the transcript from that message on."""
        self._room.turns.cut_off("superseded", from_seq=seq)
        if keep and self._transcript.last_seq >= seq:
            self._branches.put_aside(seq)
        removed = self._transcript.cut_from(seq)
        if not keep:
            for stored in removed:
                self._room.tool_calls.forget(stored.id)
        if removed:
            self._room.listeners.on_removed(removed)
