"""A start after the worst end."""

from __future__ import annotations

import asyncio
from pathlib import Path

from ..harness import Case, Server, at_most
from ..load import MESSAGE, Unexpected, close, connect, read_frame

JOURNAL_MIB = 256
"""The default bound of the journal: it holds no more, whatever was written."""
ROOM_COUNT = 50
CONTENT = "x" * 32_768
WRITTEN_MIB_MAX = 2 * JOURNAL_MIB


async def measure(server: Server, seconds: float) -> dict[str, float]:
    clients = [(await connect(server.port, f"r{i}"))[0] for i in range(ROOM_COUNT)]
    written_mib = filled_mib = 0.0
    message_count = 0
    while filled_mib < JOURNAL_MIB and written_mib < WRITTEN_MIB_MAX:
        await asyncio.gather(*(client.ask(CONTENT, MESSAGE) for client in clients))
        message_count += 1
        written_mib += ROOM_COUNT * len(CONTENT) / 2**20
        filled_mib = journal_mib(server)
        for client in clients:
            client.forget()
    server.kill()
    restart_s = server.start()
    client, _ = await connect(server.port, "r0", f"limit={message_count}")
    # The floor has forgotten all.
    if filled_mib and len(read_frame(client.payloads[0]).messages) != message_count:
        raise Unexpected("messages that were seen are gone")
    await close([client])
    return {
        "kill -9 to healthy, s": restart_s,
        "journal, MiB": filled_mib,
        "written, MiB": written_mib,
    }


def journal_mib(server: Server) -> float:
    """The size of the journal's files: they only grow, up to the journal's bound."""
    files = (path for path in Path(server.data).rglob("journal*") if path.is_file())
    return sum(path.stat().st_size for path in files) / 2**20


CASE = Case(
    name="recovery",
    claim=f"The journal is filled to {JOURNAL_MIB} MiB and the server killed with -9: seconds from the start "
    "of the process to 200 on /healthz. Every message that was seen is there again. (The floor's figure is "
    "the start of a bare process.)",
    room="silent",
    measure=measure,
    aims={"kill -9 to healthy, s": at_most(5)},
)
