"""`App.durable_response` in a FastAPI application, with the npm clients as its readers, when the server goes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from tests.e2e.durable_clients import DurableReact, Node, State, durable_server
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React

LOST = {"type": "error", "errorText": "the server stopped while this was written"}


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    """The npm packages."""
    node = Node()
    yield node
    node.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A FastAPI application under uvicorn that mounts perdure's, to be killed and stopped."""
    served = durable_server(tmp_path_factory.mktemp("server"), plain=True)
    served.start()
    yield served
    served.stop()


@pytest.fixture(scope="module", params=[6, 7], ids=["ai6", "ai7"])
def durable(request: pytest.FixtureRequest) -> Iterator[React]:
    """Node with ``useChat`` over the Durable Streams transport."""
    react = DurableReact(request.param)
    yield react
    react.close()


def said(state: State) -> str:
    """The text that a reader has read."""
    return "".join(item.get("delta", "") for item in state["items"]).strip()


def test_use_chat_reads_an_applications_own_generator(durable: React, server: Served) -> None:
    """The route is named as the transport's ``api``; the answer comes word by word."""
    tab = durable.open(f"{server.url}/generate?count=40&delay_ms=50", "any")
    tab.do("send", text="Count")
    state = tab.until_ready()
    assert [(role, text.strip()) for role, text in state.texts] == [("user", "Count"), ("assistant", words(40))]
    assert len({text for _status, text in state.seen}) > 10


@pytest.mark.parametrize("end", [Served.kill, Served.stop], ids=["killed", "stopped"])
def test_readers_are_told_when_the_server_goes(node: Node, server: Served, end: Callable[[Served], None]) -> None:
    """After the restart the stream ends by itself: with what was said, once, and an entry that says what happened."""
    answer = server.post("/generate?count=1000&delay_ms=10", {})
    readers = [node.start("read", server.url + answer["streamUrl"], live=live) for live in ("sse", "long-poll")]
    for reader in readers:
        reader.until_read(10)
    end(server)
    server.start()
    states = [reader.until(lambda state: state["ended"] and state["items"][-1] == LOST) for reader in readers]
    states.append(
        node.start("read", server.url + answer["streamUrl"], live="sse").until(lambda state: state["ended"])
    )
    assert states[0]["items"] == states[1]["items"] == states[2]["items"]
    assert words(1_000).startswith(said(states[0]))
    assert 8 <= len(said(states[0]).split()) < 1_000
    assert server.post(answer["stopUrl"], {}) == {"success": True, "stopped": False}
