"""Browsers: which sites' pages may use streams, and what they may see."""

from __future__ import annotations

from pathlib import Path

import pytest

from .servers import StreamClient, Way, serving_streams, stream_app

pytestmark = pytest.mark.anyio

FRIEND = {"origin": "https://friend.example"}
STRANGER = {"origin": "https://evil.example"}

EXPOSED = {
    *("stream-next-offset", "stream-cursor", "stream-up-to-date", "stream-closed", "stream-ttl", "stream-expires-at"),
    *("stream-sse-data-encoding", "producer-epoch", "producer-seq", "producer-expected-seq", "producer-received-seq"),
    *("etag", "location", "content-type", "retry-after"),
}
ALLOWED = {
    *("content-type", "authorization", "if-none-match", "stream-seq", "stream-ttl", "stream-expires-at"),
    *("stream-closed", "stream-forked-from", "stream-fork-offset", "stream-fork-sub-offset"),
    *("producer-id", "producer-epoch", "producer-seq", "last-event-id"),
}


def _names(header: str) -> set[str]:
    return {name.strip().lower() for name in header.split(",")}


async def _writes(client: StreamClient, headers: dict[str, str]) -> list[int]:
    """The statuses of a write of each kind."""
    plain = {"content-type": "text/plain", **headers}
    return [
        (await client.ask("PUT", "a", b"1", plain)).status_code,
        (await client.ask("POST", "a", b"2", plain)).status_code,
        (await client.ask("DELETE", "a", headers=headers)).status_code,
    ]


async def test_without_origins_pages_of_other_sites_change_nothing(client: StreamClient) -> None:
    """403 for writes; reads are answered, but no header lets the page see them."""
    await client.create("kept", b"1")
    assert await _writes(client, STRANGER) == [403, 403, 403]
    told = await client.ask("POST", "kept", b"2", {**STRANGER, "content-type": "text/plain"})
    message = "pages of https://evil.example may not connect; list it in App(origins=[...])"
    assert told.json() == {"error": {"code": "forbidden", "message": message, "retryable": False}}
    for live in ("", "sse", "long-poll"):
        async with client.web.stream(
            "GET", client.prefix + "kept", params={"offset": "-1", "live": live}, headers=STRANGER
        ) as read:
            assert read.status_code == 200
            assert read.headers["cross-origin-resource-policy"] == "same-origin"
            assert not [name for name in read.headers if name.startswith("access-control")]
    preflight = await client.ask("OPTIONS", "kept", headers=STRANGER)
    assert preflight.status_code == 204
    assert "access-control-allow-origin" not in preflight.headers


async def test_our_own_pages_and_programs_may_do_all(client: StreamClient) -> None:
    """A page of this server names its origin; a program names none."""
    assert await _writes(client, {"origin": f"http://{client.address}"}) == [201, 204, 204]
    assert await _writes(client, {}) == [201, 204, 204]


async def test_pages_of_listed_sites_may_do_all(tmp_path: Path, way: Way) -> None:
    """With credentials, and with every header that a client of the protocol looks at; others still may not."""
    async with serving_streams(stream_app(tmp_path, origins=["https://friend.example/"]), way) as client:
        assert await _writes(client, FRIEND) == [201, 204, 204]
        assert await _writes(client, STRANGER) == [403, 403, 403]
        await client.create("a", b"1")
        answers = [
            await client.read("a", headers=FRIEND),
            await client.read("a", headers=FRIEND, live="long-poll"),
            await client.read("nothing", headers=FRIEND),
            await client.ask("POST", "a", b"", FRIEND),
            await client.ask("HEAD", "a", headers=FRIEND),
        ]
        assert [answer.status_code for answer in answers] == [200, 200, 404, 400, 200]
        for answer in answers:
            assert answer.headers["access-control-allow-origin"] == "https://friend.example"
            assert answer.headers["access-control-allow-credentials"] == "true"
            assert answer.headers["vary"] == "origin"
            assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
            assert _names(answer.headers["access-control-expose-headers"]) >= EXPOSED
        stranger = await client.read("a", headers=STRANGER)
        assert "access-control-allow-origin" not in stranger.headers


async def test_a_preflight_names_what_a_page_may_send(tmp_path: Path, way: Way) -> None:
    """All methods and all headers of the protocol."""
    async with serving_streams(stream_app(tmp_path, origins=["https://friend.example"]), way) as client:
        answer = await client.ask("OPTIONS", "a", headers={**FRIEND, "access-control-request-method": "PUT"})
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["access-control-allow-origin"] == "https://friend.example"
        assert _names(answer.headers["access-control-allow-methods"]) == {
            *("get", "head", "post", "put", "delete", "options"),
        }
        assert _names(answer.headers["access-control-allow-headers"]) >= ALLOWED
        assert answer.headers["access-control-max-age"] == "600"


async def test_a_star_lets_every_site_in(tmp_path: Path, way: Way) -> None:
    """Without credentials, as a browser demands."""
    async with serving_streams(stream_app(tmp_path, origins=["*"]), way) as client:
        assert await _writes(client, STRANGER) == [201, 204, 204]
        await client.create("a", b"1")
        answer = await client.read("a", headers=STRANGER)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
