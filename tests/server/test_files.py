"""Files of rooms over HTTP: brought as a form or bare, read whole and in parts, refused."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from starlette.routing import Mount
from tests.chat.rooms import Echo
from tests.running import eventually, hibernated, serving
from tests.server.apps import NOON_MS, counted, served, set_clock
from tests.server.clients import http

from perdure import App, Limits, User
from perdure.chat.file_store import FILE_CHUNK_BYTES
from perdure.objects.runtime import Runtime

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4

NOTE = "Grüße\n".encode()


async def bring(
    client: httpx2.AsyncClient, data: bytes, media_type: str = "text/plain", *, room: str = "r", filename: str = ""
) -> Any:
    """Send a bare file; what the server says of it."""
    query = {"filename": filename} if filename else {}
    response = await client.post(
        f"/api/chat/{room}/files", content=data, headers={"content-type": media_type}, params=query
    )
    assert response.status_code == 201, response.text
    return response.json()


async def refusal(client: httpx2.AsyncClient, data: bytes, media_type: str = "text/plain", **options: Any) -> Any:
    """Send a bare file that is not taken: the status and the error's code and text."""
    response = await client.post("/api/chat/r/files", content=data, headers={"content-type": media_type}, **options)
    error = response.json()["error"]
    return response.status_code, error["code"], error["message"]


async def totals(runtime: Runtime, room: str = "r") -> tuple[int, int]:
    """How many files a room has, whole or not, and their bytes."""

    async def count(instance: Any) -> tuple[int, int]:
        counted: tuple[int, int] = instance.object.files.store.totals()
        return counted

    return await runtime.run_in(runtime.object_id(Echo, room), count)


# --- bringing


async def test_a_form_and_what_comes_back(tmp_path: Path) -> None:
    """A browser's form, with another field before the file; then the file, as it was."""
    async with served(counted(tmp_path, Echo)) as client:
        response = await client.post(
            "/api/chat/r/files", data={"note": "mine"}, files={"file": ("a b.png", PNG, "image/png")}
        )
        assert response.status_code == 201
        shown = response.json()
        file_id = shown["url"].rpartition("/")[2]
        assert re.fullmatch("[0-9a-f]{32}", file_id)
        assert shown == {
            "url": f"/api/chat/r/files/{file_id}",
            "mediaType": "image/png",
            "filename": "a b.png",
            "sizeBytes": 1_032,
        }
        assert response.headers["location"] == shown["url"]

        file = await client.get(shown["url"])
        assert (file.status_code, file.content) == (200, PNG)
        headers = {name: file.headers[name] for name in file.headers if name not in ("date", "server")}
        assert headers == {
            "etag": f'"{file_id}"',
            "cache-control": "private, max-age=31536000, immutable",
            "accept-ranges": "bytes",
            "content-type": "image/png",
            "content-disposition": 'inline; filename="a b.png"',
            "x-content-type-options": "nosniff",
            "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; sandbox",
            "content-length": "1032",
        }


async def test_a_bare_file(tmp_path: Path) -> None:
    """The body is the file, its name is in the query; a type that is not known is told by the first bytes."""
    async with served(counted(tmp_path, Echo)) as client:
        note = await bring(client, NOTE, "text/plain; charset=utf-8", filename="../Grüße.txt")
        assert (note["mediaType"], note["filename"], note["sizeBytes"]) == ("text/plain", "Grüße.txt", 8)
        file = await client.get(note["url"])
        assert file.headers["content-type"] == "text/plain; charset=utf-8"
        assert file.text == "Grüße\n"
        picture = await bring(client, PNG, "application/octet-stream")
        assert picture["mediaType"] == "image/png"
        assert "filename" not in picture
        empty = await bring(client, b"")
        assert empty["sizeBytes"] == 0
        assert (await client.get(empty["url"])).content == b""


@pytest.mark.parametrize("size", [FILE_CHUNK_BYTES - 1, FILE_CHUNK_BYTES, FILE_CHUNK_BYTES + 1, 3_000_000])
async def test_large_files_come_back(tmp_path: Path, size: int) -> None:
    """Over any number of rows, also when the room has slept and the server was started anew in between."""
    data = os.urandom(size)
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        url = (await bring(client, data, "audio/mpeg"))["url"]
        assert url.rpartition("/")[2] == hashlib.sha256(b"audio/mpeg\n" + data).hexdigest()[:32]
        await hibernated(app.runtime, Echo, "r")
        assert (await client.get(url)).content == data
    async with served(counted(tmp_path, Echo)) as client:
        assert (await client.get(url)).content == data


async def test_a_sender_who_leaves_leaves_nothing(tmp_path: Path) -> None:
    """Half a file is removed, and nobody ever finds it."""
    app = counted(tmp_path, Echo)

    async def some() -> bool:
        return (await totals(app.runtime))[1] > FILE_CHUNK_BYTES

    async def half() -> AsyncIterator[bytes]:
        for _ in range(8):
            yield bytes(FILE_CHUNK_BYTES)
        await eventually(some)
        raise ConnectionError("the cable")

    async with served(app) as client:
        with pytest.raises(ConnectionError):
            await client.post("/api/chat/r/files", content=half(), headers={"content-type": "audio/mpeg"})

        async def gone() -> bool:
            return await totals(app.runtime) == (0, 0)

        await eventually(gone)


async def test_the_same_file_is_there_once(tmp_path: Path) -> None:
    """Same content and type, one address and one copy in a room; another room, another type: another file."""
    app = counted(tmp_path, Echo)
    data = os.urandom(600_000)
    async with served(app) as client:
        first = await bring(client, data, "audio/mpeg", filename="a.mp3")
        again = await bring(client, data, "audio/mpeg", filename="b.mp3")
        assert again == {**first, "filename": "b.mp3"}

        async def one() -> bool:
            return await totals(app.runtime) == (1, 600_000)

        await eventually(one)
        assert (await client.get(first["url"])).content == data
        assert (await bring(client, data, "text/plain"))["url"] != first["url"]
        other = await bring(client, data, "audio/mpeg", room="other")
        assert other["url"] == first["url"].replace("/r/", "/other/")
        assert await totals(app.runtime, "other") == (1, 600_000)


# --- reading


async def test_parts_of_a_file(tmp_path: Path) -> None:
    """One range, over the border of two rows, from the end, with a validator; and what cannot be given."""
    data = os.urandom(FILE_CHUNK_BYTES * 2 + 100)
    async with served(counted(tmp_path, Echo)) as client:
        url = (await bring(client, data, "audio/mpeg"))["url"]
        etag = (await client.head(url)).headers["etag"]

        async def get(**headers: str) -> httpx2.Response:
            return await client.get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})

        border = FILE_CHUNK_BYTES
        part = await get(range=f"bytes={border - 2}-{border + 1}")
        assert (part.status_code, part.content) == (206, data[border - 2 : border + 2])
        assert part.headers["content-range"] == f"bytes {border - 2}-{border + 1}/{len(data)}"
        assert part.headers["content-length"] == "4"
        assert (await get(range="bytes=-5")).content == data[-5:]
        assert (await get(range="bytes=10-", if_range=etag)).content == data[10:]
        assert (await get(range="bytes=10-", if_range='"other"')).status_code == 200
        assert (await get(range="bytes=0-1,5-6")).content == data
        beyond = await get(range=f"bytes={len(data)}-")
        assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(data)}")
        unchanged = await get(if_none_match=f'"x", {etag}')
        assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
        head = await client.head(url)
        assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", str(len(data)))


@pytest.mark.parametrize(
    ("media_type", "data", "disposition", "sandboxed"),
    [
        ("text/html", b"<script>alert(1)</script>", "attachment", True),
        ("image/svg+xml", b"<svg onload='alert(1)'/>", "attachment", True),
        ("text/javascript", b"alert(1)", "attachment", True),
        ("text/plain", b"<script>alert(1)</script>", "inline", True),
        ("audio/mpeg", b"ID3", "inline", True),
        ("application/pdf", b"%PDF-1.7", "inline", False),
    ],
)
async def test_no_file_runs_scripts(
    tmp_path: Path, media_type: str, data: bytes, disposition: str, sandboxed: bool
) -> None:
    """What may hold scripts is saved, not shown; nothing is guessed, and what is shown is in a sandbox."""
    async with served(counted(tmp_path, Echo)) as client:
        file = await client.get((await bring(client, data, media_type))["url"])
        assert file.headers["content-disposition"] == disposition
        assert file.headers["x-content-type-options"] == "nosniff"
        assert ("sandbox" in file.headers.get("content-security-policy", "")) == sandboxed


async def test_where_there_is_no_file(tmp_path: Path) -> None:
    """Another id, another room, a room that nobody has used: 404, and no room is made."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        url = (await bring(client, NOTE))["url"]
        for wrong in (url[:-1] + ("0" if url[-1] != "0" else "1"), url.replace("/r/", "/other/"), f"{url}0"):
            response = await client.get(wrong)
            assert (response.status_code, response.json()["error"]["code"]) == (404, "file_not_found")
        assert not app.runtime.exists(app.runtime.object_id(Echo, "other"))
        assert (await client.put(url, content=b"x")).status_code == 405


async def test_rooms_with_any_name(tmp_path: Path) -> None:
    """A slash and a space in a room's name are part of it."""
    async with served(counted(tmp_path, Echo)) as client:
        shown = await bring(client, NOTE, room="a%2Fb%20c")
        assert shown["url"].startswith("/api/chat/a%2Fb%20c/files/")
        assert (await client.get(shown["url"])).content == NOTE


async def test_a_mounted_server_says_where_it_is(tmp_path: Path) -> None:
    """The address of a file begins with the prefix that the server is mounted at."""
    app = App([Echo], data=tmp_path, pages=False)
    outer = Starlette(routes=[Mount("/ai", app)], lifespan=app.lifespan)
    async with serving(outer) as address, http(address) as client:
        response = await client.post("/ai/api/chat/r/files", content=NOTE, headers={"content-type": "text/plain"})
        url = response.json()["url"]
        assert url.startswith("/ai/api/chat/r/files/")
        assert (await client.get(url)).content == NOTE
        signed = (await client.get(f"{url}/url")).json()["url"]
        assert signed.startswith(f"{url}?token=")
        assert (await client.get(signed)).content == NOTE


# --- who may


async def _sign_in(request: HTTPConnection) -> User | None:
    name = request.headers.get("authorization")
    return None if name is None else User(name=name, rooms=[name])


async def test_only_those_who_may_enter(tmp_path: Path) -> None:
    """Bringing and reading pass the door; other sites' pages cannot bring anything."""
    async with served(counted(tmp_path, Echo, authenticate=_sign_in)) as client:
        ann = {"authorization": "ann"}
        path = "/api/chat/ann/files"
        assert (await client.post(path, content=NOTE)).status_code == 401
        assert (await client.post(path, content=NOTE, headers={"authorization": "bob"})).status_code == 403
        foreign = {**ann, "origin": "https://elsewhere.example"}
        assert (await client.post(path, content=NOTE, headers=foreign)).status_code == 403
        response = await client.post(path, content=NOTE, headers={**ann, "content-type": "text/plain"})
        url = response.json()["url"]
        assert (await client.get(url, headers=ann)).content == NOTE
        assert (await client.get(url)).status_code == 401
        assert (await client.get(url, headers={"authorization": "bob"})).status_code == 403


async def test_signed_addresses(tmp_path: Path) -> None:
    """For what cannot sign in, like an ``<img>``: good for this file, for an hour, and not for making another."""
    app = counted(tmp_path, Echo, authenticate=_sign_in)
    async with served(app) as client:
        ann = {"authorization": "ann", "content-type": "text/plain"}
        url = (await client.post("/api/chat/ann/files", content=NOTE, headers=ann)).json()["url"]
        other = (await client.post("/api/chat/ann/files", content=PNG, headers={"authorization": "ann"})).json()[
            "url"
        ]
        assert (await client.get(f"{url}/url")).status_code == 401
        reply = await client.get(f"{url}/url", headers=ann)
        assert reply.headers["cache-control"] == "no-store"
        signed = reply.json()
        assert (await client.get(signed["url"])).content == NOTE
        token = signed["url"].partition("?")[2]
        for wrong in (f"{other}?{token}", f"{url}?token=", f"{signed['url'][:-1]}A"):
            if wrong != signed["url"]:
                assert (await client.get(wrong)).status_code == 403
        assert (await client.get(f"{url}/url?{token}")).status_code == 401


async def test_signed_addresses_expire(tmp_path: Path) -> None:
    """After an hour, to the second."""
    app = counted(tmp_path, Echo, authenticate=_sign_in)
    async with served(app) as client:
        ann = {"authorization": "ann", "content-type": "text/plain"}
        url = (await client.post("/api/chat/ann/files", content=NOTE, headers=ann)).json()["url"]
        signed = (await client.get(f"{url}/url", headers=ann)).json()
        assert signed["expiresMs"] == NOON_MS + 3_600_000
        set_clock(app, NOON_MS + 3_599_999)
        assert (await client.get(signed["url"])).content == NOTE
        set_clock(app, NOON_MS + 3_600_000)
        assert (await client.get(signed["url"])).status_code == 403


# --- what is not taken


async def test_types_that_are_not_taken(tmp_path: Path) -> None:
    """Not on the room's list, or not what they say; pictures, PDF, text and sound are, unless the class says more."""

    class Zips(Echo):
        file_types = ("application/zip",)

    async with served(counted(tmp_path, Echo)) as client:
        assert await refusal(client, b"PK\x03\x04", "application/zip") == (
            415,
            "unsupported_file",
            "this room takes no files of type application/zip; it takes image/*, application/pdf, text/*, audio/*",
        )
        assert (await refusal(client, b"PK\x03\x04", "application/octet-stream"))[0] == 415
        assert (await refusal(client, b"who knows", "application/octet-stream"))[0] == 415
        assert (await refusal(client, PNG, "image/jpeg"))[1:] == (
            "unsupported_file",
            "the file is called image/jpeg, but it is image/png",
        )
        assert (await refusal(client, b"<script>", "image/png"))[0] == 415
        assert (await refusal(client, b"x", "nonsense"))[:2] == (400, "bad_request")
        for media_type, data in {
            "image/svg+xml": b"<svg/>",
            "application/pdf": b"%PDF-1.7",
            "text/csv": b"a,b",
            "audio/ogg": b"OggS",
        }.items():
            assert (await bring(client, data, media_type))["mediaType"] == media_type
    async with served(counted(tmp_path / "zips", Zips)) as client:
        assert (await bring(client, b"PK\x03\x04", "application/octet-stream"))["mediaType"] == "application/zip"
        assert (await refusal(client, NOTE))[0] == 415


async def test_forms_that_are_not_taken(tmp_path: Path) -> None:
    """Without a file, with two, broken, with too much beside the file."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:

        async def status(**form: Any) -> tuple[int, str]:
            response = await client.post("/api/chat/r/files", **form)
            return response.status_code, response.json()["error"]["message"]

        note = ("a.txt", NOTE, "text/plain")
        assert await status(files={"a": (None, b"text")}) == (400, "the form holds no file")
        two = [("a", note), ("b", note)]
        assert await status(files=two) == (400, "the form holds several files; send one at a time")
        cut = {"content-type": "multipart/form-data; boundary=b"}
        head = b'--b\r\ncontent-disposition: form-data; name="f"; filename="f"\r\n\r\n'
        assert await status(content=head + b"abc", headers=cut) == (400, "the form was cut off")
        assert (await status(content=b"x", headers={"content-type": "multipart/form-data"}))[0] == 400
        field, limit = b"x" * 65_536, "form_bytes_max allows 65,536 at most, this has 65,537"
        fits = await client.post("/api/chat/r/files", data={"a": field.decode()}, files={"f": note})
        assert fits.status_code == 201
        assert await status(data={"a": field.decode() + "x"}, files={"f": note}) == (413, limit)
        fields = {f"a{number}": "" for number in range(99)}
        fits = await client.post("/api/chat/r/files", data=fields, files={"f": note})
        assert fits.status_code == 201
        more = await status(data={**fields, "b": ""}, files={"f": note})
        assert more == (413, "form_fields_max allows 100 at most, this has 101")
        assert await totals(app.runtime) == (1, 8)


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "in pieces"])
async def test_large_files_are_refused(tmp_path: Path, announced: bool) -> None:
    """``file_bytes_max``, before it is read where its size is said, else when it is passed; nothing stays."""
    limit = 600_000
    app = counted(tmp_path, Echo, limits=Limits(file_bytes_max=limit, drain_ms_max=50))

    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 50_000):
            yield data[start : start + 50_000]

    def content(size: int) -> Any:
        data = b"a" * size
        return data if announced else pieces(data)

    async with served(app) as client:
        assert (await bring(client, content(limit)))["sizeBytes"] == limit
        status, code, message = await refusal(client, content(limit + 1))
        assert (status, code) == (413, "limit_exceeded")
        assert message == "file_bytes_max allows 600,000 at most, this has 600,001"

        async def only_one() -> bool:
            return await totals(app.runtime) == (1, limit)

        await eventually(only_one)


async def test_rooms_hold_so_many_files(tmp_path: Path) -> None:
    """``room_files_max``, ``room_files_bytes_max``, ``filename_bytes_max``: of one room; another has its own."""
    limits = Limits(room_files_max=3, room_files_bytes_max=100, drain_ms_max=50)
    app = counted(tmp_path, Echo, limits=limits)
    async with served(app) as client:
        await bring(client, b"a" * 60)
        assert (await refusal(client, b"b" * 41))[::2] == (
            413,
            "room_files_bytes_max allows 100 at most, this has 101",
        )
        await bring(client, b"b" * 40)
        await bring(client, b"")
        assert (await refusal(client, b"", "text/css"))[2] == "room_files_max allows 3 at most, this has 4"
        await bring(client, b"c" * 60, room="other", filename="x" * 255)
        long = await refusal(client, b"", params={"filename": "x" * 256})
        assert long[2] == "filename_bytes_max allows 255 at most, this has 256"


async def test_files_that_no_message_holds_go_after_a_day(tmp_path: Path) -> None:
    """When the room is next used; to the millisecond."""
    app = counted(tmp_path, Echo)
    async with served(app) as client:
        old = (await bring(client, b"old"))["url"]
        set_clock(app, NOON_MS + 86_400_000)
        young = (await bring(client, b"young"))["url"]
        assert (await client.get(old)).status_code == 200
        set_clock(app, NOON_MS + 86_400_001)
        await bring(client, b"another")
        assert (await client.get(old)).status_code == 404
        assert (await client.get(young)).status_code == 200
