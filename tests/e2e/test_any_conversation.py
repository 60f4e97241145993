"""A random conversation: turns, tools, approvals, stops, edits and kills, through clients of all families at once.

In the end every client shows the same, those that stayed and those that come then, and it is what is stored.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from random import Random

import pytest
from tests.e2e import tanstack
from tests.e2e.any_clients import Agents, Family, Plain, Session, UseChat, by_role, lines, owed
from tests.e2e.cloudflare import Cloudflare
from tests.e2e.conftest import run_served
from tests.e2e.served import Served
from tests.e2e.use_chat import NPM, React
from tests.requirements import need

SEEDS = range(3)
ACTIONS = 14
WITHIN_S = 20


@pytest.fixture(scope="module")
def chat_page() -> Iterator[React]:
    """Node with ``useChat`` of ai 7."""
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    need("useChat (npm packages)", (NPM / "node_modules" / "react-ai7").is_dir(), "npm install --prefix tests/npm")
    react = React(7)
    yield react
    react.close()


@pytest.fixture(scope="module")
def agent_page() -> Iterator[Cloudflare]:
    """Node with the newest of Cloudflare's clients."""
    installed = (NPM / "node_modules" / "agents").is_dir()
    need("Cloudflare's clients (npm packages)", installed, "npm install --prefix tests/npm")
    browsers = Cloudflare("newest", 7)
    yield browsers
    browsers.close()


@pytest.fixture(scope="module")
def session_page() -> Iterator[tanstack.TanStackNode]:
    """Node with the newest of TanStack AI's clients."""
    node = tanstack.TanStackNode(tanstack.VERSIONS["newest"])
    yield node
    node.close()


@pytest.fixture(scope="module")
def any_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that is killed now and then."""
    yield from run_served(Served(tmp_path_factory.mktemp("any"), "any_app:app"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("seed", SEEDS)
def test_all_clients_end_with_the_same(
    chat_page: React,
    agent_page: Cloudflare,
    session_page: tanstack.TanStackNode,
    any_server: Served,
    seed: int,
) -> None:
    """Whatever happens, and through whom."""
    chance = Random(seed)
    room = f"any-{seed}"

    def join() -> dict[str, Family]:
        return {
            "useChat": UseChat(chat_page, any_server, room),
            "agents": Agents(agent_page, any_server, room),
            "session": Session(session_page, any_server, room),
            "plain": Plain(any_server, room),
        }

    story: list[str] = []
    families = join()
    newcomers: dict[str, Family] = {}
    try:
        for _ in range(ACTIONS):
            if chance.random() < 0.12:
                any_server.restart_after_kill()
                story.append("kill")
            story.append(families[chance.choice(list(families))].act(chance))
            time.sleep(chance.choice([0, 0.02, 0.1, 0.4]))
        _settle(any_server, room, chance)
        newcomers = join()
        for name, family in [*families.items(), *newcomers.items()]:
            _until_same(any_server, room, family, chance, f"{name} after {story}")
    finally:
        for family in [*families.values(), *newcomers.values()]:
            family.close()


def _settle(server: Served, room: str, chance: Random) -> None:
    """Give all that answers wait for, until nothing is being made."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        assert time.monotonic() < deadline, server.get(f"/api/chat/{room}/messages?limit=1000")
        if not server.call(room, "is_idle")["result"]:
            time.sleep(0.02)
            continue
        waiting = owed(server.get(f"/api/chat/{room}/messages?limit=1000"))
        if not waiting:
            return
        for part in waiting:
            if part["state"] == "approval-requested":
                server.call(room, "approve", part["approval"]["id"], chance.random() < 0.7)
            else:
                server.call(room, "submit_tool_result", part["toolCallId"], "Oslo")


def _until_same(server: Served, room: str, family: Family, chance: Random, who: str) -> None:
    """Until it shows what is stored. A client may still have sent something of its own before that."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        _settle(server, room, chance)
        expected = lines(server.get(f"/api/chat/{room}/messages?limit=1000"))
        shown = family.shown()
        if isinstance(family, Session):
            shown, expected = by_role(shown), by_role(expected)
        if shown == expected:
            return
        missing, more = (
            [line for line in one if line not in other] for one, other in ((expected, shown), (shown, expected))
        )
        assert time.monotonic() < deadline, f"{who} does not show\n{missing}\nbut\n{more}"
        time.sleep(0.05)
