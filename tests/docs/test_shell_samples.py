"""Every `curl` and `perdure streams` command of the documentation works, and prints what the page says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.docs.pages import PAGES, Sample, samples, title
from tests.docs.test_samples import LISTENING, run_page
from tests.requirements import need
from tests.running import HURRIED, serving

from perdure import App, ChatRoom, DurableObject, StreamLimits

pytestmark = pytest.mark.anyio

IMPATIENT = StreamLimits(long_poll_ms=300, rotate_ms=300)
"""Commands that follow a stream end soon."""

_COMMAND = re.compile(r"^(\w+=\$\(|)(curl|perdure streams)\b", re.MULTILINE)
_EXPECTED = re.compile(r"\s{2,}# (.+)$")

PRELUDE = 'set -e\ncurl() { command curl -sS --fail-with-body --noproxy "*" --max-time 10 "$@"; }\n'
END = "-- end of a command --"


class Support(ChatRoom):
    """The room that commands talk to where a page has none of its own."""

    model = "scripted:echo"


def _runs(sample: Sample) -> bool:
    return sample.language == "sh" and _COMMAND.search(sample.text) is not None


WITH_COMMANDS = [page for page in PAGES if any(map(_runs, samples(page)))]


@pytest.mark.parametrize("page", WITH_COMMANDS, ids=title)
async def test_commands_do_what_the_page_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sent to a server with the page's own classes, block after block."""
    need("curl", shutil.which("curl") is not None, "apt-get install curl")
    monkeypatch.chdir(tmp_path)
    app = App(await _classes(page), data=tmp_path / "data", limits=HURRIED, stream_limits=IMPATIENT)
    async with serving(app) as address:
        for sample in filter(_runs, samples(page)):
            await _run(sample, address, f"{title(page)}:{sample.line}")


async def _classes(page: Path) -> list[type[DurableObject]]:
    """The classes that the page's own samples define; else a room."""
    code = "".join(sample.text for sample in samples(page) if sample.language == "python")
    if not code or LISTENING in code:
        return [Support]
    namespace = await asyncio.to_thread(run_page, page, "")
    found = [item for item in namespace.values() if isinstance(item, type) and issubclass(item, DurableObject)]
    return [item for item in found if item.__module__ == namespace["__name__"]] or [Support]


async def _run(sample: Sample, address: str, where: str) -> None:
    expected = []
    script = PRELUDE
    for line in sample.text.replace("\\\n", " ").replace(LISTENING, address).splitlines():
        match = _EXPECTED.search(line)
        expected.append(match[1] if match else None)
        script += f"{line}\necho '{END}'\n"
    environment = {**os.environ, "PERDURE_SERVER": f"http://{address}"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    process = await asyncio.create_subprocess_exec(
        "bash", "-c", script, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    assert process.returncode == 0, f"{where}: {output.decode()}{errors.decode()}"
    printed = [part.strip() for part in output.decode().split(END)[:-1]]
    for wanted, came in zip(expected, printed, strict=True):
        if wanted is not None:
            assert _value(came) == _value(wanted), where


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
