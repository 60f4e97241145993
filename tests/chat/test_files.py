"""Messages with files: what is stored beside them, what stays in them, what is refused."""

from __future__ import annotations

import asyncio
import base64
import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.chat.rooms import Echo
from tests.running import eventually, hibernated, killed, reset, running

from perdure.chat.files import RoomFiles
from perdure.errors import LimitExceeded, ModelError, NoSuchFile, RemoteProtocolError, UnsupportedFile
from perdure.objects.runtime import Runtime
from perdure.wire.messages import ChatMessage
from perdure.wire.ui_chunks import File

pytestmark = pytest.mark.anyio

PNG = b"\x89PNG\r\n\x1a\n"

NOON_MS = 1_700_000_000_000

Part = dict[str, Any]


def data_url(data: bytes, media_type: str = "image/png") -> str:
    """The file as a data URL."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def file_part(data: bytes = PNG, media_type: str = "image/png", **fields: Any) -> Part:
    """What ``useChat`` sends of a chosen file."""
    return {"type": "file", "mediaType": media_type, "url": data_url(data, media_type), **fields}


def message(*parts: Part, id: str = "m1", **fields: Any) -> ChatMessage:
    """A user's message of these parts."""
    return ChatMessage(id, "user", list(parts), **fields)


async def in_files(runtime: Runtime, work: Callable[[RoomFiles], Any]) -> Any:
    """Do something with the files of the room ``r``; wait for it where it takes a while."""

    async def run(instance: Any) -> Any:
        result = work(instance.object.files)
        return await result if isinstance(result, Coroutine) else result

    return await runtime.run_in(runtime.object_id(Echo, "r"), run)


async def taken(runtime: Runtime, given: ChatMessage, *, slowly: bool) -> ChatMessage:
    """The message as the room keeps it."""

    async def work(files: RoomFiles) -> ChatMessage:
        return files.take_message(await files.prepare_message(given) if slowly else given)

    result: ChatMessage = await in_files(runtime, work)
    return result


both_ways = pytest.mark.parametrize("slowly", [False, True], ids=["at once", "piece by piece"])


# --- in


@both_ways
async def test_a_large_data_url_becomes_a_file(tmp_path: Path, slowly: bool) -> None:
    """The part keeps its place, its name and its own fields; its address leads to the bytes."""
    data = PNG + os.urandom(700_000)
    given = message(
        {"type": "text", "text": "Look"},
        file_part(data, filename="C:\\me\\a.png", own=[1]),
        {"type": "data-x", "data": 1},
    )
    async with running(tmp_path, Echo) as runtime:
        kept = await taken(runtime, given, slowly=slowly)
        url = kept.parts[1]["url"]
        assert url.startswith("/api/chat/r/files/")
        assert kept.parts == [
            {"type": "text", "text": "Look"},
            {"type": "file", "mediaType": "image/png", "url": url, "filename": "C:\\me\\a.png", "own": [1]},
            {"type": "data-x", "data": 1},
        ]
        assert given.parts[1]["url"].startswith("data:")
        assert await in_files(runtime, lambda files: files.load(url)) == (data, "image/png")
        again = await taken(runtime, message(file_part(data), id="m2"), slowly=slowly)
        assert again.parts[0]["url"] == url


@both_ways
async def test_a_short_data_url_stays(tmp_path: Path, slowly: bool) -> None:
    """Up to ``inline_file_bytes_max`` characters; one more is a file."""
    async with running(tmp_path, Echo, limits={"inline_file_bytes_max": 8_194}) as runtime:
        fits = file_part(PNG + b"x" * (6_129 - 8))
        assert len(fits["url"]) == 8_194
        kept = await taken(runtime, message(fits), slowly=slowly)
        assert kept.parts == [fits]
        assert await in_files(runtime, lambda files: files.load(fits["url"])) == (PNG + b"x" * 6_121, "image/png")
        longer = file_part(PNG + b"x" * (6_130 - 8))
        kept = await taken(runtime, message(longer), slowly=slowly)
        assert kept.parts[0]["url"].startswith("/api/chat/r/files/")


async def test_the_type_is_the_files_own(tmp_path: Path) -> None:
    """A family or an old name gives way to the type itself; a part that says nothing gets the address's."""
    async with running(tmp_path, Echo) as runtime:
        kept = await taken(runtime, message(file_part(mediaType="image/*")), slowly=False)
        assert kept.parts[0]["mediaType"] == "image/png"
        part = file_part(b"RIFF\x00\x00\x00\x00WAVE", "audio/x-wav")
        del part["mediaType"]
        assert (await taken(runtime, message(part), slowly=False)).parts[0]["mediaType"] == "audio/wav"
        large = await taken(runtime, message(file_part(PNG + b"x" * 9_000)), slowly=False)
        lied = {**large.parts[0], "mediaType": "text/plain"}
        assert (await taken(runtime, message(lied, id="m2"), slowly=False)).parts == large.parts


async def test_files_of_other_sites_are_passed_on(tmp_path: Path) -> None:
    """Their address stays; nothing is fetched, for models neither."""
    async with running(tmp_path, Echo) as runtime:
        part = {"type": "file", "mediaType": "image/*", "url": "https://example.com/a.png"}
        assert (await taken(runtime, message(part), slowly=True)).parts == [part]
        with pytest.raises(NoSuchFile):
            await in_files(runtime, lambda files: files.load(part["url"]))


@pytest.mark.parametrize("room_url", ["/api/chat", "/ai/api/chat", "https://chat.example/api/chat"])
async def test_own_addresses_wherever_they_begin(tmp_path: Path, room_url: str) -> None:
    """A mounted server's, another origin's; a query is no part of it."""
    async with running(tmp_path, Echo) as runtime:
        kept = await taken(runtime, message(file_part(PNG + b"x" * 9_000)), slowly=False)
        url = kept.parts[0]["url"].replace("/api/chat", room_url) + "?token=1"
        part = {**kept.parts[0], "url": url}
        assert (await taken(runtime, message(part, id="m2"), slowly=False)).parts == [part]
        assert (await in_files(runtime, lambda files: files.load(url)))[1] == "image/png"


async def test_a_class_says_where_its_files_are(tmp_path: Path) -> None:
    """``api_url``, where messages are shown by pages of another origin, or the server is mounted."""

    class Elsewhere(Echo):
        api_url = "https://chat.example/ai/"

    async with running(tmp_path, Elsewhere) as runtime:

        async def work(instance: Any) -> Any:
            files = instance.object.files
            kept = files.take_message(message(file_part(PNG + b"x" * 9_000)))
            url = kept.parts[0]["url"]
            # Browsers leave more characters as they are.
            assert files.id_of(url.replace("%21", "!")) == files.id_of(url)
            for wrong in (url.replace("/files/", "/turns/"), url[:-1], url + "0", url.replace("/a", "/b"), "", "/"):
                assert files.id_of(wrong) is None
            return url, files.id_of(url)

        url, file_id = await runtime.run_in(runtime.object_id(Elsewhere, "a b"), work)
        other, same_id = await runtime.run_in(runtime.object_id(Elsewhere, "a!b"), work)
        assert (other, same_id) == (f"https://chat.example/ai/a%21b/files/{file_id}", file_id)
        assert url == f"https://chat.example/ai/a%20b/files/{file_id}"
        assert file_id is not None


# --- what is refused


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (file_part(b"PK\x03\x04", "application/zip"), UnsupportedFile),
        (file_part(b"<script>", "image/png"), UnsupportedFile),
        (file_part(b"<script>" * 2_000, "image/png"), UnsupportedFile),
        (file_part(PNG, "text/plain"), UnsupportedFile),
        ({"type": "file", "mediaType": "video/mp4", "url": "https://example.com/a"}, UnsupportedFile),
        ({"type": "file", "mediaType": "image/png", "url": "/api/chat/r/files/" + "0" * 32}, NoSuchFile),
        ({"type": "file", "mediaType": "image/png", "url": "blob:http://h/1"}, RemoteProtocolError),
        ({"type": "file", "mediaType": "image/png", "url": "/api/chat/other/files/" + "0" * 32}, RemoteProtocolError),
        ({"type": "file", "mediaType": "image/png", "url": "file:///etc/passwd"}, RemoteProtocolError),
        ({"type": "file", "mediaType": "image/png", "url": 1}, RemoteProtocolError),
        ({"type": "file", "mediaType": "image/png"}, RemoteProtocolError),
        ({"type": "file", "url": "https://example.com/a.png"}, RemoteProtocolError),
        ({"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,?"}, RemoteProtocolError),
        (
            {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64," + "?" * 9_000},
            RemoteProtocolError,
        ),
        (file_part(filename="x" * 256), LimitExceeded),
    ],
)
@both_ways
async def test_files_that_are_not_taken(tmp_path: Path, part: Part, error: type[Exception], slowly: bool) -> None:
    """Of the wrong type, not there, or without an address that others can load."""
    async with running(tmp_path, Echo) as runtime:
        with pytest.raises(error):
            await taken(runtime, message(part), slowly=slowly)
        assert await in_files(runtime, lambda files: files.store.totals()) == (0, 0)


LIMITS = {
    "message_parts_max": 5,
    "files_per_message_max": 2,
    "message_extra_bytes_max": 300,
    "file_bytes_max": 10_000,
    "room_files_bytes_max": 15_000,
    "room_files_max": 2,
}

TEXT = {"type": "text", "text": "x" * 1_000}


@pytest.mark.parametrize(
    ("limit", "fits", "too_much"),
    [
        ("message_parts_max", [TEXT] * 5, [TEXT] * 6),
        ("files_per_message_max", [file_part()] * 2, [file_part()] * 3),
        # `[null,{"type":"data-x","data":""}]` has 34 bytes; and a text or a picture does not count.
        ("message_extra_bytes_max", [{"type": "data-x", "data": "x" * 266}], [{"type": "data-x", "data": "x" * 267}]),
        ("file_bytes_max", [file_part(b"x" * 10_000, "text/a")], [file_part(b"x" * 10_001, "text/a")]),
        (
            "room_files_bytes_max",
            [file_part(b"x" * 9_000, "text/a"), file_part(b"y" * 6_000, "text/a")],
            [file_part(b"x" * 9_000, "text/a"), file_part(b"y" * 6_001, "text/a")],
        ),
    ],
)
@both_ways
async def test_messages_and_files_are_bounded(
    tmp_path: Path, limit: str, fits: list[Part], too_much: list[Part], slowly: bool
) -> None:
    """On both sides of each limit."""
    limits = {**LIMITS, "inline_file_bytes_max": 500}
    async with running(tmp_path, Echo, limits=limits) as runtime:
        with pytest.raises(LimitExceeded, match=limit) as caught:
            await taken(runtime, message(*too_much), slowly=slowly)
        assert caught.value.value == caught.value.maximum + 1
    async with running(tmp_path / "fits", Echo, limits=limits) as runtime:
        await taken(runtime, message(*fits), slowly=slowly)


@both_ways
async def test_rooms_have_so_many_files(tmp_path: Path, slowly: bool) -> None:
    """``room_files_max`` counts what messages brought."""
    async with running(tmp_path, Echo, limits={**LIMITS, "inline_file_bytes_max": 10}) as runtime:
        await taken(runtime, message(file_part(b"1", "text/a"), file_part(b"2", "text/a")), slowly=slowly)
        with pytest.raises(LimitExceeded, match="room_files_max allows 2 at most, this has 3"):
            await taken(runtime, message(file_part(b"3", "text/a")), slowly=slowly)
    async with running(tmp_path, Echo, limits=LIMITS) as runtime:  # what stays in its message takes no place
        await taken(runtime, message(file_part(b"3", "text/a")), slowly=slowly)


async def test_metadata_counts(tmp_path: Path) -> None:
    """Whatever is neither text nor the content of a file is in ``message_extra_bytes_max``."""
    async with running(tmp_path, Echo, limits=LIMITS) as runtime:
        for given in (
            message(TEXT, metadata={"x": "y" * 300}),
            message({**TEXT, "providerMetadata": {"x": {"y": "z" * 300}}}),
            message(file_part(), {"type": "tool-x", "output": "o" * 300}),
            message({"type": "file", "mediaType": "image/png", "url": "https://" + "x" * 300}),
        ):
            with pytest.raises(LimitExceeded, match="message_extra_bytes_max"):
                await taken(runtime, given, slowly=False)
        await taken(runtime, message(TEXT, file_part(PNG + b"x" * 4_000), metadata={"user": "Ann"}), slowly=False)


# --- out


async def test_a_models_file_is_stored(tmp_path: Path) -> None:
    """A large one's address takes the place of its content; a small one and a web address stay."""
    data = PNG + os.urandom(20_000)
    large = File(data_url(data), "image/png", {"p": {"x": 1}})
    async with running(tmp_path, Echo) as runtime:
        kept = await in_files(runtime, lambda files: files.take_chunk(large, "a1"))
        assert kept.url.startswith("/api/chat/r/files/")
        assert (kept.media_type, kept.provider_metadata) == ("image/png", {"p": {"x": 1}})
        assert await in_files(runtime, lambda files: files.load(kept.url)) == (data, "image/png")
        small = [File(data_url(PNG), "image/png"), File("https://example.com/a.png", "image/png")]
        assert await in_files(runtime, lambda files: [files.take_chunk(item, "a1") for item in small]) == small


async def test_a_models_file_that_has_no_place(tmp_path: Path) -> None:
    """The model has failed then; so it has with a data URL that is none."""
    async with running(tmp_path, Echo, limits=LIMITS) as runtime:
        with pytest.raises(ModelError, match="file_bytes_max allows 10,000 at most"):
            await in_files(runtime, lambda files: files.take_chunk(File(data_url(b"x" * 10_001), "image/png"), "a"))
        with pytest.raises(RemoteProtocolError):
            await in_files(runtime, lambda files: files.take_chunk(File("data:" + "x" * 9_000, "image/png"), "a"))


# --- as long as they are needed


class Clock:
    """A clock that a test sets."""

    now_ms = NOON_MS


async def _add(runtime: Runtime, given: ChatMessage) -> ChatMessage:
    """Keep a message with its files."""

    async def work(instance: Any) -> ChatMessage:
        kept: ChatMessage = instance.object.files.take_message(given)
        instance.object.transcript.add(kept, NOON_MS, "answered")
        return kept

    return await runtime.run_in(runtime.object_id(Echo, "r"), work)


async def _files(runtime: Runtime) -> int:
    return int((await in_files(runtime, lambda files: files.store.totals()))[0])


async def _tidied(runtime: Runtime, count: int) -> None:
    await in_files(runtime, lambda files: files.tidy())

    async def so_many() -> bool:
        return await _files(runtime) == count

    await eventually(so_many)


async def test_files_stay_with_their_messages(tmp_path: Path) -> None:
    """However old; removed a day after the last of the messages that held them went, or at once when told."""
    clock = Clock()
    async with running(tmp_path, Echo, clock_ms=lambda: clock.now_ms) as runtime:
        kept = await _add(runtime, message(file_part(PNG + b"x" * 600_000)))
        url = kept.parts[0]["url"]
        await _add(runtime, message(kept.parts[0], id="m2"))
        clock.now_ms += 30 * 86_400_000
        await _tidied(runtime, 1)

        async def cut(instance: Any, message_id: str) -> None:
            room = instance.object
            room.transcript.cut_from(room.transcript.find(message_id).seq)
            room.files.on_removed()

        await runtime.run_in(runtime.object_id(Echo, "r"), lambda instance: cut(instance, "m2"))
        await _tidied(runtime, 1)
        await runtime.run_in(runtime.object_id(Echo, "r"), lambda instance: cut(instance, "m1"))
        await _tidied(runtime, 0)
        with pytest.raises(NoSuchFile):
            await in_files(runtime, lambda files: files.load(url))
        assert await in_files(runtime, _rows) == 0


def _rows(files: RoomFiles) -> int:
    return len(files.store._rows("SELECT 1 FROM file_chunks UNION ALL SELECT 1 FROM file_uses"))


async def test_a_crash_leaves_whole_files_only(tmp_path: Path) -> None:
    """Killed in the middle of an upload: what was whole is there, the rest is nobody's and goes after a day."""
    clock = Clock()
    data = PNG + os.urandom(900_000)
    async with running(tmp_path / "a", Echo, clock_ms=lambda: clock.now_ms) as runtime:
        url = (await _add(runtime, message(file_part(data)))).parts[0]["url"]

        def half(files: RoomFiles) -> None:
            files.append(files.begin("text/plain", None), b"x" * 1_000)

        await in_files(runtime, half)
        folder = await killed(runtime, tmp_path / "b")
    async with running(folder, Echo, clock_ms=lambda: clock.now_ms) as runtime:
        assert await in_files(runtime, lambda files: files.load(url)) == (data, "image/png")
        assert await _files(runtime) == 2
        clock.now_ms += 86_400_001
        await _tidied(runtime, 1)


async def test_a_removal_that_is_cut_off_goes_on(tmp_path: Path) -> None:
    """A large file is removed row by row; the room may sleep, or be reset, in between."""
    clock = Clock()
    async with running(tmp_path, Echo, clock_ms=lambda: clock.now_ms) as runtime:
        await taken(runtime, message(file_part(PNG + b"x" * 3_000_000)), slowly=False)
        clock.now_ms += 86_400_001

        async def begin(files: RoomFiles) -> None:
            files.store.drop_old(clock.now_ms - 86_400_000, clock.now_ms)
            steps = files.store.remove()
            next(steps)
            next(steps)

        await in_files(runtime, begin)
        reset(runtime, Echo, "r")
        assert await _files(runtime) == 1
        await hibernated(runtime, Echo, "r")
        await _tidied(runtime, 0)
        assert await in_files(runtime, _rows) == 0


async def test_an_upload_that_was_given_up_takes_nothing_more(tmp_path: Path) -> None:
    """Who sends for more than a day, or into a room that is emptied, is told."""
    async with running(tmp_path, Echo) as runtime:

        async def late(files: RoomFiles) -> None:
            upload = files.begin("text/plain", None)
            files.append(upload, b"x" * 1_000)
            files.give_up(upload)
            await asyncio.sleep(0.05)
            files.append(upload, b"y")

        with pytest.raises(NoSuchFile, match="send the file again"):
            await in_files(runtime, late)


async def test_a_room_without_files_has_no_tables_for_them(tmp_path: Path) -> None:
    """They are made with the first file, and again after `delete_all`."""
    async with running(tmp_path, Echo) as runtime:

        async def work(instance: Any) -> list[bool]:
            found = []
            storage = instance.object.storage
            for step in (None, message(file_part()), message(file_part(PNG + b"x" * 9_000)), "delete", "again"):
                if step == "delete":
                    storage.delete_all()
                elif step is not None:
                    given = message(file_part(PNG + b"x" * 9_000)) if isinstance(step, str) else step
                    instance.object.files.take_message(given)
                found.append(bool(storage.sql("SELECT 1 FROM sqlite_schema WHERE name = 'file_chunks'")))
            return found

        found = await runtime.run_in(runtime.object_id(Echo, "r"), work)
        assert found == [False, False, True, False, True]
