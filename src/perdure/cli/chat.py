"""`perdure chat`: talk in a room from the terminal."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import threading
from typing import Annotated, Any
from urllib.parse import quote, urlsplit, urlunsplit

import typer

from ..client import (
    Added,
    ClientEvent,
    Connected,
    Disconnected,
    Grew,
    Here,
    Joined,
    Message,
    PartChanged,
    Refused,
    Removed,
    Replaced,
    RoomClient,
    Settled,
    Wait,
    Waiting,
)
from ..errors import ConfigError, ModelError
from ..wire.plain_text import part_note, wait_sentence
from .demo import ROOM
from .exits import Exit

SERVER = "http://127.0.0.1:8000"

HISTORY_MESSAGES = 20
"""Messages shown on entering."""

PROMPT = "› "
DIM, BOLD, RED, PLAIN = "\x1b[2m", "\x1b[1m", "\x1b[31m", "\x1b[0m"


def chat(
    room: Annotated[str, typer.Argument(metavar="URL|ROOM", help="A room's name or address.")] = ROOM,
    user: Annotated[str | None, typer.Option(help="The name that your messages carry.")] = None,
    server: Annotated[str, typer.Option(help="The server, when only a name is given.")] = SERVER,
) -> None:
    """Talk in a room. Ctrl-C stops a running answer; again, or when nothing runs, it leaves.

    When a tool needs your approval, answer y or n; when it needs a result of yours, type it.

    In a pipe the input is one message, and its answer is the output: `echo hi | perdure chat general`.
    """
    url = room_url(room, server)
    piped = not sys.stdin.isatty()
    raise typer.Exit(asyncio.run(_ask(url, user, sys.stdin.read()) if piped else _talk(url, user)))


def room_url(room: str, server: str) -> str:
    """The WebSocket address of a room that is given by name, by page or by address.

    Raises:
        ConfigError: it is no address.
    """
    if "://" not in room:
        if not room.strip():
            raise ConfigError("a room needs a name, like `perdure chat general`")
        room = f"{server.rstrip('/')}/ws/{quote(room, safe='')}"
    pieces = urlsplit(room)
    scheme = {"http": "ws", "https": "wss"}.get(pieces.scheme, pieces.scheme)
    if scheme not in ("ws", "wss") or not pieces.hostname:
        raise ConfigError(f"{room!r} is no room's address, like {SERVER}/chat/{ROOM}")
    path = pieces.path.rstrip("/") or f"/ws/{ROOM}"
    before, page, name = path.rpartition("/chat/")
    if page:
        path = f"{before}/ws/{name}"
    return urlunsplit((scheme, pieces.netloc, path, pieces.query, ""))


# --- one question


async def _ask(url: str, user: str | None, text: str) -> int:
    """Say ``text``, print its answer, and leave."""
    if not text.strip():
        raise ConfigError("there is nothing to say: the input is empty")
    async with RoomClient(url, user=user, limit=1) as client:
        message_id = await client.say(text.rstrip("\n"))
        answer_id: str | None = None
        async for event in client:
            if isinstance(event, Added) and event.message.answers == message_id:
                answer_id = event.message.id
                _write(event.message.content)
            elif isinstance(event, Grew) and event.message_id == answer_id:
                _write(event.text)
            elif isinstance(event, Refused) and not event.retryable:
                raise ConfigError(event.message)
            # An answer that was whole when we first saw it is never "settled" by an event of its own.
            answer = next((item for item in client.messages if item.id == answer_id), None)
            if answer is not None and answer.status == "waiting":
                _write("\n")
                raise ModelError(
                    f"the answer waits: {wait_sentence(answer.waits[0])}" if answer.waits else "it waits"
                )
            if answer is not None and answer.status != "streaming":
                _write("\n")
                if answer.status == "failed":
                    raise ModelError(answer.error or "the answer failed")
                return Exit.DONE
    return Exit.FAILED


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


# --- a conversation


async def _talk(url: str, user: str | None) -> int:
    """Show the room and say what is typed, until the end of the input or Ctrl-C."""
    loop = asyncio.get_running_loop()
    async with RoomClient(url, user=user, limit=HISTORY_MESSAGES, parts=True, presence=True) as client:
        screen = _Screen(client)
        leaving = asyncio.Event()
        interrupts = _Interrupts(client, leaving)
        loop.add_signal_handler(signal.SIGINT, interrupts.on_interrupt)
        lines: asyncio.Queue[str | None] = asyncio.Queue()
        threading.Thread(target=_read_lines, args=(loop, lines), daemon=True).start()
        tasks = [
            asyncio.create_task(screen.run()),
            asyncio.create_task(_say_lines(client, lines, leaving)),
            asyncio.create_task(leaving.wait()),
        ]
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
    _write("\n")
    return Exit.DONE


class _Interrupts:
    """Ctrl-C: first the answer, then the door."""

    def __init__(self, client: RoomClient, leaving: asyncio.Event) -> None:
        self._client = client
        self._leaving = leaving
        self._stopping: asyncio.Task[None] | None = None
        self._stopped: str | None = None

    def on_interrupt(self) -> None:
        answer = self._client.streaming
        if answer is None or answer.id == self._stopped:
            self._leaving.set()
            return
        self._stopped = answer.id
        self._stopping = asyncio.get_running_loop().create_task(self._client.stop())


def _read_lines(loop: asyncio.AbstractEventLoop, lines: asyncio.Queue[str | None]) -> None:
    """In a thread of its own: a terminal has no other way to be read that leaves it as it was."""
    try:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        loop.call_soon_threadsafe(lines.put_nowait, None)
    except RuntimeError:
        """The loop has ended, and this thread with the process."""


async def _say_lines(client: RoomClient, lines: asyncio.Queue[str | None], leaving: asyncio.Event) -> None:
    while (line := await lines.get()) is not None:
        if not line.strip():
            _write(PROMPT)
        elif client.waits and client.streaming is None:
            await _respond(client, client.waits[0], line.strip())
        else:
            await client.say(line.rstrip("\n"))
    leaving.set()


async def _respond(client: RoomClient, wait: Wait, line: str) -> None:
    """What was typed answers what the room waits for; anything but y or n is said, as ever."""
    if wait.kind == "result":
        await client.give_result(wait.id, _value(line))
    elif line.lower() in ("y", "yes"):
        await client.approve(wait.id)
    elif line.lower() in ("n", "no"):
        await client.approve(wait.id, False)
    else:
        await client.say(line)


def _value(line: str) -> object:
    """JSON where it is some, else text."""
    try:
        return json.loads(line)
    except ValueError:
        return line


class _Screen:
    """Writes a room's events as lines. What is typed is on the screen already."""

    def __init__(self, client: RoomClient) -> None:
        self._client = client
        self._colours = sys.stdout.isatty()
        self._growing: str | None = None
        self._here = ""
        self._tools: dict[str, str] = {}

    async def run(self) -> None:
        async for event in self._client:
            self._show(event)

    def _style(self, style: str, text: str) -> str:
        return f"{style}{text}{PLAIN}" if self._colours else text

    def _note(self, text: str, style: str = DIM) -> None:
        if self._growing is not None:
            _write("\n")
            self._growing = None
        _write(f"\r{self._style(style, text)}\n")

    def _show(self, event: ClientEvent) -> None:
        if isinstance(event, Joined):
            if event.more:
                self._note("(there are older messages)")
            for message in event.messages:
                self._message(message)
            self._note("Say something; Ctrl-C stops an answer, or leaves.")
            self._prompt()
        elif isinstance(event, Added):
            self._message(event.message)
        elif isinstance(event, Grew):
            self._grow(event.message_id, event.text)
        elif isinstance(event, Replaced):
            self._message(event.message)
        elif isinstance(event, PartChanged):
            self._part(event.part)
        elif isinstance(event, Waiting):
            self._waiting(event.message)
        elif isinstance(event, Settled):
            self._settled(event.message)
        elif isinstance(event, Here):
            self._show_here(event)
        elif isinstance(event, Removed):
            self._note("(the last answer was taken back)")
        elif isinstance(event, Refused):
            self._note(event.message, RED)
            self._prompt()
        elif isinstance(event, Disconnected):
            self._note(f"(no connection: {event.reason}; trying again)")
        elif isinstance(event, Connected):
            self._note("(connected again)")

    def _message(self, message: Message) -> None:
        if message.role == "assistant":
            _write("\r" + self._style(BOLD, f"{message.user or 'answer'}: "))
            _write(message.content)
            self._growing = message.id
            for part in message.parts:
                self._part(part)
            if message.status == "waiting":
                self._waiting(message)
            elif message.status != "streaming":
                self._settled(message)
        elif not self._client.is_own(message.id):
            self._note(f"{message.user or message.role}: {message.content}", BOLD)

    def _grow(self, message_id: str, text: str) -> None:
        if self._growing != message_id:  # a note came between
            _write("… ")
            self._growing = message_id
        _write(text)

    def _part(self, part: dict[str, Any]) -> None:
        """Calls of tools and what came of them, one line each; where sources and files are."""
        note = part_note(part)
        if note is None:
            return
        if "toolCallId" in part:
            if self._tools.get(part["toolCallId"]) == note:
                return
            self._tools[part["toolCallId"]] = note
        self._note(note, RED if part.get("state") == "output-error" else DIM)

    def _waiting(self, message: Message) -> None:
        for wait in message.waits[:1]:
            self._note(f"{wait_sentence(wait)}.", BOLD)
            _write("Allow it? [y/n] " if wait.kind == "approval" else "Its result: ")

    def _show_here(self, here: Here) -> None:
        """Who is here, when that changes and there is someone else."""
        names = [person.user for person in here.people]
        unnamed = here.guests + here.more
        if unnamed:
            names.append(f"{unnamed} more" if names else f"{unnamed} without a name")
        shown = ", ".join(names)
        alone = len(here.people) + unnamed < 2
        if shown != self._here and not (alone and not self._here):
            self._note(f"(here: {shown})")
            self._here = "" if alone else shown
            if self._client.streaming is None and not self._client.waits:
                self._prompt()

    def _settled(self, message: Message) -> None:
        ends = {"aborted": "(stopped)", "failed": f"(failed: {message.error or 'no reason given'})"}
        end = ends.get(message.status or "")
        _write((" " + self._style(DIM, end) if end else "") + "\n")
        self._growing = None
        if self._client.streaming is None:
            self._prompt()

    def _prompt(self) -> None:
        _write(PROMPT)
