"""``useChat`` when the page, the network or the server goes away: each word once, and no false end."""

from __future__ import annotations

from collections.abc import Callable

from tests.client_matrix import shows
from tests.e2e.line import Line
from tests.e2e.served import Served
from tests.e2e.tab import words
from tests.e2e.use_chat import React, State

RoomOf = Callable[[str], str]


def whole(state: State) -> bool:
    """Whether the answer is complete and settled."""
    return state.status == "ready" and state.answer == words(80)


def test_a_page_that_is_opened_again_resumes(react: React, server: Served, room_of: RoomOf) -> None:
    """Unmounted and mounted amid the answer, with nothing kept: it comes from its first word."""
    room = room_of("words")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(20)
    tab.close()
    again = react.open(server.url, room, resume=True)
    state = again.until(whole)
    assert state.texts == [("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in state.seen)


def test_a_page_with_its_messages_resumes(react: React, server: Served, room_of: RoomOf) -> None:
    """The same with the messages that the server has: nothing doubles."""
    room = room_of("words")
    tab = react.open(server.url, room)
    tab.do("send", text="Count")
    tab.until_words(20)
    tab.close()
    again = react.open(server.url, room, resume=True, messages=server.get(f"/api/chat/{room}/messages"))
    state = again.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in state.seen)


def test_a_cut_line_is_an_error_and_resumes(react: React, server: Served, line: Line, room_of: RoomOf) -> None:
    """Three cuts amid one answer, each an error that the client sees, each healed by ``resumeStream``."""
    tab = react.open(line.url, room_of("words"))
    tab.do("send", text="Count")
    for count in (10, 25, 40):
        tab.until_words(count)
        line.drop()
        tab.until(lambda state: state.status == "error")
        tab.do("resume")
    state = tab.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in state.seen)


def test_sending_again_joins_the_turn(react: React, server: Served, line: Line, room_of: RoomOf) -> None:
    """A client that saw its request fail may repeat it: one message, one answer."""
    room = room_of("words")
    tab = react.open(line.url, room)
    tab.do("send", text="Count", id="question-1")
    tab.until_words(20)
    line.drop()
    tab.until(lambda state: state.status == "error")
    message = {"id": "question-1", "role": "user", "parts": [{"type": "text", "text": "Count"}]}
    body = {"id": room, "trigger": "submit-message", "messages": [message]}
    with server.open("/api/chat", body) as response:
        replayed = response.read().decode()
    assert replayed.startswith('data: {"type":"start","messageId":"' + tab.state().messages[1]["id"])
    assert replayed.count('"type":"start"') == 1
    assert replayed.endswith('data: {"type":"finish","finishReason":"stop"}\n\ndata: [DONE]\n\n')
    stored = server.get(f"/api/chat/{room}/messages")
    assert [each["role"] for each in stored] == ["user", "assistant"]


def test_an_answer_that_has_just_ended_is_replayed(react: React, server: Served, line: Line, room_of: RoomOf) -> None:
    """A client that was cut gets the end, though that came while it was away."""
    room = room_of("brief")
    tab = react.open(line.url, room)
    tab.do("send", text="Count")
    tab.until_words(5)
    line.cut()
    tab.until(lambda state: state.status == "error")
    while server.get(f"/api/chat/{room}/messages")[-1]["parts"][-1].get("state") == "streaming":
        pass
    line.mend()
    tab.do("resume")
    tab.until(lambda state: state.status == "ready" and state.answer == words(40))


def _cut_off_amid_an_answer(react: React, served: Served, end: Callable[[], None]) -> None:
    tab = react.open(served.url, "slow-1")
    tab.do("send", text="Count")
    tab.until_words(10)
    end()
    state = tab.until(lambda state: state.status != "streaming")
    assert state.status == "error"
    assert state.error
    assert words(80).startswith(state.answer)
    assert len(state.answer.split()) < 80
    served.start()
    tab.do("resume")
    state = tab.until(whole)
    assert state.texts == [("user", "Count"), ("assistant", words(80))]
    assert all(words(80).startswith(text or "") for _status, text in state.seen)


@shows("useChat", "crash")
def test_a_killed_server(react: React, mortal: Served) -> None:
    """``kill -9``: the client sees an error and no false end; after the restart it gets the whole, once."""
    _cut_off_amid_an_answer(react, mortal, mortal.kill)


def test_a_stopped_server(react: React, mortal: Served) -> None:
    """A planned restart that does not wait for the answer: the same."""
    _cut_off_amid_an_answer(react, mortal, mortal.stop)


def test_a_server_stopped_under_uvicorn(react: React, under_uvicorn: Served) -> None:
    """Without ``perdure run`` it ends less gracefully, but as safely."""
    _cut_off_amid_an_answer(react, under_uvicorn, under_uvicorn.stop)


def test_a_patient_server_lets_an_answer_end(react: React, patient: Served) -> None:
    """Stopped amid the answer: whoever reads it gets it to its end before the server goes."""
    tab = react.open(patient.url, "words-1")
    tab.do("send", text="Count")
    tab.until_words(10)
    patient.stop()
    assert tab.until_ready().texts == [("user", "Count"), ("assistant", words(80))]
    patient.start()
