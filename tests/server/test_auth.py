"""The door: who may come in (`authenticate`) and from which sites (origins), on every surface."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse
from tests.chat.rooms import Echo
from tests.running import HURRIED, serving
from tests.server.clients import Room, http, room, user_turn
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from perdure import App, DurableObject, User, callable
from perdure.server.auth import is_loopback

pytestmark = pytest.mark.anyio

UNAUTHENTICATED = {"error": {"code": "unauthenticated", "message": "sign in to use this", "retryable": False}}
FORBIDDEN = {"error": {"code": "forbidden", "message": "you may not enter this room", "retryable": False}}
USERS = {"ann": User("Ann", rooms=["team-*", "ann"]), "root": User("Root"), "nameless": User()}
ANN, ROOT = {"authorization": "ann"}, {"authorization": "root"}


async def by_header(connection: HTTPConnection) -> User | None:
    """The user whom the ``authorization`` header names."""
    return USERS.get(connection.headers.get("authorization", ""))


class Note(DurableObject):
    """Answers everything."""

    @callable
    async def read(self) -> str:
        return self.name

    async def on_request(self, request: Any) -> Any:
        return PlainTextResponse(f"note {self.name}")


@pytest.fixture(scope="module")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """A server that asks everyone who they are."""
    app = App(
        [Echo, Note],
        data=tmp_path_factory.mktemp("data"),
        limits=HURRIED,
        authenticate=by_header,
        origins=["https://friend.example/"],
    )
    async with serving(app) as at:
        yield at


@pytest.fixture(scope="module")
async def client(address: str) -> AsyncIterator[httpx2.AsyncClient]:
    """An HTTP client of that server."""
    async with http(address) as client:
        yield client


async def _every_request(
    client: httpx2.AsyncClient, name: str, headers: dict[str, str]
) -> dict[str, httpx2.Response]:
    """The answers of all HTTP surfaces of a room (and an object) of that name."""
    requests: dict[str, Any] = {
        "POST /api/chat": user_turn("Hi", chat_id=name),
        f"GET /api/chat/{name}/stream": None,
        f"GET /api/chat/{name}/messages": None,
        f"POST /api/chat/{name}/stop": {},
        f"POST /rpc/Echo/{name}/messages": [],
        f"POST /rpc/Note/{name}/read": [],
        f"GET /objects/Note/{name}": None,
        f"PUT /objects/Note/{name}/more": {},
        f"GET /chat/{name}": None,
        f"GET /chat/{name}/messages": None,
    }
    answers = {}
    for line, body in requests.items():
        method, path = line.split()
        answers[line] = await client.request(method, path, json=body, headers=headers)
    return answers


async def _refusal(address: str, path: str, **options: Any) -> tuple[dict[str, Any], int | None]:
    """What a socket that is refused is told, and its close code."""
    async with room(address, path, **options) as client:
        told = await client.next()
        with pytest.raises(ConnectionClosedError) as caught:
            await client.next()
        return told, caught.value.rcvd.code if caught.value.rcvd else None


async def test_strangers_are_refused_everywhere(address: str, client: httpx2.AsyncClient) -> None:
    """401 in the common error shape on every HTTP surface; the pages of the index, too; and nothing is made."""
    for line, response in (await _every_request(client, "team-1", {})).items():
        assert (response.status_code, response.json()) == (401, UNAUTHENTICATED), line
    assert (await client.get("/")).status_code == 401
    assert (await client.get("/api/chat/team-1/messages", headers=ROOT)).json() == []


async def test_strangers_are_not_read(client: httpx2.AsyncClient) -> None:
    """Refused before the body: one that is too large, or no JSON at all, does not matter."""
    for path in ("/api/chat", "/rpc/Note/team-1/read"):
        assert (await client.post(path, content=b"{" * 100_000)).json() == UNAUTHENTICATED


async def test_a_browser_gets_its_refusal_as_a_page(client: httpx2.AsyncClient) -> None:
    """With the same status."""
    response = await client.get("/chat/team-1", headers={"accept": "text/html"})
    assert (response.status_code, response.headers["content-type"]) == (401, "text/html; charset=utf-8")
    assert "sign in to use this" in response.text


@pytest.mark.parametrize("path", ["/ws/team-1", "/objects/Note/team-1"])
async def test_strangers_sockets_are_told_and_closed(address: str, path: str) -> None:
    """An error frame and close code 1008, which clients take as final."""
    told, code = await _refusal(address, path)
    assert told == {"type": "error", "code": "unauthenticated", "message": "sign in to use this", "retryable": False}
    assert code == 1008


async def test_users_have_their_rooms(client: httpx2.AsyncClient) -> None:
    """Patterns and names; everything else is 403, also where the room's name is in the body."""
    for name in ("team-1", "ann"):
        for line, response in (await _every_request(client, name, ANN)).items():
            assert response.status_code in (200, 204), line
    for line, response in (await _every_request(client, "ben", ANN)).items():
        assert (response.status_code, response.json()) == (403, FORBIDDEN), line
    for line, response in (await _every_request(client, "ben", ROOT)).items():
        assert response.status_code in (200, 204), line


async def test_users_see_their_rooms_only(client: httpx2.AsyncClient) -> None:
    """The index lists no others."""
    for name in ("team-2", "secret"):
        await client.post("/api/chat", json=user_turn("Hi", chat_id=name), headers=ROOT)
    assert "team-2" in (await client.get("/", headers=ANN)).text
    assert "secret" not in (await client.get("/", headers=ANN)).text
    assert "secret" in (await client.get("/", headers=ROOT)).text


@pytest.mark.parametrize("path", ["/ws/ben", "/objects/Note/ben", "/objects/Echo/ben"])
async def test_sockets_to_other_rooms_are_told_and_closed(address: str, path: str) -> None:
    """As strangers' are, with their own code."""
    told, code = await _refusal(address, path, additional_headers=ANN)
    assert told == {
        "type": "error",
        "code": "forbidden",
        "message": "you may not enter this room",
        "retryable": False,
    }
    assert code == 1008


async def test_the_authenticated_name_wins_on_every_surface(address: str, client: httpx2.AsyncClient) -> None:
    """Whatever name the client gives itself: in its query, its frame, its message, its call."""
    headers = ANN
    turn = user_turn("by post", chat_id="team-names", message_id="m1")
    turn["messages"][0]["metadata"] = {"user": "Ben", "colour": "red"}
    await client.post("/api/chat", json=turn, headers=headers)
    async with room(address, "/ws/team-names", {"user": "Ben"}, additional_headers=headers) as socket:
        await socket.next("init")
        await socket.say("by frame", user="Ben", id="m2")
        await socket.next("complete")
    for arguments in ({"text": "by call", "user": "Ben", "id": "m3"}, {"text": "by call, too", "id": "m4"}):
        called = await client.post("/rpc/Echo/team-names/submit", json=arguments, headers=headers)
        assert called.status_code == 200
    messages = (await client.get("/api/chat/team-names/messages", headers=headers)).json()
    assert [(message["id"], message["metadata"]) for message in messages if message["role"] == "user"] == [
        ("m1", {"user": "Ann", "colour": "red"}),
        ("m2", {"user": "Ann"}),
        ("m3", {"user": "Ann"}),
        ("m4", {"user": "Ann"}),
    ]


async def test_users_without_a_name_give_their_own(address: str, client: httpx2.AsyncClient) -> None:
    """The hook let them in and said no more."""
    headers = {"authorization": "nameless"}
    called = {"text": "by call", "user": "Ben", "id": "m1"}
    await client.post("/rpc/Echo/nameless/submit", json=called, headers=headers)
    async with room(address, "/ws/nameless", {"user": "Cy"}, additional_headers=headers) as socket:
        assert (await socket.next("init"))["messages"][0]["user"] == "Ben"
        await socket.say("by query", id="m2")
        assert (await socket.next("message"))["message"]["user"] == "Cy"


async def test_health_and_metrics_are_open(client: httpx2.AsyncClient) -> None:
    """For those who run the server: a probe has no user."""
    assert (await client.get("/healthz")).status_code == 200
    assert (await client.get("/metrics")).status_code == 200


async def test_a_plain_function_may_authenticate(tmp_path: Path) -> None:
    """It need not be ``async``."""
    app = App([Echo], data=tmp_path, limits=HURRIED, authenticate=lambda connection: USERS["ann"])
    async with serving(app) as at, http(at) as web:
        assert (await web.get("/api/chat/team-1/messages")).json() == []
        assert (await web.get("/api/chat/ben/messages")).status_code == 403


async def test_a_hook_that_fails_lets_nobody_in(tmp_path: Path) -> None:
    """500 without a word of the reason; no socket."""

    def broken(connection: HTTPConnection) -> User:
        raise LookupError("the users' database at db.internal is gone")

    async with serving(App([Echo], data=tmp_path, limits=HURRIED, authenticate=broken)) as at, http(at) as web:
        answer = await web.get("/api/chat/r/messages")
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "error")
        assert "db.internal" not in answer.text
        with pytest.raises(InvalidStatus, match="HTTP 500"):
            async with room(at, "/ws/r"):
                pass


# --- origins


async def _greeted(client: Room) -> None:
    assert (await client.next())["type"] == "init"


@pytest.mark.parametrize("origin", [None, "own", "https://friend.example"])
async def test_sockets_from_here_and_from_friends_are_taken(address: str, origin: str | None) -> None:
    """A program (which names no origin), a page of our own, a page of a listed site."""
    given = f"http://{address}" if origin == "own" else origin
    async with room(address, "/ws/ann", additional_headers=ANN, origin=given) as client:
        await _greeted(client)


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "http://friend.example",
        "https://friend.example.evil.example",
        "http://127.0.0.1:1",
        "null",
        "http://[",
    ],
)
async def test_sockets_from_elsewhere_are_told_and_closed(address: str, origin: str) -> None:
    """A page elsewhere could otherwise act with its visitor's cookies."""
    told, code = await _refusal(address, "/ws/ann", additional_headers=ANN, origin=origin)
    message = f"pages of {origin} may not connect; list it in App(origins=[...])"
    assert told == {"type": "error", "code": "forbidden", "message": message, "retryable": False}
    assert code == 1008


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/ann/stop", "/rpc/Note/ann/read", "/objects/Note/ann"])
async def test_posts_from_elsewhere_are_refused(address: str, client: httpx2.AsyncClient, path: str) -> None:
    """They would change something; reads are the browser's to refuse, as no header lets the page see them."""
    body = user_turn("Hi", chat_id="ann") if path == "/api/chat" else []
    for origin in ("https://evil.example", "http://["):
        response = await client.post(path, json=body, headers={**ANN, "origin": origin})
        assert (response.status_code, response.json()["error"]["code"]) == (403, "forbidden")
    for origin in (f"http://{address}", "https://friend.example"):
        response = await client.post(path, json=body, headers={**ANN, "origin": origin})
        assert response.status_code == 200
    read = await client.get("/api/chat/ann/messages", headers={**ANN, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in read.headers


async def test_a_listed_site_may_read_what_it_needs(client: httpx2.AsyncClient) -> None:
    """The browser's question before a post, and the headers that ``useChat`` must see."""
    ask = {"origin": "https://friend.example", "access-control-request-method": "POST"}
    ask["access-control-request-headers"] = "content-type,authorization"
    response = await client.options("/api/chat", headers=ask)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == "https://friend.example"
    assert "POST" in response.headers["access-control-allow-methods"]
    response = await client.get("/api/chat/ann/messages", headers={**ANN, "origin": "https://friend.example"})
    assert response.headers["access-control-allow-origin"] == "https://friend.example"
    assert response.headers["access-control-allow-credentials"] == "true"
    assert "x-vercel-ai-ui-message-stream" in response.headers["access-control-expose-headers"]


async def test_a_star_lets_every_site_in(tmp_path: Path) -> None:
    """For a public room: without credentials, as a browser demands."""
    async with serving(App([Echo], data=tmp_path, limits=HURRIED, origins=["*"])) as at, http(at) as web:
        async with room(at, "/ws/r", origin="https://evil.example") as client:
            await _greeted(client)
        answer = await web.get("/api/chat/r/messages", headers={"origin": "https://evil.example"})
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize(
    ("host", "ours_alone"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("", False),
        ("localhost.example.com", False),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, ours_alone: bool) -> None:
    """Elsewhere an app without `authenticate` is not served."""
    assert is_loopback(host) is ours_alone
