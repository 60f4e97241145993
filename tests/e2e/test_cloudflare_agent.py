"""`AgentClient` and `useAgent` of npm ``agents`` against a real server: identity, state, calls, reconnects."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import pytest
from tests.e2e.cloudflare import Cloudflare, Tab
from tests.e2e.line import Line
from tests.e2e.served import Served

_names = count(1)

Open = Callable[..., Tab]


@pytest.fixture
def name() -> str:
    """An agent of one's own."""
    return f"board {next(_names)}"


@pytest.fixture(params=["client", "agent"], ids=["AgentClient", "useAgent"])
def open_tab(request: pytest.FixtureRequest, cloudflare: Cloudflare, agents_server: Served, name: str) -> Open:
    """Opens a client of the test's board."""

    def opener(agent: str = "GameBoard", *, url: str = agents_server.url, **options: object) -> Tab:
        return cloudflare.open(request.param, url, agent, name, **options)

    return opener


def test_a_client_knows_whom_it_has_reached(open_tab: Open, name: str) -> None:
    """By the class in kebab case and the name as it is; and it has the state."""
    shown = open_tab().until(lambda shown: shown.identified and shown.state is not None)
    assert (shown.agent, shown.name, shown.state) == ("game-board", name, {"count": 0})
    assert shown.told("identity") == [[name, "game-board"]]
    assert shown.told("state") == [[{"count": 0}, "server"]]


def test_an_agent_without_a_state(open_tab: Open, name: str) -> None:
    """The client is ready without one, and gets the first that is set."""
    first, second = open_tab("BlankAgent"), open_tab("BlankAgent")
    first.do("ready", key="ready")
    assert first.until(lambda shown: "ready" in shown.results).results["ready"] == {"value": None}
    second.until_identified()
    first.do("set-state", state=["something"])
    assert second.until(lambda shown: shown.state is not None).state == ["something"]


def test_the_state_goes_both_ways(open_tab: Open) -> None:
    """A client's to the others and into the agent; the agent's to everyone, its caller too, before the result."""
    first, second = open_tab(), open_tab()
    first.until_identified()
    second.until_identified()
    first.do("set-state", state={"count": 4})
    assert second.until(lambda shown: shown.state == {"count": 4}).told("state")[-1] == [{"count": 4}, "server"]
    assert first.call("add", 3) == {"value": 7}
    assert first.shown().state == {"count": 7}
    second.until(lambda shown: shown.state == {"count": 7})
    assert first.shown().told("state") == [
        [{"count": 0}, "server"],
        [{"count": 4}, "client"],
        [{"count": 7}, "server"],
    ]


def test_a_state_that_is_refused(open_tab: Open) -> None:
    """Its sender is told; the others see nothing of it, and the next state heals the sender."""
    first, second = open_tab(), open_tab()
    first.until_identified()
    second.until_identified()
    first.do("set-state", state={"count": -1})
    assert first.until(lambda shown: shown.told("refused")).told("refused") == [["State update rejected"]]
    assert second.call("add", 1) == {"value": 1}
    first.until(lambda shown: shown.state == {"count": 1})
    assert second.shown().told("state") == [[{"count": 0}, "server"], [{"count": 1}, "server"]]


def test_read_only_clients(open_tab: Open) -> None:
    """They follow the state and cannot change it, neither by themselves nor through a method."""
    viewer, player = open_tab(query={"role": "viewer"}), open_tab()
    viewer.until_identified()
    viewer.do("set-state", state={"count": 5})
    assert viewer.until(lambda shown: shown.told("refused")).told("refused") == [["Connection is readonly"]]
    assert viewer.call("add", 1) == {"error": "Connection is readonly"}
    assert viewer.call("later", 0, "read", key="read") == {"value": "read"}
    player.until_identified()
    assert player.call("add", 2) == {"value": 2}
    viewer.until(lambda shown: shown.state == {"count": 2})


def test_calls(open_tab: Open) -> None:
    """Results, failures with their reasons, and several at a time; `stub` is another spelling."""
    tab = open_tab()
    tab.until_identified()
    tab.do("call", key="slow", method="later", args=[0.1, {"a": [1]}])
    tab.do("stub", key="quick", method="later", args=[0, None])
    assert "slow" not in tab.until(lambda shown: "quick" in shown.results).results
    shown = tab.until(lambda shown: "slow" in shown.results)
    assert (shown.results["slow"], shown.results["quick"]) == ({"value": {"a": [1]}}, {"value": None})
    assert tab.call("fail", "so it is", key="1") == {"error": "so it is"}
    assert tab.call("nothing", key="2") == {"error": "Method nothing does not exist"}
    assert tab.call("on_message", key="3") == {"error": "Method on_message is not callable"}
    assert tab.call("add", "x", key="4") == {"error": "add: argument by: Expected `int`, got `str`"}


def test_streaming_calls(open_tab: Open) -> None:
    """Each value as it comes, then the end; an error after some of them."""
    tab = open_tab()
    tab.until_identified()
    tab.do("stream", key="a", method="count_to", args=[4, 0.01])
    tab.do("stream", key="b", method="count_to", args=[20])
    results = tab.until(lambda shown: "a" in shown.results and "b" in shown.results).results
    assert results["a values"] == [1, 2, 3, 4, ["done", None]]
    assert results["a"] == {"value": None}
    assert results["b values"] == [*range(1, 14), ["error", "unlucky"]]
    assert results["b"] == {"error": "unlucky"}


def test_other_frames_are_the_application_s(open_tab: Open) -> None:
    """They reach `on_message`, and its answer the client's listeners; nothing is closed."""
    tab = open_tab()
    tab.until_identified()
    for data in ("hello", '{"type":"mine"}', "[1]"):
        tab.do("raw", data=data)
    shown = tab.until(lambda shown: len(shown.told("message")) == 3)
    assert shown.told("message") == [["heard 'hello'"], ['heard \'{"type":"mine"}\''], ["heard '[1]'"]]
    assert shown.open


def test_a_cut_line(open_tab: Open, agents_server: Served) -> None:
    """Calls that were sent fail, those that wait for the line run once, and the state of then is there after it."""
    line = Line(agents_server.port)
    tab, other = open_tab(url=line.url), open_tab()
    tab.until_identified()
    other.until_identified()
    tab.do("call", key="sent", method="later", args=[5, 1])
    line.cut()
    tab.until(lambda shown: not shown.open)
    assert tab.shown().results["sent"] == {"error": "Connection closed"}
    tab.do("call", key="queued", method="add", args=[10])
    other.do("set-state", state={"count": 5})
    line.mend()
    shown = tab.until(lambda shown: "queued" in shown.results and shown.identified)
    assert shown.results["queued"] == {"value": 15}
    tab.until(lambda shown: shown.state == {"count": 15})  # shown by React, a moment after the call is settled
    other.until(lambda shown: shown.state == {"count": 15})
    line.close()


def test_an_unknown_agent_is_the_end(open_tab: Open) -> None:
    """The client is told why, and does not try again."""
    [ended] = open_tab("Nobody").until(lambda shown: shown.told("ended")).told("ended")
    assert ended == [1008, "there is no agent 'nobody' here (known: blank-agent, game-board, talk-room)"]


def test_requests_over_http(agents_server: Served, name: str) -> None:
    """They reach `on_request`, below the agent's address too; other classes are 400."""
    base = f"/agents/game-board/{name}".replace(" ", "%20")
    with agents_server.open(f"{base}/some/path") as response:
        assert response.read().decode() == f"GET /agents/game-board/{name}/some/path of {name}"
    with agents_server.open(base, {}) as response:
        assert response.read().decode() == f"POST /agents/game-board/{name} of {name}"
    with agents_server.open("/agents/nobody/a") as response:
        assert response.status == 400
    with agents_server.open("/agents/blank-agent/a") as response:
        assert response.status == 404


def test_a_child_of_an_agent(cloudflare: Cloudflare, agents_server: Served, name: str) -> None:
    """`sub` leads to it when its parent has made it, with a state of its own; before that there is nothing."""
    address = {"url": agents_server.url, "agent": "GameBoard", "name": name}
    sub = [{"agent": "GameBoard", "name": "child"}]
    early = cloudflare.open("agent", sub=sub, **address)
    [[code, _reason]] = early.until(lambda shown: shown.told("ended")).told("ended")
    assert code == 1008
    parent = cloudflare.open("agent", **address)
    parent.until_identified()
    assert parent.call("make_child", "child") == {"value": None}
    child = cloudflare.open("agent", sub=sub, **address)
    child.until_identified()
    assert child.call("add", 5) == {"value": 5}
    child.until(lambda shown: shown.state == {"count": 5})
    assert parent.shown().state == {"count": 0}


def test_a_killed_server(cloudflare: Cloudflare, mortal_agents: Served) -> None:
    """The state of before it is there after it, without anything that the client does."""
    tab = cloudflare.open("agent", mortal_agents.url, "game-board", "a")
    tab.until_identified()
    assert tab.call("add", 41) == {"value": 41}
    mortal_agents.restart_after_kill()
    shown = tab.until(lambda shown: len(shown.told("identity")) == 2 and shown.identified)
    assert shown.state == {"count": 41}
    assert tab.call("add", 1, key="again") == {"value": 42}
