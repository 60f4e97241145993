"""Who may do what with a stream: the application's hook, signed URLs, users with rooms of their own."""

from __future__ import annotations

import time
from pathlib import Path

import httpx2
import pytest
from starlette.requests import HTTPConnection
from tests.chat.rooms import Echo
from tests.server.clients import user_turn

from perdure import App, User
from perdure.server.streams.access import ACTIONS, Action, UrlSigner

from .servers import StreamClient, Way, serving_streams, stream_app

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def way() -> Way:
    """Where not everyone may do everything, nothing may go past the door."""
    return "accelerated"


FORBIDDEN_TOKEN = "the URL's token is not for this, or it has expired; ask for a new one"


def _forbidden(message: str) -> tuple[int, dict[str, object]]:
    return 403, {"error": {"code": "forbidden", "message": message, "retryable": False}}


def _told(answer: httpx2.Response) -> tuple[int, dict[str, object]]:
    return answer.status_code, answer.json()


async def _everything(client: StreamClient, path: str, headers: dict[str, str]) -> dict[str, int]:
    """The status of each kind of request, in an order in which all of them can succeed."""
    plain = {"content-type": "text/plain", **headers}
    answers = {
        "create": await client.ask("PUT", path, b"1", plain),
        "append": await client.ask("POST", path, b"2", plain),
        "read": await client.read(path, headers=headers),
        "head": await client.ask("HEAD", path, headers=headers),
        "live": await client.read(path, headers=headers, live="long-poll"),
        "close": await client.ask("POST", path, headers={**headers, "stream-closed": "true"}),
        "delete": await client.ask("DELETE", path, headers=headers),
    }
    return {name: answer.status_code for name, answer in answers.items()}


ALL = {"create": 201, "append": 204, "read": 200, "head": 200, "live": 200, "close": 204, "delete": 204}
ASKED = ["create", "append", "read", "read", "read", "append", "delete"]


@pytest.mark.parametrize("kind", ["plain", "async"])
async def test_the_hook_is_asked_about_each_request(tmp_path: Path, way: Way, kind: str) -> None:
    """With the stream and the action; it may be a plain function or ``async``."""
    asked: list[tuple[str | None, str, Action]] = []

    def decide(request: HTTPConnection, stream: str, action: Action) -> bool:
        asked.append((request.headers.get("x-user"), stream, action))
        return request.headers.get("x-user") == "ann"

    async def decide_later(request: HTTPConnection, stream: str, action: Action) -> bool:
        return decide(request, stream, action)

    app = stream_app(tmp_path, authorize=decide if kind == "plain" else decide_later)
    async with serving_streams(app, way) as client:
        assert await _everything(client, "a/é", {"x-user": "ann"}) == ALL
        assert asked == [("ann", "a/é", action) for action in ASKED]
        assert set((await _everything(client, "a/é", {"x-user": "ben"})).values()) == {403}
        refused = await client.ask("PUT", "a", headers={"x-user": "ben"})
        assert _told(refused) == _forbidden("you may not create this stream")


@pytest.mark.parametrize("allowed", ACTIONS)
async def test_each_action_is_allowed_by_itself(tmp_path: Path, way: Way, allowed: Action) -> None:
    """Who may read may not write, and so on."""
    app = stream_app(tmp_path, authorize=lambda request, stream, action: action == allowed or stream == "theirs")
    async with serving_streams(app, way) as client:
        assert await _everything(client, "theirs", {}) == ALL
        found = await _everything(client, "ours", {})
        names = dict(zip(ALL, ASKED, strict=True))
        assert {name for name, status in found.items() if status != 403} == {
            name for name in ALL if names[name] == allowed
        }


async def test_who_is_refused_is_not_read(tmp_path: Path, way: Way) -> None:
    """The answer is 403 whatever else is wrong: a body that is too large, a path that is free, an odd header."""
    app = stream_app(tmp_path, authorize=lambda request, stream, action: False)
    async with serving_streams(app, way) as client:
        for headers in ({"producer-id": "x"}, {"stream-ttl": "x"}, {"content-type": "x"}):
            assert (await client.ask("POST", "a", bytes(10_000_000), headers)).status_code == 403
            assert (await client.ask("PUT", "a", b"{", headers)).status_code == 403
        assert (await client.read("a", "nowhere", live="maybe")).status_code == 403


async def test_a_hook_that_fails_lets_nobody_in(tmp_path: Path, way: Way) -> None:
    """500 in the common shape, without a word of the reason."""

    def broken(request: HTTPConnection, stream: str, action: Action) -> bool:
        raise LookupError("the users' database at db.internal is gone")

    async with serving_streams(stream_app(tmp_path, authorize=broken), way) as client:
        answer = await client.read("a")
        assert answer.status_code == 500
        assert "db.internal" not in answer.text
        assert answer.json()["error"]["code"] == "error"


async def test_a_fork_needs_the_right_to_read_its_source(tmp_path: Path, way: Way) -> None:
    """Else who may create anything may read everything."""
    app = stream_app(tmp_path, authorize=lambda request, stream, action: not stream.startswith("secret/"))
    async with serving_streams(app, way) as client:
        url = app.sign_stream_url("secret/a", actions=["create"])
        assert (await client.web.put(url, content=b"secret")).status_code == 201
        assert (await client.read("secret/a")).status_code == 403
        fork = await client.ask("PUT", "mine", headers={"stream-forked-from": "/v1/stream/secret/a"})
        assert fork.status_code == 403
        assert (await client.read("mine")).status_code == 404


USERS = {"ann": User("Ann", rooms=["ann", "team-*"]), "root": User("Root")}


async def by_header(connection: HTTPConnection) -> User | None:
    """The user whom the ``authorization`` header names."""
    return USERS.get(connection.headers.get("authorization", ""))


async def test_without_a_hook_users_have_their_paths(tmp_path: Path, way: Way) -> None:
    """Those that their rooms' names and patterns fit; strangers have none."""
    async with serving_streams(stream_app(tmp_path, authenticate=by_header), way) as client:
        assert set((await _everything(client, "ann", {})).values()) == {401}
        assert await _everything(client, "team-1/log", {"authorization": "ann"}) == ALL
        assert set((await _everything(client, "ben", {"authorization": "ann"})).values()) == {403}
        assert await _everything(client, "ben", {"authorization": "root"}) == ALL


async def test_who_may_enter_a_room_may_read_its_turns(tmp_path: Path, way: Way) -> None:
    """Whatever the hook for free-standing streams says; others may not."""
    app = stream_app(tmp_path, Echo, authenticate=by_header, authorize=lambda request, stream, action: False)
    async with serving_streams(app, way) as client:
        ann = {"authorization": "ann"}
        for room in ("team-1", "ben"):
            posted = await client.web.post(
                "/api/chat", json=user_turn("Hi", chat_id=room), headers={"authorization": "root"}
            )
            assert posted.status_code == 200
        turn = app.room_class and (await app.get(app.room_class, "team-1").messages())[1].id
        assert (await client.read(f"rooms/team-1/turns/{turn}", headers=ann)).status_code == 200
        assert (await client.read(f"rooms/ben/turns/{turn}", headers=ann)).status_code == 403
        assert (await client.read(f"rooms/team-1/turns/{turn}")).status_code == 401


# --- signed URLs


@pytest.fixture
def closed_app(tmp_path: Path) -> App:
    """An application whose hook lets nobody do anything."""
    return stream_app(tmp_path, authorize=lambda request, stream, action: False)


async def test_a_signed_url_is_enough_to_read(closed_app: App, way: Way) -> None:
    """One stream, in every mode, and nothing else."""
    async with serving_streams(closed_app, way) as client:
        owner = closed_app.sign_stream_url("chat/é 1", actions=ACTIONS)
        assert (await client.web.put(owner, content=b"x", headers={"content-type": "text/plain"})).status_code == 201
        url = closed_app.sign_stream_url("chat/é 1")
        assert (await client.web.get(url)).content == b"x"
        assert (await client.web.get(f"{url}&offset=-1&live=long-poll")).content == b"x"
        assert (await client.web.head(url)).headers["stream-next-offset"] == "0000000000000001"
        for method in ("PUT", "POST", "DELETE"):
            assert _told(await client.web.request(method, url, content=b"x")) == _forbidden(FORBIDDEN_TOKEN)
        other = url.replace("chat/", "chat2/")
        assert _told(await client.web.get(other)) == _forbidden(FORBIDDEN_TOKEN)
        assert (await client.web.delete(owner)).status_code == 204


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_signed_url_has_its_actions(closed_app: App, way: Way, action: Action) -> None:
    """No others."""
    async with serving_streams(closed_app, way) as client:
        token = closed_app.sign_stream_url("a", actions=[action]).split("token=")[1]
        owner = closed_app.sign_stream_url("a", actions=ACTIONS).split("token=")[1]
        plain = {"content-type": "text/plain"}
        for method, needed in {"PUT": "create", "GET": "read", "POST": "append", "DELETE": "delete"}.items():
            answer = await client.ask(method, "a", b"x", plain, {"token": token})
            assert (answer.status_code != 403) == (needed == action), method
            if answer.status_code == 403:
                assert (await client.ask(method, "a", b"x", plain, {"token": owner})).status_code in (200, 201, 204)


async def test_a_token_lasts_its_time_and_over_a_restart(closed_app: App, tmp_path: Path, way: Way) -> None:
    """Then it is as good as none; another server's is none at all."""
    async with serving_streams(closed_app, way) as client:
        url = closed_app.sign_stream_url("a", actions=ACTIONS, expires_in_s=60)
        await client.web.put(url, content=b"x")
        for expires_in_s in (0, -1):
            gone = closed_app.sign_stream_url("a", expires_in_s=expires_in_s)
            assert _told(await client.web.get(gone)) == _forbidden(FORBIDDEN_TOKEN)
    again = stream_app(tmp_path, authorize=lambda request, stream, action: False)
    async with serving_streams(again, way) as client:
        assert (await client.web.get(url)).content == b"x"
    stranger = stream_app(tmp_path / "other", authorize=lambda request, stream, action: False)
    async with serving_streams(stranger, way) as client:
        assert _told(await client.web.get(url)) == _forbidden(FORBIDDEN_TOKEN)


def test_a_token_ends_on_the_second() -> None:
    """Before it, it is good; at it, it is not."""
    signer = UrlSigner(b"key")
    token = signer.sign("a", ["read"], 1_700_000_000)
    assert token == "1700000000.read.qCqAnWXHS6BOHJyCk4Sgmg"
    assert signer.allows(token, "a", "read", 1_699_999_999.999)
    assert not signer.allows(token, "a", "read", 1_700_000_000)
    with pytest.raises(ValueError, match="'write' is no action"):
        signer.sign("a", ["write"], 0)  # type: ignore[list-item]


def test_a_token_cannot_be_changed() -> None:
    """Not its time, its actions, its signature, nor what it is for."""
    signer = UrlSigner(b"key")
    expires_s = int(time.time()) + 60
    token = signer.sign("a/b", ["append", "read"], expires_s)
    expiry, words, signature = token.split(".")
    assert words == "read-append"
    assert signer.allows(token, "a/b", "append", expires_s - 1)
    for changed in (
        f"{expires_s + 1}.{words}.{signature}",
        f"{expiry}.{words}-delete.{signature}",
        f"{expiry}.append-read.{signature}",
        f"{expiry}.read.{signature}",
        f"{expiry}.{words}.{signature[:-1]}",
        f"{expiry}.{words}.{signature}=",
        f"{expiry}.{words}.{signature.swapcase()}",
        f"0{expiry}.{words}.{signature}",
        f"{expiry}.{words}",
        *("", ".", "..", "é.read.x", f"٣.{words}.{signature}", f"{'9' * 5_000}.{words}.{signature}"),
        f"-1.{words}.{signature}",
        f"{expiry}.{words}.\udcff",
    ):
        # A leading zero is the same number: the signature is over the number.
        expected = changed.startswith("0")
        assert signer.allows(changed, "a/b", "append", 0) is expected, changed
    for path in ("a/c", "a/B", "a", "a/b/", "/a/b", "a/b\nread"):
        assert not signer.allows(token, path, "append", 0)
    assert not UrlSigner(b"other").allows(token, "a/b", "append", 0)
