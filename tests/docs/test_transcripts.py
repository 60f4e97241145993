"""Every HTTP transcript of the documentation is what the server answers."""

from __future__ import annotations

from pathlib import Path

import httpx2
import pytest
from tests.docs.pages import PAGES, samples, title
from tests.docs.transcripts import Answer, Request, compare, filled, parse
from tests.running import HURRIED, serving

from perdure import App, ChatRoom, StreamLimits
from perdure.server.streams.accelerator import http_protocol

pytestmark = pytest.mark.anyio

WITH_TRANSCRIPTS = [page for page in PAGES if any(sample.language == "http" for sample in samples(page))]

IMPATIENT = StreamLimits(long_poll_ms=2_000, rotate_ms=300)
"""Live reads end soon."""

LISTENING = "127.0.0.1:8000"

WAYS = {"asgi": "0", "accelerated": "1"}


class Support(ChatRoom):
    """The room that the pages talk to."""

    model = "scripted:echo"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("page", WITH_TRANSCRIPTS, ids=title)
async def test_transcripts_are_what_happens(
    page: Path, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests of a page, sent one after another to one server, are answered as the page says."""
    monkeypatch.setenv("PERDURE_ACCELERATOR", WAYS[way])
    app = App([Support], data=tmp_path, limits=HURRIED, stream_limits=IMPATIENT)
    known: dict[str, str] = {}
    async with serving(app, http=http_protocol(app.stream_surface)) as address:
        async with httpx2.AsyncClient(base_url=f"http://{address}", trust_env=False, timeout=10) as client:
            for sample in samples(page):
                if sample.language == "http":
                    request, shown = parse(filled_with(sample.text, address, known))
                    try:
                        compare(shown, await _sent(client, request), known)
                    except AssertionError as error:
                        raise AssertionError(f"{title(page)}:{sample.line}: {error}") from error


def filled_with(text: str, address: str, known: dict[str, str]) -> str:
    """The block with this server's address, and the request with what was learned."""
    asked, mark, answered = text.replace(LISTENING, address).partition("\nHTTP/1.1 ")
    return filled(asked, known) + mark + answered


async def _sent(client: httpx2.AsyncClient, request: Request) -> Answer:
    response = await client.request(
        request.method, request.path, headers=request.headers, content=request.body.encode() or None
    )
    headers = {name.lower(): value for name, value in response.headers.items()}
    assert len(headers) == len(response.headers.raw), f"a header came twice: {response.headers.raw}"
    return Answer(response.status_code, headers, response.text.rstrip("\n"))


def test_there_are_transcripts() -> None:
    """The pages that have them are found."""
    assert "docs/reference/durable-streams.md" in [title(page) for page in WITH_TRANSCRIPTS]
