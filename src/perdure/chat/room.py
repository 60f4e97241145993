"""`ChatRoom`: a durable object that holds a conversation and lets a model answer in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec

from ..agents.agent import Agent
from ..errors import BadArguments, Busy, LimitExceeded, Overloaded, PerdureError
from ..models.base import Model, ToolSpec, TurnContext
from ..models.registry import resolve_model
from ..objects.connections import Connection
from ..objects.object import Context, callable
from ..wire.messages import ChatMessage, user_message
from ..wire.room import CLIENT_ID_BYTES_MAX, PING, PONG, USER_NAME_BYTES_MAX, error_frame
from ..wire.target import Target
from ..wire.ui_chunks import Chunk
from .audience import Audience
from .branches import Alternatives
from .editing import Editing
from .files import API_URL, DEFAULT_FILE_TYPES, RoomFiles
from .listener import Listeners, RoomListener
from .mentions import DEFAULT_MODEL, Speakers, mentions
from .presence import Presence
from .replay import Replay, replay_of
from .results import Results
from .room_session import handle_frame
from .room_view import as_room_message
from .session import SessionLog
from .submitted import Submitted
from .surfaces import Surfaces
from .tool_calls import ToolCalls
from .tools import Tool, tools_of
from .transcript import MIGRATIONS, StoredMessage, Transcript
from .turn import Turn
from .turns import Recovery, Turns

Policy = Literal["queue", "latest", "merge", "drop", "debounce"]

WAITING_MESSAGES_MAX = 1_000
"""User messages of one room that wait for their turn; the next one is refused."""

PAGE_MESSAGES_MAX = 1_001
"""Messages that one call of `ChatRoom.messages` returns at most."""

CLIENT_TOOLS_MAX = 128
"""Tools that clients of one room may bring."""

REQUEST_BODY_BYTES_MAX = 64 * 1024
"""Bytes of the fields of its own, as JSON, that a page sends with a request."""

REQUEST_BODIES_KEPT = 16
"""Answers of which a room knows what their requests brought."""

CONTINUATIONS_MAX = 3
"""Interruptions after which the default `ChatRoom.on_interrupted` still continues an answer."""

REPLAY_GRACE_MS = 5_000
"""How long after its end an answer is still replayed to a client that asks to resume."""

CALLER = "the caller's name"

CallerName: TypeAlias = Annotated[str | None, CALLER]
"""An argument that says who calls: from outside, the name of an authenticated user goes before any given one."""


@dataclass(frozen=True, slots=True)
class InterruptedTurn:
    """A turn that was cut off, by a crash, a restart or a model that fell silent: what was said, and how many
    interruptions it has been through.

    A planned stop of the server is not counted.
    """

    answer_id: str
    partial: str
    crashes: int


@dataclass(frozen=True, slots=True)
class BeforeTurn:
    """A message that is about to be answered, for `ChatRoom.before_turn`.

    ``running`` is the id of the answer that is being made meanwhile; None when there is none.
    """

    message: ChatMessage
    running: str | None
    _interrupt: Callable[[str], bool]

    def interrupt(self, reason: str = "superseded") -> bool:
        """End the running answer; what was said stays. False when none is running."""
        return self._interrupt(reason)


class ChatRoom(Agent):
    """A room: its messages, its turns, its clients. Derive from it.

    ``model``: a name like ``"anthropic:claude-haiku-4-5"`` or ``"local:smollm2"``, a model object
    or pydantic-ai Agent; None makes a room of people only. Or override `respond`.
    ``models``: more models, by name; ``@name`` in a message has that one answer it instead.
    ``policy``: what a message does that arrives during a turn. ``queue``: it waits for its own
    turn. ``latest``: it ends the running turn and gets the next one. ``merge``: all that arrive
    get the next turn together. ``drop``: it is refused (`Busy`). ``debounce``: as ``merge``, and the turn
    begins ``debounce_ms`` after the last of them.
    ``steps_max``: how often the model is asked for one answer, with the results of its tools.
    ``stall_timeout_ms``: a model that says nothing for so long counts as interrupted.
    ``file_types``: media types of the files that it takes, like ``image/png`` or ``image/*``.
    ``api_url``: where browsers find ``/api/chat`` of the server, where it is mounted elsewhere.
    """

    migrations: ClassVar[tuple[str, ...]] = MIGRATIONS
    auto_response = (PING.decode(), PONG.decode())

    model: ClassVar[Any] = None
    models: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    instructions: ClassVar[str] = ""
    policy: ClassVar[Policy] = "queue"
    debounce_ms: ClassVar[int] = 1_000
    steps_max: ClassVar[int] = 16
    stall_timeout_ms: ClassVar[int] = 180_000
    target: ClassVar[Target] = "ai6"
    file_types: ClassVar[Sequence[str]] = DEFAULT_FILE_TYPES
    api_url: ClassVar[str] = API_URL

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.transcript = Transcript(self.storage)
        self.tool_calls = ToolCalls(self.storage)
        self.speakers = Speakers(self.storage)
        self.files = RoomFiles(context, self.file_types, self.api_url)
        self.listeners = Listeners()
        self.audience = Audience(self.transcript, self.storage, context.connections, context.broadcast)
        self.session = SessionLog(self.streams, self.transcript, self.name)
        self.add_listener(self.audience)
        self.add_listener(self.session)
        self.turns = Turns(self)
        self.editing = Editing(self)
        self.results = Results(self)
        self.presence = Presence(context)
        self.surfaces = Surfaces(self)

    # --- hooks

    async def respond(self, turn: TurnContext) -> AsyncIterator[str | Chunk]:
        """Make one step of an answer: yield text, or chunks. Override it to bring your own model.

        ``turn.text`` is the newest user message, ``turn.messages`` the conversation, ``turn.answer`` what
        the earlier steps said and did, ``turn.partial`` what this one said before a crash: go on after it.
        """
        model = self.get_model(turn.model)
        if model is not None:
            async with aclosing(model.respond(turn)) as pieces:  # type: ignore[type-var]
                async for piece in pieces:
                    yield piece

    async def on_interrupted(self, turn: InterruptedTurn) -> Recovery:
        """What to do with a turn that was cut off: ``continue`` it (the text that was seen stays and
        goes on), ``retry`` with a new answer, or ``fail`` it. Default: continue, at most 3 times."""
        return "continue" if turn.crashes <= CONTINUATIONS_MAX else "fail"

    async def before_turn(self, event: BeforeTurn) -> None:
        """A message was taken in and is to be answered; its turn begins after this returns.

        It may end the running answer: ``event.interrupt("superseded")``. An error leaves the message without an
        answer. After a crash it may run again for the same message.
        """

    def who_answers(self, message: ChatMessage) -> Sequence[str]:
        """Which of ``models`` answer a user's message, one after the other; ``""`` is ``model``. None: nobody does.

        By default those that it mentions with ``@name``, else ``model`` (or your `respond`).
        """
        default = [DEFAULT_MODEL] if self._has_default else []
        return mentions(message.text, self.models) or default

    def may_answer(self, user: str | None, tool: str) -> bool:
        """Whether a user may approve calls of this tool, or give its result. By default everyone in the room may."""
        return True

    # --- calls

    @callable
    async def submit(
        self, text: str, *, user: CallerName = None, id: str | None = None, policy: Policy | None = None
    ) -> Submitted:
        """Say something in the room. With an ``id`` that the room knows, nothing is said again.

        ``user`` is the name that the message carries; over RPC an authenticated user cannot give another.
        ``policy`` is for this message alone.

        Raises:
            BadArguments: the text is empty.
            LimitExceeded: ``message_bytes_max``, ``client_id_bytes_max``, ``user_name_bytes_max``.
            Overloaded: too many messages wait for their turn (``waiting_messages_max``).
            Busy: the policy is ``drop``, and the room is answering.
        """
        if not text.strip():
            raise BadArguments("a message must not be empty")
        return self.submit_message(user_message(id or self.context.new_id(), text, user=user), policy=policy)

    @callable
    async def stop(self) -> bool:
        """End the running answer; what was said stays. False when none is running."""
        return self.turns.stop("stopped")

    @callable
    async def answer_again(self, answer_id: str | None = None) -> Submitted | None:
        """Make an answer (None: the last) again; the old one is kept as a branch. None: there is no question."""
        return self.regenerate(answer_id)

    @callable
    async def choose_branch(self, message_id: str, index: int) -> bool:
        """Show another alternative of a message that was edited, or of an answer that was made again.

        ``index`` counts from 0. False when it is shown already.

        Raises:
            BadArguments: there is no such message or alternative.
        """
        return self.editing.choose_branch(message_id, index)

    @callable
    async def approve(
        self, id: str, approved: bool = True, reason: str | None = None, *, user: CallerName = None
    ) -> bool:
        """Agree to a tool call, or not. ``id`` is the approval's or the call's. False: nobody asks (any more).

        Raises:
            Forbidden: `may_answer` says no.
        """
        return self.answer_approval(id, approved, reason, user=user)

    @callable
    async def submit_tool_result(
        self, tool_call_id: str, output: Any = None, *, error: str | None = None, user: CallerName = None
    ) -> bool:
        """Give the result of a client's tool, or why it failed. False: nobody waits for it (any more).

        Raises:
            Forbidden: `may_answer` says no.
        """
        return self.tool_result(tool_call_id, output, error=error, user=user)

    @callable
    async def messages(self, limit: int = 100, before: str | None = None) -> list[ChatMessage]:
        """The newest messages (older than the message ``before``), oldest first; a running answer as it is now.

        ``limit`` counts up to `PAGE_MESSAGES_MAX`.
        """
        return [self._shown(stored) for stored in self._page(limit, before)]

    # --- for the surfaces: what there is

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
    def running(self) -> Turn | None:
        """The turn that is running."""
        return self.turns.running

    @property
    def streaming_answer(self) -> str | None:
        """The id of the answer that is being made."""
        return self.turns.running.answer.id if self.turns.running is not None else None

    @property
    def resumable_answer(self) -> str | None:
        """The id of the answer that a returning client is replayed: the running or the just ended one."""
        if self.turns.running is not None:
            return self.turns.running.answer.id
        last = self.transcript.last()
        if last is None or last.role != "assistant":
            return None
        ended_ms = self.storage.get("_ended_ms", 0)
        return last.id if self.now_ms() - ended_ms <= REPLAY_GRACE_MS else None

    def leg_of(self, answer_id: str) -> int:
        """The number of the answer's newest leg."""
        stored = self.transcript.find(answer_id)
        return 1 if stored is None else stored.leg

    def replay(self, answer_id: str) -> Replay | None:
        """The whole answer from its ``start``; None when there is none of that id."""
        stored = self.transcript.find(answer_id)
        if stored is None or stored.role != "assistant":
            return None
        return replay_of(stored, self.streams)

    def request_body(self, answer_id: str) -> dict[str, Any]:
        """What a page sent beside the messages with its request for an answer, like `useAgentChat`'s ``body``.

        For `respond`: ``self.request_body(turn.turn_id)``. The newest `REQUEST_BODIES_KEPT` are kept.
        """
        bodies: dict[str, dict[str, Any]] = self.storage.get("_request_bodies", {})
        return bodies.get(answer_id, {})

    def check_request_body(self, body: dict[str, Any]) -> None:
        """Raises LimitExceeded where it is larger than ``request_body_bytes_max``."""
        if body and (size := len(msgspec.json.encode(body))) > REQUEST_BODY_BYTES_MAX:
            raise LimitExceeded("request_body_bytes_max", size, REQUEST_BODY_BYTES_MAX)

    def keep_request_body(self, answer_id: str, body: dict[str, Any]) -> None:
        """Keep it for `request_body`."""
        bodies: dict[str, dict[str, Any]] = self.storage.get("_request_bodies", {})
        bodies.pop(answer_id, None)
        kept = list(bodies.items())[1 - REQUEST_BODIES_KEPT :]
        self.storage.put("_request_bodies", {**dict(kept), answer_id: body})

    def branches_of(self, message_id: str) -> Alternatives:
        """Which of the alternatives of its place a message is."""
        return self.editing.branches_of(message_id)

    def add_listener(self, listener: RoomListener) -> None:
        """Tell this one, too, of everything that happens."""
        self.listeners.add(listener)

    def open_session(self, *, fresh: bool = False) -> None:
        """Make the room's session stream, if it has none: all that is said, as AG-UI events."""
        self.session.open(fresh=fresh)

    def _page(self, limit: int, before: str | None) -> list[StoredMessage]:
        before_seq = None
        if before is not None:
            stored = self.transcript.find(before)
            if stored is None:
                return []
            before_seq = stored.seq
        return self.transcript.newest(max(0, min(limit, PAGE_MESSAGES_MAX)), before_seq)

    def _shown(self, stored: StoredMessage) -> ChatMessage:
        turn = self.turns.running
        return turn.fold.message() if turn is not None and turn.answer.id == stored.id else stored.message

    # --- for the surfaces: what comes in

    def submit_message(
        self,
        message: ChatMessage,
        *,
        policy: Policy | None = None,
        client_tools: Sequence[ToolSpec] | None = None,
    ) -> Submitted:
        """Take a user's message in and see to its answer.

        ``client_tools`` are the tools that the client carries out, from now on instead of those it told before.

        Raises:
            LimitExceeded, Overloaded, Busy: see `submit`.
            PerdureError: see `RoomFiles.take_message`, for one with files.
        """
        self.check_message(message)
        known = self.transcript.find(message.id)
        if known is not None:
            return Submitted(known.id, known.answer_id, known=True)
        policy = policy or self.policy
        speakers = self.speakers_for(message)
        waiting = self.transcript.newest_waiting() if speakers else None
        if policy == "drop" and speakers and (waiting is not None or self.turns.running is not None):
            raise Busy()
        if waiting is not None and (count := self.transcript.count_waiting()) >= WAITING_MESSAGES_MAX:
            raise Overloaded(
                f"{count:,} messages wait for their answers already (waiting_messages_max); try again later"
            )
        message = self.files.take_message(message)
        if client_tools is not None:
            self.set_client_tools(client_tools)
        if not speakers:
            stored = self.transcript.add(message, self.now_ms(), "answered")
            self.listeners.on_message(stored)
            return Submitted(stored.id, None)
        if policy == "latest":
            for skipped in self.transcript.waiting():
                self.turns.skip(skipped)
        joins = policy in ("merge", "debounce") and waiting is not None
        answer_id = (waiting.answer_id if joins and waiting is not None else None) or self.context.new_id()
        self.speakers.plan(answer_id, speakers, joins=joins)
        due_ms = self.now_ms() + self.debounce_ms if policy == "debounce" else None
        stored = self.transcript.add(message, self.now_ms(), "waiting", answer_id=answer_id, due_ms=due_ms)
        self.listeners.on_message(stored)
        if policy == "latest":
            self.turns.stop("superseded")
        self.turns.wait_for(stored)
        return Submitted(stored.id, answer_id)

    def regenerate(self, answer_id: str | None) -> Submitted | None:
        """Make an answer (None: the last) again; it and all after it is kept as a branch."""
        return self.editing.regenerate(answer_id)

    def edit(self, message: ChatMessage) -> Submitted:
        """Replace a user's message and answer it again; what was there is kept as a branch. An unknown one is
        submitted."""
        known = self.transcript.find(message.id)
        if known is None or known.role != "user":
            return self.submit_message(message)
        self.check_message(message)
        return self.editing.edit(known, self.files.take_message(message))

    def take_results(self, message: ChatMessage, *, user: str | None = None) -> Submitted | None:
        """Take in what an assistant message that came back has for an answer that waits; go on where that is all.

        None: there is no such answer.

        Raises:
            Forbidden: `may_answer` says no.
        """
        return self.results.take(message, user)

    def tool_result(
        self,
        tool_call_id: str,
        output: Any = None,
        *,
        error: str | None = None,
        user: str | None = None,
        go_on: bool = True,
    ) -> bool:
        """See `submit_tool_result`. ``go_on=False``: the answer goes on when `go_on` is called."""
        result = {"output": output} if error is None else {"error": error}
        return self.results.give(tool_call_id, result, user, go_on=go_on)

    def answer_approval(
        self,
        id: str,
        approved: bool,
        reason: str | None = None,
        *,
        user: str | None = None,
        go_on: bool = True,
    ) -> bool:
        """See `approve`. ``go_on=False``: the answer goes on when `go_on` is called."""
        return self.results.approve(id, approved, reason, user, go_on=go_on)

    def go_on(self, answer_id: str) -> Submitted | None:
        """Begin the next leg of an answer that waits, if nothing is owed any more; None: it is, or does not wait."""
        return self.results.go_on(answer_id)

    def clear(self) -> None:
        """Remove all messages, branches too."""
        self.editing.clear()
        self.files.on_removed()

    def replace_messages(self, messages: Sequence[ChatMessage]) -> None:
        """Let these be the room's messages. Nothing is answered. Raises LimitExceeded, BadArguments."""
        self.editing.replace([self.files.take_message(item) if item.role == "user" else item for item in messages])
        for message in messages:
            self.files.keep(message)
        self.files.on_removed()

    def check_message(self, message: ChatMessage) -> None:
        """Raises LimitExceeded where a message is larger than the room takes."""
        limit = self.context.runtime.limits.message_bytes_max
        if len(message.text) > limit // 4 and (size := len(message.text.encode())) > limit:
            raise LimitExceeded("message_bytes_max", size, limit)
        _check_size("client_id_bytes_max", message.id, CLIENT_ID_BYTES_MAX)
        _check_size("user_name_bytes_max", message.user or "", USER_NAME_BYTES_MAX)

    # --- tools

    @classmethod
    def tools(cls) -> Mapping[str, Tool]:
        """The class's `tool` methods, by name."""
        return tools_of(cls)

    @cached_property
    def client_tools(self) -> Mapping[str, ToolSpec]:
        """The tools that clients told of, by name; those of the class go before them."""
        stored = self.storage.get("_client_tools", [], type=list[ToolSpec])
        return {tool.name: tool for tool in stored}

    def set_client_tools(self, tools: Sequence[ToolSpec]) -> None:
        """Replace the clients' tools. Raises LimitExceeded (``client_tools_max``)."""
        if len(tools) > CLIENT_TOOLS_MAX:
            raise LimitExceeded("client_tools_max", len(tools), CLIENT_TOOLS_MAX)
        told = {tool.name: tool for tool in tools if tool.name not in self.tools()}
        if told != self.client_tools:
            self.storage.put("_client_tools", list(told.values()))
            self.__dict__["client_tools"] = told

    # --- the model

    def answers(self) -> bool:
        """Whether messages are answered here, at least those that name somebody."""
        return self._has_default or bool(self.models)

    @property
    def _has_default(self) -> bool:
        return self.model is not None or self.has_own_respond

    def speakers_for(self, message: ChatMessage) -> list[str]:
        """What `who_answers` says. Raises ValueError for a name that is not one of ``models``."""
        names = list(dict.fromkeys(self.who_answers(message)))
        for name in names:
            if name not in self.models and not (name == DEFAULT_MODEL and self._has_default):
                raise ValueError(f"who_answers named {name!r}; {type(self).__name__}.models has {list(self.models)}")
        return names

    @property
    def has_own_respond(self) -> bool:
        """Whether the application brings its own model; tools that the room does not know are then the model's."""
        return type(self).respond is not ChatRoom.respond

    @classmethod
    def get_model(cls, name: str = DEFAULT_MODEL) -> Model | None:
        """The class's model (of that name), made at first use and shared by its rooms."""
        source = cls.models.get(name) if name else cls.model
        if source is None:
            return None
        if "_resolved_models" not in cls.__dict__:
            cls._resolved_models = {}
        model = cls._resolved_models.get(name)
        if model is None:
            model = cls._resolved_models[name] = resolve_model(source)
        return model

    @classmethod
    async def on_server_start(cls) -> None:
        """Make the models and the tools, so that a wrong name or a missing key is told before anyone waits.

        Raises:
            ConfigError: there is no such model here, or a tool cannot be used; the message says what to do.
        """
        cls.tools()
        # Importing a provider's library takes up to a second.
        for name in (DEFAULT_MODEL, *cls.models):
            await asyncio.to_thread(cls.get_model, name)

    @classmethod
    async def on_server_stop(cls) -> None:
        """Let go of the models: their processes and connections."""
        resolved: dict[str, Model] = cls.__dict__.get("_resolved_models", {})
        while resolved:
            await resolved.popitem()[1].aclose()

    _resolved_models: ClassVar[dict[str, Model]] = {}

    # --- for the turns

    @property
    def has_before_turn(self) -> bool:
        """Whether the application wants to be asked before each turn."""
        return type(self).before_turn is not ChatRoom.before_turn

    async def ask_before_turn(self, question: StoredMessage) -> None:
        """Ask it."""
        await self.before_turn(BeforeTurn(question.message, self.streaming_answer, self.turns.stop))

    async def choose_recovery(self, answer_id: str, partial: str, interruptions: int) -> Recovery:
        """What becomes of a turn that was cut off."""
        return await self.on_interrupted(InterruptedTurn(answer_id, partial, interruptions))

    # --- what the runtime calls

    async def handle_start(self) -> None:
        """Take up what a crash interrupted, then what waited."""
        self.files.tidy()
        self.surfaces.wake()
        await self.turns.recover()
        await super().handle_start()

    async def handle_connect(self, connection: Connection) -> None:
        """Greet a client: everything, or what it missed since its offset."""
        if connection.protocol in ("room", ""):
            self.audience.greet(connection)
            self.context.touch_connections()
        elif (surface := self.surfaces.of(connection)) is not None:
            surface.connect(connection)
        self.presence.joined(connection)
        await super().handle_connect(connection)

    async def handle_message(self, connection: Connection, data: str | bytes) -> None:
        """A client's frame."""
        if connection.protocol in ("room", ""):
            await handle_frame(self, connection, data)
        elif (surface := self.surfaces.of(connection)) is None or not await surface.handle(connection, data):
            await super().handle_message(connection, data)

    async def handle_close(self, connection: Connection, code: int, reason: str) -> None:
        """A client is gone."""
        self.presence.left(connection)
        if (surface := self.surfaces.of(connection)) is not None:
            surface.gone(connection)
        await super().handle_close(connection, code, reason)

    async def on_error(self, connection: Connection | None, error: Exception) -> None:
        """Tell the client whose frame failed."""
        if connection is not None and connection.protocol in ("room", ""):
            known = isinstance(error, PerdureError)
            code = error.code if isinstance(error, PerdureError) else "internal_error"
            text = str(error) if known else "something went wrong in the room; it has been logged"
            connection.send_frame(error_frame(code, text, known and getattr(error, "retryable", False)))


def _check_size(limit: str, text: str, bytes_max: int) -> None:
    if len(text) > bytes_max // 4 and (size := len(text.encode())) > bytes_max:
        raise LimitExceeded(limit, size, bytes_max)
