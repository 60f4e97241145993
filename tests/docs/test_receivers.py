"""The webhook receivers of docs/how-to/subscriptions.md: what is genuine is worked on, and nothing else."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from tests.docs.pages import REPOSITORY, Sample, samples
from tests.docs.test_samples import LISTENING
from tests.e2e.served import free_port
from tests.requirements import need
from tests.running import HURRIED, eventually, serving

from perdure import App

pytestmark = pytest.mark.anyio

PAGE = REPOSITORY / "docs" / "how-to" / "subscriptions.md"

Receiver = Callable[[str, Path], Any]


def _sample(language: str, word: str) -> Sample:
    [found] = [item for item in samples(PAGE) if item.language == language and word in item.text]
    return found


@asynccontextmanager
async def _in_python(address: str, _folder: Path) -> AsyncIterator[str]:
    namespace: dict[str, Any] = {"__name__": "receiver"}
    exec(_sample("python", "check_webhook_signature").text.replace(LISTENING, address), namespace)
    async with serving(namespace["receiver"]) as listening:
        yield listening


@asynccontextmanager
async def _in_node(address: str, folder: Path) -> AsyncIterator[str]:
    need("node", shutil.which("node") is not None, "apt-get install nodejs")
    port = free_port()
    code = _sample("js", "isGenuine").text.replace(LISTENING, address)
    assert code.count("9000") == 1
    (folder / "receiver.mjs").write_text(code.replace("9000", str(port)))
    process = await asyncio.create_subprocess_exec("node", "receiver.mjs", cwd=folder)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        await process.wait()


RECEIVERS = {"python": _in_python, "node": _in_node}


@pytest.mark.parametrize("receiver", RECEIVERS.values(), ids=RECEIVERS)
async def test_receivers_work(receiver: Receiver, tmp_path: Path) -> None:
    """The page's subscription wakes the page's receiver, which acknowledges; a forged call is refused."""
    async with serving(App([], data=tmp_path / "data", limits=HURRIED)) as address:
        async with receiver(address, tmp_path) as listening, httpx2.AsyncClient(trust_env=False) as client:
            root = f"http://{address}/v1/stream"
            [key] = (await client.get(f"{root}/__ds/jwks.json")).json()["keys"]
            await eventually(lambda: _refuses_forgeries(client, f"http://{listening}/hook", key["kid"]))
            made = await client.put(f"{root}/__ds/subscriptions/packing", content=_subscription(listening))
            assert made.status_code == 201
            orders = f"{root}/shops/anna/orders"
            json_type = {"content-type": "application/json"}
            assert (await client.put(orders, headers=json_type)).status_code == 201
            appended = await client.post(orders, headers=json_type, content='[{"order": 1}, {"order": 2}]')
            assert appended.status_code == 204

            async def acknowledged() -> bool:
                document = (await client.get(f"{root}/__ds/subscriptions/packing")).json()
                return [item["acked_offset"] for item in document["streams"]] == ["0000000000000002"]

            await eventually(acknowledged)


async def _refuses_forgeries(client: httpx2.AsyncClient, url: str, kid: str) -> bool:
    now_s = int(time.time())
    for header in ("", f"t={now_s},kid={kid},ed25519={'A' * 86}", f"t={now_s},kid=ds_other,ed25519={'A' * 86}"):
        try:
            reply = await client.post(url, headers={"webhook-signature": header}, content='{"streams": []}')
        except httpx2.ConnectError:  # it is not up yet
            return False
        assert reply.status_code == 401
    return True


def _subscription(listening: str) -> str:
    """The configuration in the page's `curl` command."""
    text = _sample("sh", "webhook").text
    body = text[text.index("'{") + 1 : text.rindex("'")]
    return body.replace("127.0.0.1:9000", listening)
