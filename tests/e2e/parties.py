"""Pages of durable-chat: PartySockets, and what such a page shows of the frames."""

from __future__ import annotations

import json
from typing import Any

from tests.e2e.cloudflare import Cloudflare, Shown, Tab
from tests.e2e.served import Served


def open_party(cloudflare: Cloudflare, server: Served, room: str) -> Tab:
    """A PartySocket, as durable-chat's page makes it."""
    tab = cloudflare.open("party", server.url, "", room, party="chat")
    tab.until(lambda shown: shown.told("message"))
    return tab


def say(party: Tab, message_id: str, content: str, *, kind: str = "add") -> None:
    """Ada says something, or (``update``) something else."""
    send(party, type=kind, id=message_id, content=content, user="Ada", role="user")


def send(party: Tab, **frame: Any) -> None:
    """One frame."""
    party.do("raw", data=json.dumps(frame))


def messages(shown: Shown) -> list[dict[str, Any]]:
    """The messages as the page has them: the last frame that told each."""
    found: dict[str, dict[str, Any]] = {}
    for [data] in shown.told("message"):
        frame: dict[str, Any] = json.loads(data)
        if frame["type"] == "all":
            found = {item["id"]: item for item in frame["messages"]}
        else:
            found[frame["id"]] = frame
    return list(found.values())


def texts(shown: Shown) -> list[tuple[str, str]]:
    """What the page shows: names and contents."""
    return [(item["user"], item["content"]) for item in messages(shown)]


def newest(shown: Shown) -> tuple[str, str]:
    """The newest message."""
    return (texts(shown) or [("", "")])[-1]


def waits(shown: Shown) -> list[dict[str, Any]]:
    """What the newest message waits for."""
    found: list[dict[str, Any]] = (messages(shown) or [{}])[-1].get("waits", [])
    return found
