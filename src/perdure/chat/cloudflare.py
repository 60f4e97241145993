"""A room's clients of Cloudflare's Agents SDK: what `useAgentChat` is shown.

Every client gets every chunk of every answer, live: encoded once, whoever asked. The frames of an answer bear the
id of the request that asked for it or, where other clients asked, one that the room makes of the answer's id.

A client that comes amid an answer is offered it, and gets it from its start when it takes the offer: until then it
is left out of the live chunks. An answer's later legs are shown from the answer's start, too; only a client that
asked for the leg by a request of its own gets the leg alone, under its request's id.

Frames leave in the order of the room's events, through its gate.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..agents.protocol import AGENTS
from ..objects.connections import Connection
from ..wire.cloudflare_chat import (
    CLEARED,
    Answer,
    TurnEnd,
    none_frame,
    pending_frame,
    resuming_frame,
    updated_frame,
)
from ..wire.deltas import join_deltas
from ..wire.target import for_target
from ..wire.ui_chunks import Abort, Chunk, Error
from .cloudflare_conversation import Conversation
from .cloudflare_peers import Direct, Live, Peer, Request, remember
from .listener import RoomListener
from .transcript import StoredMessage
from .turn import Outcome, Turn

if TYPE_CHECKING:
    from .room import ChatRoom

SETTLE_MS = 200
"""After an answer's end, until its clients are told the conversation as the room has it."""

_REQUEST_KEY = "_agents_request"
"""The newest answer that a request asked for, and the request's id."""

_HOW_IT_ENDED = (b'{"type":"error"', b'{"type":"abort"')

_ENDS: dict[Outcome, TurnEnd] = {"complete": "completed", "waiting": "completed", "aborted": "aborted"}


class CloudflareChat(RoomListener):
    """Shows one room's events to these clients, and answers what they ask of running answers."""

    def __init__(self, room: ChatRoom) -> None:
        self._room = room
        self._peers: dict[Connection, Peer] = {}
        self._followers: tuple[Connection, ...] | None = None
        self._live: Live | None = None
        self._recent: dict[str, str] = {}
        self._cut_off: dict[str, str] = {}
        self._requests: list[Request] = []
        self._held: list[tuple[Callable[..., None], tuple[Any, ...]]] | None = None
        self._sender: Connection | None = None
        self._list_due = False
        self._list_without: Connection | None = None
        self._conversation = Conversation(room.transcript)
        self._unsettled: set[Connection] = set()
        self._settling: asyncio.Task[None] | None = None
        for connection in room.connections():
            if connection.protocol == AGENTS:
                self._peers[connection] = Peer(connection)
        if room.running is not None:
            self._show_leg(room.running)

    # --- clients

    def connect(self, connection: Connection) -> None:
        """A client has come: it is offered what is being said."""
        peer = self._peers[connection] = Peer(connection)
        peer.fresh = True
        self._followers = None
        missed = self._cut_off.pop(connection.id, None)
        if self._live is not None:
            self._offer(peer, self._live.answer.request_id, None)
            return
        if self._room.transcript.last() is not None:
            connection.send_frame(self._conversation.frame(connect=True))
        if missed in self._recent:
            self._offer(peer, missed, None)  # older clients do not ask, and await the end of what they had

    def gone(self, connection: Connection) -> None:
        """A client has left. What it asked for goes on."""
        peer = self._peers.pop(connection, None)
        self._followers = None
        if self._live is not None:
            direct = self._live.direct.pop(connection, None)
            if direct is None and peer is not None and not peer.offered:
                remember(self._cut_off, connection.id, self._live.answer.request_id)

    def peer(self, connection: Connection) -> Peer:
        """What is known of a client."""
        return self._peers.get(connection) or Peer(connection)

    # --- events

    def on_message(self, stored: StoredMessage) -> None:
        """The conversation has grown: all but the client that did it are told."""
        self._conversation.put(stored)
        self._change_list()

    def on_removed(self, removed: list[StoredMessage]) -> None:
        """It has shrunk; what was to be answered may be gone."""
        self._conversation.remove(removed)
        self._change_list()
        self._show(self._end_skipped, "skipped")
        asyncio.get_running_loop().call_soon(self._release)

    def on_updated(self, stored: StoredMessage) -> None:
        """A result or an approval has come in."""
        self._conversation.put(stored)
        self._show(self._send_updated, stored)

    def on_turn(self, turn: Turn, *, new: bool) -> None:
        """A leg begins."""
        self._show(self._begin, turn)

    def on_chunk(self, turn: Turn, chunk: Chunk, data: bytes) -> None:
        """A chunk: encoded once for all that follow. How an answer ends is told by its end."""
        if self._peers and not isinstance(chunk, (Error, Abort)):
            self._show(self._send_chunk, turn.position - 1, data)

    def on_settled(self, turn: Turn, outcome: Outcome, error: str | None) -> None:
        """The leg has ended."""
        self._conversation.put(turn.answer)
        self._show(self._end, outcome, error)

    def _show(self, show: Callable[..., None], *arguments: Any) -> None:
        """Show it now or, while a request is carried out, after that."""
        if self._held is None:
            show(*arguments)
        else:
            self._held.append((show, arguments))

    # --- requests

    @contextmanager
    def acting_for(self, connection: Connection) -> Iterator[None]:
        """``with`` (and without an await inside): what the room does was asked for by this client.

        An answer may begin before the room has said which one comes of the request; so all is shown afterwards.
        """
        self._held, self._sender = [], connection
        try:
            yield
        finally:
            held, self._held, self._sender = self._held, None, None
            for show, arguments in held:
                show(*arguments)
            self._end_skipped("skipped")
            if connection in self._peers:
                self._peers[connection].asked = True

    def add(self, request: Request) -> None:
        """A request came to an answer: one that will begin, is being made, or is there already."""
        live = self._live
        stored = self._room.transcript.find(request.answer_id)
        running = live is not None and live.turn.answer.id == request.answer_id
        if live is not None and running:
            self._join(live, request)
        elif stored is None or stored.status == "streaming":
            self._requests.append(request)
        else:
            if request.whole:
                self._send_replay(request.connection, Answer(request.id), stored.id, replay=False)
            self._send_end(request.connection, Answer(request.id), stored, replay=False)

    def _join(self, live: Live, request: Request) -> None:
        """The client asked for what is being said already: it gets it under its own id, too."""
        direct = live.direct[request.connection] = Direct(request, live.skip if request.whole else 0)
        self._followers = None
        if request.whole:
            self._send_replay(request.connection, direct.answer, request.answer_id, replay=False)
        else:
            for number, data in enumerate(live.turn.stream.entries()):
                request.connection.send_frame(direct.answer.chunk(data, number))

    def cancel(self, connection: Connection, request_id: str) -> None:
        """Stop the answer that a client knows by this id, or let it never begin."""
        live = self._live
        if live is not None:
            direct = live.direct.get(connection)
            if request_id in live.names or (direct is not None and direct.request.id == request_id):
                self._room.turns.stop("stopped")
                return
        request = next((item for item in self._requests if item.id == request_id), None)
        question = self._room.transcript.find(request.question_id) if request is not None else None
        if question is not None and question.status == "waiting":
            self._room.turns.skip(question)
            self._end_skipped("aborted")
            self._room.turns.begin_next()

    def show_cleared(self) -> None:
        """The client that is acted for has removed all messages."""
        self._list_due = False
        others = tuple(item for item in self._peers if item is not self._sender)
        self._show(self._send, others, CLEARED)

    def show_conversation(self, connection: Connection, *, connect: bool = False) -> None:
        """Tell one client the conversation; ``connect``: it has just come, and keeps what it has yet to send."""
        self.peer(connection).fresh = False
        connection.send_frame(self._conversation.frame(connect=connect))

    # --- the handshake of a client that comes amid an answer

    def probe(self, peer: Peer, probe_id: str | None) -> None:
        """A client asks whether an answer is being made. It gets exactly one answer to that."""
        if self._live is not None:
            self._offer(peer, self._live.answer.request_id, probe_id)
            return
        if self._is_pending(peer):
            peer.parked, peer.probe_id = True, probe_id
            peer.connection.send_frame(pending_frame(probe_id))
            return
        if peer.fresh:
            # What was said since it loaded the conversation, or while it was away.
            self.show_conversation(peer.connection, connect=True)
        last = self._room.transcript.last()
        if last is not None and last.status == "failed":
            remember(self._recent, last.id, last.id)
            self._offer(peer, last.id, probe_id)
        else:
            peer.connection.send_frame(none_frame(probe_id))

    def acknowledge(self, peer: Peer, request_id: str) -> None:
        """A client takes an offer: it gets the answer from its start, then what follows or how it has ended."""
        live, answer = self._live, Answer(request_id)
        peer.offered = False
        self._followers = None
        if live is not None and live.answer.request_id == request_id:
            live.taken.add(peer)
            self._send_replay(peer.connection, answer, live.turn.answer.id, replay=True)
            peer.connection.send_frame(answer.replay_complete())
            return
        stored = self._room.transcript.find(self._recent.get(request_id, ""))
        if stored is None:
            peer.connection.send_frame(answer.done("completed", replay=True))
            return
        if stored.status != "failed":  # older clients drop what they are replayed when an error follows
            self._send_replay(peer.connection, answer, stored.id, replay=True)
        self._send_end(peer.connection, answer, stored, replay=True)
        self._settle(peer.connection)

    def _offer(self, peer: Peer, request_id: str, probe_id: str | None) -> None:
        """Offer an answer. The client gets no live chunks of it until it takes the offer: it has begun anew.

        (Where its question has crossed with an offer, it takes the two as one, and after this.)

        A later leg must not be begun anew: there are clients that would say again what they show of the answer. So
        it is offered beside their question, which is answered with "none". Those that have taken it go on.
        """
        live = self._live
        if live is None or live.turn.leg == 1:
            peer.offered = True
            peer.connection.send_frame(resuming_frame(request_id, probe_id))
        else:
            peer.connection.send_frame(none_frame(probe_id, continuation=True))
            if not peer.offered:
                peer.offered = peer not in live.taken
                peer.connection.send_frame(resuming_frame(request_id))
        peer.parked, peer.expects = False, None
        self._followers = None

    def _is_pending(self, peer: Peer) -> bool:
        """Whether an answer that the client waits for will begin, or go on."""
        transcript = self._room.transcript
        if transcript.newest_waiting() is not None or transcript.streaming():
            return True
        expected = transcript.find(peer.expects) if peer.expects is not None else None
        return expected is not None and expected.status == "waiting"

    def _release(self) -> None:
        """Nothing is being said any more: clients that wait in vain are told so."""
        if self._live is None:
            for peer in [item for item in self._peers.values() if item.parked and not self._is_pending(item)]:
                peer.parked = False
                peer.connection.send_frame(none_frame(peer.probe_id))

    # --- what is shown of a leg

    def _begin(self, turn: Turn) -> None:
        self._send_list()
        live = self._show_leg(turn)
        # What comes next is the end of something that these clients may show otherwise, or not at all.
        continues = turn.leg > 1 or turn.position > 1
        for peer in self._peers.values():
            if (peer.parked or continues) and peer.connection not in live.direct:
                self._offer(peer, live.answer.request_id, peer.probe_id)
        self._end_skipped("skipped")

    def _show_leg(self, turn: Turn) -> Live:
        """The leg is what is shown from now on."""
        asked = self._take_requests(turn)
        name = turn.answer.id
        message_ids: tuple[str, ...] = (turn.question.id,)
        if turn.leg > 1:
            name = f"{turn.answer.id}.{turn.leg}"
        elif asked:
            first = asked.pop(0)
            name, message_ids = first.id, first.message_ids or message_ids
            # Clients that come back after a restart know the answer by it.
            self._room.storage.put(_REQUEST_KEY, [turn.answer.id, name])
        else:
            answer_id, request_id = self._room.storage.get(_REQUEST_KEY, ["", ""])
            name = request_id if answer_id == turn.answer.id else name
        replay = self._room.replay(turn.answer.id)
        live = Live(turn, Answer(name), message_ids, len(replay.prefix) if replay is not None else 0)
        for request in asked:
            if not request.connection.closed:
                live.direct[request.connection] = Direct(request, live.skip if request.whole else 0)
        self._live, self._followers = live, None
        remember(self._recent, name, turn.answer.id)
        return live

    def _take_requests(self, turn: Turn) -> list[Request]:
        """The requests that asked for the leg, one a client: its newest; those before it end."""
        key = (turn.answer.id, turn.leg)
        newest: dict[Connection, Request] = {}
        for request in [item for item in self._requests if (item.answer_id, item.leg) == key]:
            self._requests.remove(request)
            if (before := newest.get(request.connection)) is not None:
                request.connection.send_frame(Answer(before.id).done("skipped", before.message_ids))
            newest[request.connection] = request
        return list(newest.values())

    def _send_chunk(self, position: int, data: bytes) -> None:
        live = self._live
        if live is None:
            return
        self._send_list()
        for shown in for_target((data,), self._room.target):
            followers = self._following()
            if followers and position >= live.skip:
                self._send(followers, live.answer.chunk(shown, live.earlier + position - live.skip))
            for connection, direct in live.direct.items():
                if position >= direct.skip:
                    connection.send_frame(direct.answer.chunk(shown, position))

    def _end(self, outcome: Outcome, error: str | None) -> None:
        live, followers = self._live, self._following()
        self._live, self._followers = None, None
        if live is not None:
            audiences = [(followers, live.answer, live.message_ids)]
            for connection, direct in live.direct.items():
                audiences.append(((connection,), direct.answer, direct.request.message_ids))
            for audience, answer, message_ids in audiences:
                if outcome == "failed":
                    self._send(audience, answer.failed(error or "the answer failed", message_ids))
                else:
                    self._send(audience, answer.done(_ENDS[outcome], message_ids))
            self._settle(*self._peers)
        self._end_skipped("skipped")
        asyncio.get_running_loop().call_soon(self._release)

    def _end_skipped(self, outcome: TurnEnd) -> None:
        """End the requests whose questions are not answered: others took their place, or they were removed."""
        transcript = self._room.transcript
        for request in list(self._requests):
            question, answer = transcript.find(request.question_id), transcript.find(request.answer_id)
            waits = question is not None and question.status == "waiting"
            if not waits and (answer is None or answer.status != "streaming"):
                self._requests.remove(request)
                request.connection.send_frame(Answer(request.id).done(outcome, request.message_ids))

    # --- frames

    def _following(self) -> tuple[Connection, ...]:
        """The clients that get the live chunks under the id that all know."""
        if self._followers is None:
            direct = self._live.direct if self._live is not None else {}
            self._followers = tuple(
                peer.connection for peer in self._peers.values() if not peer.offered and peer.connection not in direct
            )
        return self._followers

    def _send(self, audience: tuple[Connection, ...], frame: bytes) -> None:
        if audience:
            context = self._room.context
            context.after_durable(context.runtime.fan_out, audience, frame, True)

    def _chunks(self, answer_id: str) -> Iterator[tuple[int, bytes]]:
        """All that was said of an answer, numbered; pieces of one text are joined."""
        replay = self._room.replay(answer_id)
        if replay is None:
            return
        chunks = list(replay.prefix)
        stream = self._room.streams.find(replay.stream) if replay.stream is not None else None
        if stream is not None:
            chunks += list(stream.entries())[replay.skip :]
        for number, data in join_deltas(chunks):
            if not data.startswith(_HOW_IT_ENDED):
                for shown in for_target((data,), self._room.target):
                    yield number, shown

    def _send_replay(self, connection: Connection, answer: Answer, answer_id: str, *, replay: bool) -> None:
        for number, data in self._chunks(answer_id):
            connection.send_frame(answer.replayed(data, number) if replay else answer.chunk(data, number))

    def _send_end(self, connection: Connection, answer: Answer, stored: StoredMessage, *, replay: bool) -> None:
        message_ids = (stored.answers,) if stored.answers else ()
        if stored.status == "failed":
            connection.send_frame(answer.failed(stored.error or "the answer failed", message_ids))
        else:
            outcome: TurnEnd = "aborted" if stored.status == "aborted" else "completed"
            connection.send_frame(answer.done(outcome, message_ids, replay=replay))

    def _send_updated(self, stored: StoredMessage) -> None:
        self._send_list()
        self._send(tuple(self._peers), updated_frame(stored.message))

    # --- the conversation

    def _change_list(self) -> None:
        """The conversation is another: it is sent once for all changes that come together, before what follows."""
        # Whoever did it shows it already; but what a client was told when it came may have crossed with the first
        # thing that it says.
        sender = self._peers.get(self._sender) if self._sender is not None else None
        without = self._sender if sender is not None and sender.asked else None
        if not self._list_due:
            self._list_due, self._list_without = True, without
            asyncio.get_running_loop().call_soon(self._send_list)
        elif self._list_without is not without:
            self._list_without = None

    def _send_list(self) -> None:
        if self._list_due:
            self._list_due = False
            audience = tuple(item for item in self._peers if item is not self._list_without)
            if audience:
                self._send(audience, self._conversation.frame())

    def _settle(self, *connections: Connection) -> None:
        """Tell these clients, in a moment, the answer as it is kept: some have missed of it, or looked away.

        Not at once: they show a message that comes whole before they have taken in its chunks.
        """
        self._unsettled.update(connections)
        if self._settling is None:
            self._settling = self._room.background(self._send_settled(), name="settle")

    async def _send_settled(self) -> None:
        await asyncio.sleep(SETTLE_MS / 1000)
        self._settling = None
        audience = tuple(item for item in self._peers if item in self._unsettled)
        self._unsettled.clear()
        if audience:
            self._send(audience, self._conversation.frame())
