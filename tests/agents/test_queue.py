"""The queue: in order, one at a time, over crashes, and nothing dropped."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.agents.worlds import START_MS, world

from perdure import callable
from perdure.agents.agent import Agent
from perdure.agents.callbacks import PAYLOAD_BYTES_MAX
from perdure.agents.current import current_agent
from perdure.agents.dead_letters import DEAD_LETTERS_MAX, ERROR_CHARACTERS_MAX
from perdure.agents.queue import QUEUE_ITEMS_MAX
from perdure.agents.retries import Retry
from perdure.errors import LimitExceeded, Overloaded


class Worker(Agent):
    """Works off its queue."""

    @callable
    async def put(self, callback: str, *payloads: Any, **options: Any) -> list[str]:
        return [self.queue(callback, payload, **options) for payload in payloads]

    @callable
    async def ask(self, name: str, *arguments: Any) -> Any:
        return getattr(self, name)(*arguments)

    @callable
    async def notes(self) -> list[Any]:
        return list(self.storage.get("notes", []))

    def note(self, what: Any) -> None:
        self.storage.put("notes", [*self.storage.get("notes", []), [self.now_ms() - START_MS, what]])

    async def work(self, what: str) -> None:
        self.note(f"begin {what}")
        await asyncio.sleep(10)
        self.note(f"end {what}")

    async def fail(self, what: str) -> None:
        self.note(f"fail {what}")
        raise ValueError(what * ERROR_CHARACTERS_MAX)

    async def cancel_itself(self, what: str) -> None:
        self.note(what)
        asyncio.get_running_loop().call_soon(asyncio.current_task)
        raise asyncio.CancelledError

    def who(self, what: str) -> None:
        current = current_agent()
        assert current is not None
        self.note([what, current.work.id, current.work.attempts])


def test_one_after_the_other(tmp_path: Path) -> None:
    """Items run in the order in which they came, never two at once; the queue shows those that are not done."""
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        ids = worker.put("work", "a", "b", "c")
        w.advance(5_000)
        assert [item.id for item in worker.ask("get_queue")] == ids
        w.advance(30_000)
        notes = ["begin a", "end a", "begin b", "end b", "begin c", "end c"]
        assert [what for _, what in worker.notes()] == notes
        assert worker.notes()[-1] == [30_000, "end c"]
        assert worker.ask("get_queue") == []
        w.hibernate(Worker)


def test_a_kill_runs_the_item_again(tmp_path: Path) -> None:
    """The one that ran begins anew, before the others; what is done is not done again."""
    with world(tmp_path, Worker) as w:
        w.get(Worker).put("work", "a", "b")
        w.advance(15_000)
        w.kill()
        w.advance(60_000)
        notes = ["begin a", "end a", "begin b", "begin b", "end b"]
        assert [what for _, what in w.get(Worker).notes()] == notes


def test_others_wait_for_an_item_that_fails(tmp_path: Path) -> None:
    """It is tried again with growing waits; at last it is a dead letter, and the next one runs."""
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        worker.put("fail", "x", retry=Retry(3, 1_000, 8_000))
        worker.put("who", "after")
        w.kill()
        w.advance(60_000)
        worker = w.get(Worker)
        notes = worker.notes()
        assert [what if isinstance(what, str) else what[0] for _, what in notes] == ["fail x"] * 3 + ["after"]
        assert notes[1][0] - notes[0][0] <= 1_000
        assert notes[2][0] - notes[1][0] <= 2_000
        [letter] = worker.ask("dead_letters")
        assert (letter.source, letter.callback, letter.payload, letter.attempts) == ("queue", "fail", "x", 3)
        assert letter.error == "ValueError: " + "x" * (ERROR_CHARACTERS_MAX - len("ValueError: "))


def test_a_dead_letter_goes_to_the_end_of_the_queue(tmp_path: Path) -> None:
    """With its id, behind those that wait."""
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        [failing] = worker.put("fail", "x", retry=Retry(1))
        w.advance(1_000)
        worker.put("work", "first")
        [letter] = worker.ask("dead_letters")
        assert letter.source_id == failing
        assert worker.ask("retry_dead_letter", letter.id) is True
        assert [item.id for item in worker.ask("get_queue")][-1] == failing
        w.advance(60_000)
        assert [what for _, what in worker.notes()] == ["fail x", "begin first", "end first", "fail x"]


def test_an_item_is_taken_out(tmp_path: Path) -> None:
    """One by its id, or all; one that runs goes on to its end."""
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        first, second, _ = worker.put("work", "a", "b", "c")
        assert worker.ask("dequeue", second) is True
        assert worker.ask("dequeue", second) is False
        w.advance(12_000)
        assert [item.payload for item in worker.ask("get_queue", "work")] == ["c"]
        assert worker.ask("get_queue", "fail") == []
        assert worker.ask("dequeue_all") == 1
        w.advance(60_000)
        assert [what for _, what in worker.notes()] == ["begin a", "end a", "begin c", "end c"]
        assert worker.ask("dequeue", first) is False


def test_a_callback_that_is_gone(tmp_path: Path) -> None:
    """A method that a new version of the class does not have is a failure like another."""

    class Newer(Worker):
        """The next version."""

    class Older(Worker):
        """The version before, which has one method more."""

        def gone(self, what: str) -> None:
            """Never called."""

    Newer.__name__ = Older.__name__ = "Versioned"
    with world(tmp_path, Older) as w:
        w.get(Older).put("work", "first")
        w.get(Older).put("gone", "x", retry=Retry(1))
        w.kill(Newer)
        w.advance(60_000)
        [letter] = w.get(Newer).ask("dead_letters")
        assert letter.error == "LookupError: Versioned has no method 'gone' any more"


def test_a_callback_that_cancels_itself(tmp_path: Path) -> None:
    """It has failed; the queue does not stand still."""
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        worker.put("cancel_itself", "x", retry=Retry(1))
        worker.put("who", "after")
        w.advance(1_000)
        assert [letter.error for letter in worker.ask("dead_letters")] == ["RuntimeError: cancelled by its own code"]
        assert len(worker.notes()) == 2


def test_a_callback_has_its_time(tmp_path: Path) -> None:
    """`alarm_ms_max` is the longest run; past it the run has failed."""
    with world(tmp_path, Worker, alarm_ms_max=9_999) as w:
        worker = w.get(Worker)
        worker.put("work", "too slow", retry=Retry(1))
        w.advance(60_000)
        assert [letter.error for letter in worker.ask("dead_letters")] == ["TimeoutError: "]
    with world(tmp_path / "b", Worker, alarm_ms_max=10_001) as w:
        worker = w.get(Worker)
        worker.put("work", "just in time")
        w.advance(60_000)
        assert [what for _, what in worker.notes()] == ["begin just in time", "end just in time"]


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`queue_items_max` and `payload_bytes_max` are the last that fit."""
    assert (QUEUE_ITEMS_MAX, DEAD_LETTERS_MAX) == (10_000, 1_000)
    monkeypatch.setattr("perdure.agents.queue.QUEUE_ITEMS_MAX", 2)
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        worker.put("work", "x" * (PAYLOAD_BYTES_MAX - 2))
        with pytest.raises(LimitExceeded, match="payload_bytes_max"):
            worker.put("work", "x" * (PAYLOAD_BYTES_MAX - 1))
        worker.put("work", "b")
        with pytest.raises(Overloaded, match="queue_items_max"):
            worker.put("work", "c")


def test_nothing_is_dropped_when_dead_letters_are_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At `dead_letters_max` what fails is tried on, until there is room."""
    monkeypatch.setattr("perdure.agents.dead_letters.DEAD_LETTERS_MAX", 1)
    with world(tmp_path, Worker) as w:
        worker = w.get(Worker)
        worker.put("fail", "a", "b", retry=Retry(1, 1_000, 5_000))
        w.advance(11_000)
        assert [letter.payload for letter in worker.ask("dead_letters")] == ["a"]
        assert [what for _, what in worker.notes()] == ["fail a", "fail b", "fail b", "fail b"]
        worker.ask("delete_dead_letter", worker.ask("dead_letters")[0].id)
        w.advance(5_000)
        assert [letter.payload for letter in worker.ask("dead_letters")] == ["b"]
        assert worker.ask("get_queue") == []


def test_a_server_that_stops_begins_nothing_more(tmp_path: Path) -> None:
    """An item that ends in time is done; those behind it wait for the next start, which takes them up at once."""
    with world(tmp_path, Worker, drain_ms_max=60_000) as w:
        w.get(Worker).put("work", "a", "b", "c")
        w.advance(1_000)
        w.restart()
        assert w.now_ms - START_MS < 15_000, "the stop waited for the first item only"
        began_ms = w.now_ms
        w.advance(60_000)
        notes = w.get(Worker).notes()
        assert [what for _, what in notes] == ["begin a", "end a", "begin b", "end b", "begin c", "end c"]
        assert notes[2][0] == began_ms - START_MS
