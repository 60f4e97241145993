"""What one client has seen of a room, and the rules that it holds every later frame to.

A view never forgets. Whatever a frame says must fit what was seen before, across any number of
reconnects: nothing seen may be missing, nothing may come twice, text only grows at its end.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


class Violation(Exception):
    """A promise was broken."""


@dataclass
class RoomView:
    """The room as one WebSocket client knows it."""

    client: str
    exact: bool
    """Whether its text grows by deltas alone, so that the end may add nothing."""
    texts: dict[str, str] = field(default_factory=dict)
    """Every message seen, in order, with the text that was seen."""
    complete: set[str] = field(default_factory=set)
    users: set[str] = field(default_factory=set)
    offset: str | None = None
    frames: int = 0
    characters: int = 0
    resumes: int = 0
    inits: int = 0

    def take(self, frame: dict[str, Any], *, connected_with: str | None) -> None:
        """Hold one frame to the rules and remember it.

        Raises:
            Violation: it breaks one.
        """
        self.frames += 1
        kind = frame["type"]
        handler: Any = getattr(self, f"_on_{kind}", None)
        if handler is None:
            self._fail(f"an unexpected frame: {frame}")
        if kind == "init" and connected_with is not None:
            self._fail(f"offset {connected_with} was answered with init, not resume")
        if kind == "resume" and frame["offset"] != connected_with:
            self._fail(f"came with {connected_with}, resumed at {frame['offset']}")
        handler(frame)
        if "offset" in frame:
            self.offset = frame["offset"]

    def settled(self, orders: int) -> bool:
        """Whether that many messages have their whole answers."""
        return len(self.complete) >= orders

    # --- frames

    def _on_init(self, frame: dict[str, Any]) -> None:
        self.inits += 1
        shown = {message["id"]: message for message in frame["messages"]}
        if len(shown) != len(frame["messages"]):
            self._fail("init shows a message twice")
        missing = self.texts.keys() - shown.keys()
        if missing:
            self._fail(f"init lacks {sorted(missing)}, which were seen")
        if list(shown)[: len(self.texts)] != list(self.texts):
            self._fail(f"init changed the order: {list(shown)} after {list(self.texts)}")
        for message_id, message in shown.items():
            seen = self.texts.get(message_id, "")
            if not message["content"].startswith(seen):
                self._fail(f"init changed seen text of {message_id}: {_around(seen, message['content'])}")
            if message_id in self.complete and message["content"] != seen:
                self._fail(f"init went on with {message_id} after its end")
            self._remember(message)

    def _on_resume(self, frame: dict[str, Any]) -> None:
        self.resumes += 1

    def _on_message(self, frame: dict[str, Any]) -> None:
        message = frame["message"]
        seen = self.texts.get(message["id"])
        if seen is not None:
            # A user's own message is shown again when it was sent again.
            if message["role"] != "user" or message["content"] != seen:
                self._fail(f"message {message['id']} came twice")
            return
        self._remember(message)

    def _on_delta(self, frame: dict[str, Any]) -> None:
        message_id = frame["messageId"]
        self._check_growing(message_id)
        self.texts[message_id] += frame["delta"]
        self.characters += len(frame["delta"])

    def _on_update(self, frame: dict[str, Any]) -> None:
        message_id = frame["messageId"]
        self._check_growing(message_id)
        seen = self.texts[message_id]
        if not frame["content"].startswith(seen):
            self._fail(f"update took back text of {message_id}: {_around(seen, frame['content'])}")
        self.texts[message_id] = frame["content"]
        self.characters += len(frame["content"]) - len(seen)

    def _on_complete(self, frame: dict[str, Any]) -> None:
        message_id = frame["messageId"]
        self._check_growing(message_id)
        seen, final = self.texts[message_id], frame["content"]
        if frame["status"] != "complete":
            self._fail(f"{message_id} ended as {frame['status']}: {frame.get('error')}")
        if self.exact and final != seen:
            self._fail(f"deltas of {message_id} are not its text: {_around(seen, final)}")
        if not final.startswith(seen):
            self._fail(f"the final text of {message_id} is another: {_around(seen, final)}")
        self.texts[message_id] = final
        self.complete.add(message_id)

    def _on_reconnect(self, frame: dict[str, Any]) -> None:
        """The server ends in an orderly way."""

    def _check_growing(self, message_id: str) -> None:
        if message_id not in self.texts:
            self._fail(f"text for {message_id}, which was never shown")
        if message_id in self.complete:
            self._fail(f"{message_id} went on after its end")

    def _remember(self, message: dict[str, Any]) -> None:
        self.texts[message["id"]] = message["content"]
        if message["role"] == "user":
            self.users.add(message["id"])
        elif message["status"] == "complete":
            self.complete.add(message["id"])
        elif message["status"] != "streaming":
            self._fail(f"{message['id']} is {message['status']}: {message.get('error')}")

    def _fail(self, what: str) -> None:
        raise Violation(f"{self.client}: {what}")


@dataclass
class AnswerView:
    """One answer as an AI SDK client reads it: the events of its stream."""

    client: str
    events: list[str] = field(default_factory=list)
    """Every event seen, in order: a replay must begin with all of them, byte for byte."""
    done: bool = False
    frames: int = 0
    replays: int = 0

    def read(self) -> AnswerReader:
        """Begin to read a response."""
        self.replays += 1
        return AnswerReader(self)


class AnswerReader:
    """Reads one response of an answer's stream from its start chunk on."""

    def __init__(self, view: AnswerView) -> None:
        self._view = view
        self._at = 0

    @property
    def begun(self) -> bool:
        """Whether an event was read."""
        return self._at > 0

    def take(self, event: str) -> None:
        """Hold one event to what was seen before at its place.

        Raises:
            Violation: it is another one.
        """
        view, at = self._view, self._at
        view.frames += 1
        self._at += 1
        if event == "[DONE]":
            if at != len(view.events):
                raise Violation(f"{view.client}: ended after {at} events, {len(view.events)} were seen")
            if not view.events or '"type":"finish"' not in view.events[-1]:
                raise Violation(f"{view.client}: a clean end after {view.events[-1:]}")
            view.done = True
        elif at < len(view.events):
            if view.events[at] != event:
                raise Violation(f"{view.client}: event {at} was {view.events[at]}, is {event}")
        else:
            view.events.append(event)


def check_answer(view: AnswerView, shown: Sequence[dict[str, Any]]) -> None:
    """What an AI SDK client read is the beginning of the stored answer, or all of it.

    Raises:
        Violation: it is not.
    """
    if not view.events:
        return
    chunks = [json.loads(event) for event in view.events]
    text = "".join(chunk["delta"] for chunk in chunks if chunk["type"] == "text-delta")
    stored = {message["id"]: message["content"] for message in shown}
    final = stored.get(chunks[0]["messageId"])
    if final is None:
        raise Violation(f"{view.client}: the answer {chunks[0]['messageId']} is gone")
    if not final.startswith(text) or (view.done and final != text):
        raise Violation(f"{view.client}: read another text than is stored: {_around(text, final)}")


def check_room_view(view: RoomView, shown: Sequence[dict[str, Any]]) -> None:
    """What a room client saw is what is stored, in its order.

    Raises:
        Violation: it is not.
    """
    stored = [(message["id"], message["content"]) for message in shown]
    if list(view.texts.items()) != stored:
        raise Violation(f"{view.client}: saw {list(view.texts)}, stored are {[item[0] for item in stored]}")


def check_transcript(name: str, shown: Sequence[dict[str, Any]], orders: Sequence[tuple[str, str, str]]) -> None:
    """The room's messages in the end: each order's question once, then in time its whole answer.

    Raises:
        Violation: something is missing, doubled or changed.
    """
    users = [(message["id"], message["content"]) for message in shown if message["role"] == "user"]
    if users != [(message_id, content) for message_id, content, _ in orders]:
        raise Violation(f"{name}: asked {[order[0] for order in orders]}, stored {[user[0] for user in users]}")
    answers = [message for message in shown if message["role"] == "assistant"]
    if len(answers) != len(orders):
        raise Violation(f"{name}: {len(orders)} questions, {len(answers)} answers")
    for message, (message_id, _, answer) in zip(answers, orders, strict=True):
        if message["status"] != "complete":
            raise Violation(f"{name}: the answer to {message_id} is {message['status']}: {message.get('error')}")
        if message["content"] != answer:
            raise Violation(f"{name}: the answer to {message_id}: {_around(message['content'], answer)}")


def _around(seen: str, now: str) -> str:
    """The place where two texts part."""
    at = next((at for at, (a, b) in enumerate(zip(seen, now, strict=False)) if a != b), min(len(seen), len(now)))
    before, after = max(0, at - 20), at + 20
    return f"at {at}: {seen[before:after]!r} ({len(seen)}) / {now[before:after]!r} ({len(now)})"
