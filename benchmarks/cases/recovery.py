"""A start after the worst end."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

from ..harness import Case, Server, at_least, at_most
from ..load import MESSAGE, Unexpected, close, connect, percentile, read_frame

JOURNAL_MIB = 256
"""The default bound of the journal's live records."""
FULL_MIB = 0.97 * JOURNAL_MIB
"""Where the filling stops. Checkpoints, which would shrink it from the half on, are held back."""
ROOM_COUNT = 200
"""So many that no single room is checkpointed for its own log's length."""
ROUNDS_MAX = 300
CONTENT = "x" * 8_192


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    rounds, filled_mib = 0, 0.0
    while rounds < ROUNDS_MAX:
        await asyncio.gather(*(client.ask(CONTENT, MESSAGE) for client in clients))
        rounds += 1
        filled_mib = journal_mib(server)
        if filled_mib == 0 or filled_mib >= FULL_MIB:
            break
        for client in clients:
            client.forget()
    server.kill()
    restart_s = server.start()
    figures = {"kill -9 to healthy, s": restart_s, "live journal, MiB": filled_mib}
    if filled_mib:  # the floor has forgotten all
        visits_ms = await visit(server, rounds)
        figures |= {
            "first visit p50, ms": percentile(visits_ms, 50),
            "first visit p99, ms": percentile(visits_ms, 99),
        }
    return figures


async def visit(server: Server, message_count: int) -> list[float]:
    """Enter every room again; returns the times from connect to init, with all messages in it."""
    times_ms = []
    for room in range(ROOM_COUNT):
        client, elapsed_s = await connect(server.port, f"r{room}", f"limit={message_count}")
        times_ms.append(elapsed_s * 1000)
        if len(read_frame(client.payloads[0]).messages) != message_count:
            raise Unexpected("messages that were seen are gone")
        await close([client])
    return times_ms


def journal_mib(server: Server) -> float:
    """The live records of the journal; 0 where there is none. Reads it beside the running server."""
    path = Path(server.data, "journal.sqlite")
    if not path.exists():
        return 0
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return float(connection.execute("SELECT total(length(record)) FROM journal").fetchone()[0]) / 2**20
    finally:
        connection.close()


CASE = Case(
    name="recovery",
    claim=f"The journal is filled to its bound, {JOURNAL_MIB} MiB of {ROOM_COUNT} rooms' commits, and the server "
    "killed with -9: seconds from the start of the process to 200 on /healthz. Every message that was seen is "
    "there again; a visit is the first connect to each room afterwards. (The floor only starts a process.)",
    room="full",
    measure=measure,
    aims={"kill -9 to healthy, s": at_most(5), "live journal, MiB": at_least(FULL_MIB)},
)
