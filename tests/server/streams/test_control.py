"""The control routes over HTTP: addresses, refusals, bounds, and who may use them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from tests.running import HURRIED, serving
from tests.server.clients import http
from tests.stream_hosts.receivers import OK, receiving
from tests.stream_hosts.subscribing import Clock, Site, at, site

from perdure import App, User
from perdure.wire.subscriptions import SUBSCRIPTION_BODY_BYTES_MAX
from perdure.wire.webhooks import WEBHOOK_URL_BYTES_MAX, wake_token

pytestmark = pytest.mark.anyio

HOOK = {"type": "webhook", "pattern": "nothing/*", "webhook": {"url": "http://127.0.0.1:1/hook"}}
PULL = {"type": "pull-wake", "pattern": "nothing/*", "wake_stream": "wakes"}


@pytest.fixture(scope="module")
async def here(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """A server that the tests share; each uses names of its own."""
    async with site(tmp_path_factory.mktemp("control"), clock=Clock()) as running:
        yield running


def _error(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- addresses


async def test_a_subscription_is_made_confirmed_shown_and_deleted(here: Site) -> None:
    """201, 200 for the same configuration, 409 for another; 204 as often as one likes."""
    id = "ä b/c?d%2F"
    path = f"subscriptions/{quote(id, safe='')}"
    made = await here.ask("PUT", path, {**PULL, "description": "of mine"})
    assert (made.status_code, made.headers["content-type"]) == (201, "application/json")
    assert made.json() == {
        "id": id,
        "subscription_id": id,
        "type": "pull-wake",
        "pattern": "nothing/*",
        "streams": [],
        "wake_stream": "wakes",
        "lease_ttl_ms": 30_000,
        "created_at": "2023-11-14T22:13:20.000Z",
        "status": "active",
        "description": "of mine",
    }
    same = await here.ask("PUT", path, {**PULL, "description": "of mine", "lease_ttl_ms": 30_000.0, "more": 1})
    assert (same.status_code, same.json()) == (200, made.json())
    other = await here.ask("PUT", path, PULL)
    assert _error(other) == (409, "SUBSCRIPTION_ALREADY_EXISTS")
    assert other.headers["x-content-type-options"] == "nosniff"
    shown = await here.ask("GET", path)
    assert (shown.status_code, shown.json()) == (200, made.json())
    head = await here.ask("HEAD", path)
    assert (head.status_code, head.content) == (200, b"")
    for _ in range(2):
        gone = await here.ask("DELETE", path)
        assert (gone.status_code, gone.content) == (204, b"")
    assert _error(await here.ask("GET", path)) == (404, "SUBSCRIPTION_NOT_FOUND")


async def test_addresses_and_methods(here: Site) -> None:
    """What is not there is 404, what does not fit 405; neither changes anything."""
    await here.ask("PUT", "subscriptions/methods", PULL)
    for path in ("subscriptions", "subscriptions/methods/other", "subscriptions/methods/claim/x", "other", "jwks"):
        assert _error(await here.ask("GET", path)) == (404, "SUBSCRIPTION_NOT_FOUND")
    allowed = {
        "jwks.json": ("GET", "HEAD"),
        "subscriptions/methods": ("GET", "HEAD", "PUT", "DELETE"),
        "subscriptions/methods/streams": ("POST",),
        "subscriptions/methods/streams/a": ("DELETE",),
        **{f"subscriptions/methods/{what}": ("POST",) for what in ("callback", "claim", "ack", "release")},
    }
    for path, methods in allowed.items():
        for method in {"GET", "PUT", "POST", "DELETE", "PATCH"} - set(methods):
            assert _error(await here.ask(method, path)) == (405, "method_not_allowed")
    assert (await here.ask("GET", "subscriptions/methods")).status_code == 200


async def test_the_keys(here: Site) -> None:
    """As a key set that may be kept for a while."""
    answer = await here.ask("GET", "jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    assert answer.headers["cache-control"] == "public, max-age=300"
    [key] = answer.json()["keys"]
    assert {name: key[name] for name in ("kty", "crv", "use", "alg")} == {
        "kty": "OKP",
        "crv": "Ed25519",
        "use": "sig",
        "alg": "EdDSA",
    }
    assert key["kid"].startswith("ds_")
    assert len(key["x"]) == 43
    assert "d" not in key
    head = await here.ask("HEAD", "jwks.json")
    assert (head.status_code, head.content) == (200, b"")


async def test_addresses_where_the_app_is_mounted(tmp_path: Path) -> None:
    """Receivers report to where the client found us."""
    app = App([], data=tmp_path, limits=HURRIED, pages=False)
    outer = Starlette(routes=[Mount("/deep", app)], lifespan=app.lifespan)
    async with receiving() as receiver, serving(outer) as address, http(address) as web:
        root = f"http://{address}/deep/v1/stream"
        config = {**HOOK, "pattern": "a", "webhook": {"url": receiver.url}}
        made = await web.put("/deep/v1/stream/__ds/subscriptions/s", json=config)
        assert made.json()["webhook"]["signing"]["jwks_url"] == f"{root}/__ds/jwks.json"
        await web.put("/deep/v1/stream/a", content=b"1", headers={"content-type": "text/plain"})
        wake = (await receiver.next()).wake
        assert wake["callback_url"] == f"{root}/__ds/subscriptions/s/callback"


# --- refusals


@pytest.mark.parametrize(
    "body",
    [
        [],
        {},
        {"type": "webhook"},
        {"type": "other", "pattern": "a"},
        {**HOOK, "pattern": ""},
        {**HOOK, "pattern": "///"},
        {**HOOK, "pattern": None},
        {**HOOK, "streams": "a"},
        {**HOOK, "streams": ["__ds/a"]},
        {**HOOK, "webhook": "http://127.0.0.1/"},
        {**HOOK, "webhook": {}},
        {**PULL, "wake_stream": ""},
        {**PULL, "streams": ["wakes"]},
        {**PULL, "lease_ttl_ms": "1000"},
        {**PULL, "lease_ttl_ms": True},
        {**PULL, "description": 1},
    ],
    ids=str,
)
async def test_bad_configurations(here: Site, body: Any) -> None:
    """Are 400, and make nothing."""
    assert _error(await here.ask("PUT", "subscriptions/bad", body)) == (400, "INVALID_REQUEST")
    assert (await here.ask("GET", "subscriptions/bad")).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://localhost/",
        "https://10.0.0.1/",
        "https://169.254.169.254/latest",
        "https://[::1]/",
        "https://metadata.google.internal/",
        "https://user@example.com/",
        "ftp://example.com/",
        "/hook",
        f"http://127.0.0.1/{'a' * (WEBHOOK_URL_BYTES_MAX - 17)} ",
    ],
)
async def test_addresses_that_are_not_called(here: Site, url: str) -> None:
    """Are refused when they are named."""
    answer = await here.ask("PUT", "subscriptions/inside", {**HOOK, "webhook": {"url": url}})
    assert _error(answer) in ((400, "WEBHOOK_URL_REJECTED"), (413, "limit_exceeded"))
    assert answer.status_code == (413 if url.endswith(" ") else 400)


async def test_bodies_that_are_not_json(here: Site) -> None:
    """Are 400 wherever a body is read."""
    await here.ask("PUT", "subscriptions/json", PULL)
    for path, method in (("json", "PUT"), ("json/claim", "POST"), ("json/streams", "POST")):
        for body in (b"{", b"\xff", b'"x"', b"{}"):
            answer = await here.web.request(method, f"/v1/stream/__ds/subscriptions/{path}", content=body)
            assert _error(answer) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize(
    ("what", "maximum"),
    [
        ("id", 256),
        ("pattern", 1_024),
        ("stream", 1_024),
        ("streams", 1_000),
        ("description", 4_096),
        ("worker", 256),
        ("offset", 256),
        ("url", 2_048),
    ],
)
async def test_limits_from_both_sides(here: Site, what: str, maximum: int) -> None:
    """As much as the limit is taken, one more is 413 and says which limit it was."""
    await here.ask("PUT", "subscriptions/limits", PULL)
    for number, size in enumerate((maximum, maximum + 1)):
        text, path, body, method = "x" * size, f"subscriptions/{what}{number}", dict[str, Any](PULL), "PUT"
        if what == "id":
            path = f"subscriptions/{text}"
        elif what == "stream":
            body["streams"] = [text]
        elif what == "streams":
            body["streams"] = [f"named/{serial}" for serial in range(size)]
        elif what == "worker":
            method, path, body = "POST", "subscriptions/limits/claim", {"worker": text}
        elif what == "url":
            body = {**HOOK, "webhook": {"url": "http://127.0.0.1/".ljust(size, "x")}}
        elif what == "offset":
            acks = [{"stream": "a", "offset": text}]
            method, path, body = "POST", "subscriptions/limits/ack", {"wake_id": "", "generation": 0, "acks": acks}
        else:
            body[what] = text
        token = wake_token(here.subscriptions._token_key, "limits", 0, expires_at_s=2**40)
        answer = await here.ask(method, path, body, token=token)
        if size > maximum:
            assert _error(answer) == (413, "limit_exceeded")
            assert f"allows {maximum:,} at most" in answer.json()["error"]["message"]
        else:
            assert answer.status_code != 413
            assert answer.status_code == 201 or _error(answer)[1] in ("NO_PENDING_WORK", "FENCED")


@pytest.mark.parametrize(
    ("lease_ttl_ms", "status"), [(999, 400), (1_000, 201), (600_000, 201), (600_001, 400), (1_000.5, 400)]
)
async def test_leases_from_both_sides(here: Site, lease_ttl_ms: float, status: int) -> None:
    """From a second to ten minutes, in whole milliseconds."""
    path = f"subscriptions/lease{lease_ttl_ms}"
    answer = await here.ask("PUT", path, {**PULL, "lease_ttl_ms": lease_ttl_ms})
    assert answer.status_code == status


async def test_bodies_from_both_sides(here: Site) -> None:
    """No more than `SUBSCRIPTION_BODY_BYTES_MAX` is read, whether its size was announced or not."""

    async def pieces(size: int) -> AsyncIterator[bytes]:
        yield b'{"worker": "w"}'
        for _ in range(16):
            yield b" " * ((size - 15) // 16)
        yield b" " * ((size - 15) % 16)

    await here.ask("PUT", "subscriptions/bodies", PULL)
    for size, expected in ((SUBSCRIPTION_BODY_BYTES_MAX, 409), (SUBSCRIPTION_BODY_BYTES_MAX + 1, 413)):
        for content in (b'{"worker": "w"}'.ljust(size), pieces(size)):
            answer = await here.web.post("/v1/stream/__ds/subscriptions/bodies/claim", content=content)
            assert answer.status_code == expected


# --- tokens


async def test_reports_need_the_token_of_their_wake(tmp_path: Path) -> None:
    """401 with nothing that tells more; it is good for a day, for one subscription, in one data folder."""
    clock = Clock()
    async with receiving() as receiver, site(tmp_path, clock=clock) as here:
        receiver.answer = OK
        for id in ("s", "other"):
            await here.hook(id, receiver.url, lease_ttl_ms=600_000)
        await here.ask("PUT", "subscriptions/quiet", PULL)
        await here.create("events/a", b"1")
        calls = [(await receiver.next()).wake, (await receiver.next()).wake]
        wakes = {wake["subscription_id"]: wake for wake in calls}
        wake = wakes["s"]
        body = {"wake_id": wake["wake_id"], "generation": 1}
        path = "subscriptions/s/callback"
        foreign = wake_token(b"another server", "s", 1, expires_at_s=2**40)
        cases: list[dict[str, str]] = [
            {},
            {"authorization": wake["callback_token"]},
            {"authorization": f"Basic {wake['callback_token']}"},
            {"authorization": "Bearer"},
            {"authorization": "Bearer a.b"},
            {"authorization": f"Bearer {wake['callback_token']}x"},
            {"authorization": f"Bearer {foreign}"},
            {"authorization": f"Bearer {wakes['other']['callback_token']}"},
        ]
        for headers in cases:
            assert _error(await here.ask("POST", path, body, **headers)) == (401, "TOKEN_INVALID")
        assert _error(await here.ask("POST", "subscriptions/none/callback", body)) == (404, "SUBSCRIPTION_NOT_FOUND")
        assert (await here.report("s", "callback", wake)).status_code == 200
        clock.now_ms += 86_400_000
        assert (await here.report("s", "callback", wake)).status_code == 200
        clock.now_ms += 1_000
        assert _error(await here.report("s", "callback", wake)) == (401, "TOKEN_EXPIRED")


# --- who may


async def test_the_authorize_hook(tmp_path: Path) -> None:
    """Is asked about managing subscriptions; those who report show a token, and keys are public."""
    asked: list[tuple[str, str]] = []
    allowed = True

    async def authorize(request: HTTPConnection, stream: str, action: str) -> bool:
        asked.append((stream, action))
        return allowed

    async with receiving() as receiver, site(tmp_path, clock=Clock(), authorize=authorize) as here:
        receiver.answer = OK
        await here.hook("s", receiver.url)
        await here.ask("GET", "subscriptions/s")
        await here.ask("HEAD", "subscriptions/s")
        await here.ask("POST", "subscriptions/s/streams", {"streams": ["x"]})
        await here.ask("DELETE", "subscriptions/s/streams/x")
        await here.ask("POST", "subscriptions/s/claim", {"worker": "w"})
        await here.create("events/a", b"1")
        wake = (await receiver.next()).wake
        manage = "__ds/subscriptions"
        actions = ["create", "read", "read", "create", "create", "create"]
        assert asked == [*((manage, action) for action in actions), ("events/a", "create")]
        asked.clear()
        allowed = False
        assert (await here.ask("GET", "jwks.json")).status_code == 200
        assert (await here.report("s", "callback", wake)).status_code == 200
        assert asked == []
        for method, path in (
            ("PUT", "subscriptions/t"),
            ("GET", "subscriptions/s"),
            ("DELETE", "subscriptions/s"),
            ("POST", "subscriptions/s/streams"),
            ("DELETE", "subscriptions/s/streams/x"),
            ("POST", "subscriptions/s/claim"),
        ):
            assert _error(await here.ask(method, path, HOOK)) == (403, "forbidden")
        signed = here.app.sign_stream_url(manage, actions=["create"])
        token = signed.partition("?")[2]
        assert (await here.web.put(f"/v1/stream/__ds/subscriptions/t?{token}", json=HOOK)).status_code == 201
        assert (await here.web.get(f"/v1/stream/__ds/subscriptions/t?{token}")).status_code == 403


async def test_users_who_were_let_in(tmp_path: Path) -> None:
    """Without the hook those may manage whom ``authenticate`` lets in, and whose ``rooms`` cover it."""

    def authenticate(connection: HTTPConnection) -> User | None:
        rooms = {"all": None, "some": ["events/*"], "manager": ["__ds/*"]}
        name = connection.headers.get("x-name", "")
        return User(name, rooms[name]) if name in rooms else None

    async with site(tmp_path, authenticate=authenticate) as here:
        statuses = {
            name: (await here.ask("PUT", f"subscriptions/{name}", PULL, **{"x-name": name})).status_code
            for name in ("all", "some", "manager", "nobody")
        }
        assert statuses == {"all": 201, "some": 403, "manager": 201, "nobody": 401}


async def test_pages_of_other_sites_may_not_manage(here: Site) -> None:
    """A browser says where a request comes from; programs do not, and are let in."""
    foreign = {"origin": "https://elsewhere.example"}
    for method, path in (("PUT", "subscriptions/origin"), ("DELETE", "subscriptions/origin")):
        assert _error(await here.ask(method, path, PULL, **foreign)) == (403, "forbidden")
    own = {"origin": str(here.web.base_url)}
    assert (await here.ask("PUT", "subscriptions/origin", PULL, **own)).status_code == 201
    assert (await here.ask("GET", "subscriptions/origin", **foreign)).status_code == 200


async def test_what_a_claim_shows_is_the_newest(here: Site) -> None:
    """Whoever has appended and claims then finds that work."""
    await here.pull("newest", "newest/wakes", pattern="newest/*")
    for number in range(20):
        path = f"newest/{number}"
        await here.create(path, b"1")
        claimed = await here.claim("newest")
        assert [item["path"] for item in claimed["streams"] if item["has_pending"]] == [path]
        acks = [{"stream": path, "offset": at(1)}]
        assert (await here.report("newest", "ack", claimed, acks=acks, done=True)).status_code == 200
