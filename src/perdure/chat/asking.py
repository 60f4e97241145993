"""What clients ask that send their whole list of messages and do not say what of it is new: TanStack AI's.

========================================  ==================================================================
the list ends with                        what is asked
========================================  ==================================================================
a user's message that is new              answer it
one that the room knows, changed          it was edited: answer the new version, without what came after it
one that the room knows, unchanged        make its answer again (``reload``), where nothing was said since
an assistant's message                    go on: results of tools and approvals came back in it
========================================  ==================================================================

The same request may come twice: a line was cut, a proxy tried again. Then nothing is asked anew. What tells a
repetition from a ``reload`` is the name of the run, which is another one for each. A client without such names
sends the same bytes again, but other ones for a ``reload``, where it has kept what it was told of its messages
(see `session`). Where it has not, the same bytes are a ``reload`` if their answer has ended.

Results and approvals are looked for in all messages of a list: an answer may wait while others are given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from ..models.base import ToolSpec
from ..wire.agui_run_input import assistants, awaited_results
from ..wire.messages import ChatMessage
from .runs import WHOLE, Run, Runs

if TYPE_CHECKING:
    from .room import ChatRoom
    from .submitted import Submitted


class Asked(msgspec.Struct, frozen=True):
    """What a client asks.

    ``run_id`` names the request; ``certain``: another request would have another name. ``user`` is the name of an
    authenticated user.
    """

    run_id: str
    messages: Sequence[ChatMessage]
    new_message: ChatMessage | None
    user: str | None = None
    client_tools: Sequence[ToolSpec] | None = None
    certain: bool = True


async def prepare_asked(room: ChatRoom, asked: Asked) -> Asked:
    """The request with the large files of its message in the room; other events of the room run meanwhile.

    Raises:
        PerdureError: as `RoomFiles.take_message` does.
    """
    message = asked.new_message
    if message is None or room.transcript.find(message.id) is not None:
        return asked
    return msgspec.structs.replace(asked, new_message=await room.files.prepare_message(message))


def take_asked(room: ChatRoom, asked: Asked) -> Run:
    """Do what is asked, once; the run that comes of it.

    Raises:
        PerdureError: as `ChatRoom.submit_message` does; nothing was done then.
    """
    message = asked.new_message
    runs = Runs(room.storage)
    known = runs.find(asked.run_id)
    if known is not None and (asked.certain or message is None or not _has_ended(room, known)):
        return known
    went_on = _take_results(room, asked)
    if message is None:
        run = went_on
    else:
        run = _take_message(room, message, asked)
    runs.add(asked.run_id, run.answer_id, run.leg)
    return run


def _take_results(room: ChatRoom, asked: Asked) -> Run:
    """Take in what came back; the leg that the newest message goes on with, if any."""
    run = Run(None, 1)
    for message in assistants(asked.messages):
        stored = room.transcript.find(message.id)
        if stored is None or stored.role != "assistant":
            continue
        results = awaited_results(message, stored.message) if stored.status == "waiting" else None
        submitted = room.take_results(results, user=asked.user) if results is not None else None
        if message is not asked.messages[-1]:
            continue
        if submitted is not None and not submitted.known:
            run = Run(submitted.answer_id, submitted.leg)
        elif results is None and stored.leg > 1:
            run = Run(stored.id, stored.leg)  # another client was first
    return run


def _has_ended(room: ChatRoom, run: Run) -> bool:
    answer = None if run.answer_id is None else room.transcript.find(run.answer_id)
    return answer is not None and answer.status in ("complete", "aborted", "failed")


def _take_message(room: ChatRoom, message: ChatMessage, asked: Asked) -> Run:
    if asked.user is not None:
        metadata = {**(message.metadata or {}), "user": asked.user}
        message = ChatMessage(message.id, message.role, message.parts, metadata)
    if not message.id:
        message = ChatMessage(room.context.new_id(), message.role, message.parts, message.metadata)
    known = room.transcript.find(message.id)
    if known is None or known.role != "user":
        return _run(room.submit_message(message, client_tools=asked.client_tools))
    if _content(known.message) != _content(message):
        return _run(room.edit(message))
    last = room.transcript.last()
    if known.answer_id is not None and last is not None and last.id == known.answer_id:
        again = room.regenerate(known.answer_id)
        if again is not None:
            return _run(again)
    # Nothing is removed that others have said since: what was said is read again, from its beginning.
    return Run(known.answer_id, WHOLE)


def _run(submitted: Submitted) -> Run:
    return Run(submitted.answer_id, submitted.leg)


def _content(message: ChatMessage) -> tuple[str, int]:
    """What a message says, however its client writes it down: its text, and how many files it has.

    Not their addresses: the room may have put a file elsewhere than where its client has it.
    """
    return message.text, sum(part.get("type") == "file" for part in message.parts)
