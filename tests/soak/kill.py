"""Kill the whole server under streaming rooms, again and again, and miss nothing.

    python -m tests.soak.kill --rounds 20 --rooms 50 --seed 1

Each round: new rooms start to stream to clients of every protocol, which record all that they see; at random
moments the server process is ended with ``kill -9`` (or, one time in four, with SIGTERM, and sometimes
while it still recovers) and started again on the same folder; the clients come back by themselves. Then:

- no client ever saw anything that fits not with what it saw before (`views`);
- every turn has settled as complete, without anybody asking for it;
- every answer is, character for character, what the model had to say; every question is there once;
- what each client has put together is what is stored.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from websockets.asyncio.client import connect

from .clients import Client, SocketClient, SseClient, make_client
from .plan import End, RoundPlan, make_plan
from .server import ServerProcess, ServerTrouble
from .views import Violation, check_answer, check_room_view, check_transcript

SETTLE_S_MAX = 90.0
"""How long after the last start all rooms must be done; their scripts speak for 20 s at most."""


@dataclass
class RoundResult:
    """What one round showed."""

    number: int
    ends: str = ""
    clients: int = 0
    connects: int = 0
    resumes: int = 0
    replays: int = 0
    frames: int = 0
    interrupted: int = 0
    seconds: float = 0.0
    violations: list[str] = field(default_factory=list)

    def row(self) -> str:
        """The round's line of the table."""
        result = "ok" if not self.violations else f"{len(self.violations)} violations"
        return (
            f"{self.number:>5}  {self.ends:<28}{self.clients:>8}{self.connects:>9}{self.resumes:>8}"
            f"{self.replays:>8}{self.frames:>9}{self.interrupted:>12}{self.seconds:>9.1f}  {result}"
        )


HEADER = (
    f"{'round':>5}  {'ends':<28}{'clients':>8}{'connects':>9}{'resumes':>8}"
    f"{'replays':>8}{'frames':>9}{'interrupted':>12}{'seconds':>9}  result"
)


async def run_round(plan: RoundPlan, number: int, server: ServerProcess, seed: int) -> RoundResult:
    """One round on a running server."""
    result = RoundResult(number)
    started = time.monotonic()
    log_size = server.log.stat().st_size
    chance = random.Random(f"clients/{seed}/{number}")
    clients: list[Client] = []
    for room in plan.rooms:
        members = [make_client(room, at, server.port, chance) for at in range(len(room.clients))]
        for member in members[1:]:
            member.leader = members[0]
        clients += members
    tasks = [asyncio.create_task(client.run(), name=client.name) for client in clients]
    try:
        for end in plan.ends:
            result.ends += await _end(server, end) + " "
        await server.ready()
        await _settle(tasks, clients, result)
    except ServerTrouble as error:
        result.violations.append(str(error))
        return result
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _check_rooms(plan, clients, server.port, result)
    result.clients = len(clients)
    result.connects = sum(client.connects for client in clients)
    result.frames = sum(client.frames for client in clients)
    result.resumes = sum(client.view.resumes for client in clients if isinstance(client, SocketClient))
    result.replays = sum(max(0, client.view.replays - 1) for client in clients if isinstance(client, SseClient))
    with server.log.open("rb") as log:
        log.seek(log_size)
        result.interrupted = log.read().count(b"turn interrupted")
    result.seconds = time.monotonic() - started
    return result


async def _end(server: ServerProcess, end: End) -> str:
    """Let the server work for a while, end it, start it again."""
    if not end.early:
        await server.ready()
    await asyncio.sleep(end.after_s)
    await server.end(signal.SIGKILL if end.kind == "kill" else signal.SIGTERM)
    server.start()
    return f"{'early ' if end.early else ''}{end.kind}@{end.after_s:.1f}"


async def _settle(tasks: list[asyncio.Task[None]], clients: list[Client], result: RoundResult) -> None:
    """Wait until every client has seen every answer."""
    done, pending = await asyncio.wait(tasks, timeout=SETTLE_S_MAX)
    for task in done:
        if (error := task.exception()) is not None:
            if not isinstance(error, Violation):
                raise error
            result.violations.append(str(error))
    waiting = {task.get_name() for task in pending}
    result.violations += [f"{client.name}: never saw its room settle" for client in clients if client.name in waiting]


async def _check_rooms(plan: RoundPlan, clients: list[Client], port: int, result: RoundResult) -> None:
    """Hold what is stored in the end against the plan and against what each client saw."""
    for room in plan.rooms:
        shown = await _messages(room.name, port)
        try:
            check_transcript(
                room.name, shown, [(order.message_id, order.content, order.answer) for order in room.orders]
            )
        except Violation as error:
            result.violations.append(str(error))
        for client in clients:
            if client.room is not room or not client.done:
                continue
            try:
                if isinstance(client, SocketClient):
                    check_room_view(client.view, shown)
                elif isinstance(client, SseClient):
                    check_answer(client.view, shown)
            except Violation as error:
                result.violations.append(str(error))


async def _messages(room: str, port: int) -> list[dict[str, Any]]:
    """The room's messages as a new client is shown them."""
    address = f"ws://127.0.0.1:{port}/ws/{quote(room)}"
    async with connect(address, max_size=None, compression=None, close_timeout=1) as socket:
        messages: list[dict[str, Any]] = json.loads(await socket.recv())["messages"]
        return messages


async def run(rounds: int, rooms: int, seed: int, folder: Path) -> list[RoundResult]:
    """All rounds on one data folder; stops after a round with violations."""
    server = ServerProcess(folder / "data")
    results: list[RoundResult] = []
    server.start()
    try:
        for number in range(1, rounds + 1):
            await server.ready()
            results.append(await run_round(make_plan(seed, number, rooms), number, server, seed))
            print(results[-1].row(), flush=True)
            if results[-1].violations:
                break
    finally:
        server.kill()
    return results


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--rooms", type=int, default=50)
    parser.add_argument("--seed", type=int, default=None, help="default: a new one, which is printed")
    parser.add_argument("--data", type=Path, default=None, help="default: a new folder, removed after success")
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1_000_000)
    folder = arguments.data or Path(tempfile.mkdtemp(prefix="perdure-soak-"))
    folder.mkdir(parents=True, exist_ok=True)
    print(f"seed {seed}, {arguments.rooms} rooms a round\n{HEADER}", flush=True)
    results = asyncio.run(run(arguments.rounds, arguments.rooms, seed, folder))
    violations = [violation for result in results for violation in result.violations]
    if violations:
        print(*violations[:20], sep="\n")
        again = f"--rounds {arguments.rounds} --rooms {arguments.rooms} --seed {seed}"
        print(f"FAILED with {again}; everything is in {folder}")
        return 1
    interrupted = sum(result.interrupted for result in results)
    print(f"{len(results)} rounds, {interrupted} interrupted turns: nothing missing or doubled, every turn settled")
    if arguments.data is None:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
