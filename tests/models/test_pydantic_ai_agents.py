"""Agents of pydantic-ai as a room's model: their tools run once, they wait for people, and go on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest
from tests.models.answers import Ledger, answer, answered, folded, shown

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

from pydantic_ai import Agent, CustomEvent, ModelRetry, RunContext, ToolReturn
from pydantic_ai import messages as ai
from pydantic_ai.exceptions import ApprovalRequired, CallDeferred, ToolFailed
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.tools import DeferredToolRequests

from perdure.errors import ModelError
from perdure.models.base import ToolSpec, TurnContext
from perdure.models.pydantic_ai import PreliminaryResult, PydanticAIModel, current_call
from perdure.models.registry import resolve_model
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import (
    Data,
    FinishStep,
    SourceUrl,
    StartStep,
    ToolApprovalRequest,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputStart,
    ToolOutputAvailable,
    ToolOutputDenied,
    ToolOutputError,
)

Say = str | list[tuple[str, str, dict[str, Any]]]
"""A response: text, or calls (id, tool, input)."""


class Provider:
    """Says its responses one after the other, and keeps what it was sent."""

    def __init__(self, *responses: Say) -> None:
        self.responses = list(responses)
        self.sent: list[list[ai.ModelMessage]] = []
        self.tools: list[set[str]] = []

    @property
    def model(self) -> FunctionModel:
        return FunctionModel(stream_function=self._stream)

    async def _stream(self, messages: list[ai.ModelMessage], info: AgentInfo) -> AsyncIterator[Any]:
        self.sent.append(messages)
        self.tools.append({tool.name for tool in info.function_tools})
        said = self.responses.pop(0)
        if isinstance(said, str):
            yield said
            return
        for number, (id, name, given) in enumerate(said):
            text = json.dumps(given)
            yield {number: DeltaToolCall(name=name, json_args=text[:4], tool_call_id=id)}
            yield {number: DeltaToolCall(json_args=text[4:])}

    def returns(self, request: int = -1) -> dict[str, tuple[str, Any]]:
        """The results that the provider was sent last: id -> (outcome, content)."""
        parts = [part for message in self.sent[request] for part in message.parts]
        return {
            part.tool_call_id: (part.outcome, part.content) for part in parts if isinstance(part, ai.ToolReturnPart)
        }


def _run(agent: Agent[Any, Any], turn: TurnContext) -> list[Any]:
    pieces, error = asyncio.run(answer(resolve_model(agent), turn))
    if error is not None:
        raise error
    return shown(pieces)


def _turn(message: ChatMessage | None = None, ledger: Ledger | None = None, **more: Any) -> TurnContext:
    messages = [user_message("1", "Hi")]
    return TurnContext(text="Hi", messages=messages, answer=message, ledger=ledger, turn_id="turn", **more)


def _shop(provider: Provider, effects: list[str]) -> Agent[None, str]:
    agent = Agent(provider.model)

    @agent.tool_plain
    def stock(article: str) -> dict[str, int]:
        effects.append(f"stock {article} {current_call().idempotency_key}")
        return {article: 12}

    @agent.tool_plain(requires_approval=True)
    async def order(article: str) -> str:
        effects.append(f"order {article} {current_call().idempotency_key}")
        return f"ordered {article}"

    return agent


def test_a_tools_call_and_result_are_shown() -> None:
    """The input as the provider writes it, the whole of it, the result; then the next step with the text."""
    effects: list[str] = []
    provider = Provider([("c1", "stock", {"article": "bell"})], "There are 12.")
    assert _run(_shop(provider, effects), _turn(ledger=Ledger())) == [
        ToolInputStart("c1", "stock", dynamic=True),
        ToolInputDelta("c1", '{"ar'),
        ToolInputDelta("c1", 'ticle": "bell"}'),
        ToolInputAvailable("c1", "stock", {"article": "bell"}, dynamic=True),
        ToolOutputAvailable("c1", {"bell": 12}, dynamic=True),
        FinishStep(),
        StartStep(),
        "There are 12.",
    ]
    assert effects == ["stock bell key-c1.run"]


def test_an_approval_ends_the_response_and_its_answer_goes_on() -> None:
    """Nothing is carried out before; afterwards once, and the provider is told."""
    effects: list[str] = []
    ledger = Ledger()
    provider = Provider([("c1", "order", {"article": "bell"})], "It is ordered.")
    agent = _shop(provider, effects)
    pieces = _run(agent, _turn(ledger=ledger))
    assert pieces[-2:] == [
        ToolInputAvailable("c1", "order", {"article": "bell"}, dynamic=True),
        ToolApprovalRequest("c1", "c1"),
    ]
    assert effects == []
    waiting = folded(pieces)
    yes = answered(waiting, "c1", state="approval-responded", approval={"id": "c1", "approved": True})
    assert _run(agent, _turn(yes, ledger)) == [
        ToolOutputAvailable("c1", "ordered bell", dynamic=True),
        FinishStep(),
        StartStep(),
        "It is ordered.",
    ]
    assert effects == ["order bell key-c1.approved"]
    assert provider.returns() == {"c1": ("success", "ordered bell")}


@pytest.mark.parametrize("state", ["approval-responded", "output-denied"])
def test_a_denial_is_told_to_the_model(state: str) -> None:
    """With the person's reason, whoever made the denial a result: the room, or the agent."""
    effects: list[str] = []
    provider = Provider([("c1", "order", {"article": "bell"})], "As you like.")
    agent = _shop(provider, effects)
    waiting = folded(_run(agent, _turn()))
    no = answered(waiting, "c1", state=state, approval={"id": "c1", "approved": False, "reason": "too dear"})
    pieces = _run(agent, _turn(no))
    assert pieces[-3:] == [FinishStep(), StartStep(), "As you like."]
    assert (ToolOutputDenied("c1") in pieces) is (state == "approval-responded")
    assert provider.returns() == {"c1": ("denied", "too dear")}
    assert effects == []


def test_calls_beside_one_that_waits_are_not_carried_out_again() -> None:
    """Their results are in the answer already."""
    effects: list[str] = []
    ledger = Ledger()
    calls = [("c1", "stock", {"article": "bell"}), ("c2", "order", {"article": "bell"})]
    provider = Provider(calls, "Done.")
    agent = _shop(provider, effects)
    waiting = folded(_run(agent, _turn(ledger=ledger)))
    yes = answered(waiting, "c2", state="approval-responded", approval={"id": "c2", "approved": True})
    pieces = _run(agent, _turn(yes, ledger))
    assert pieces[0] == ToolOutputAvailable("c2", "ordered bell", dynamic=True)
    assert effects == ["stock bell key-c1.run", "order bell key-c2.approved"]
    assert provider.returns() == {"c1": ("success", {"bell": 12}), "c2": ("success", "ordered bell")}


def test_a_tool_that_asks_by_itself_is_carried_out_after_the_answer() -> None:
    """`ApprovalRequired` in the tool: what it does once a person has agreed is another piece of work."""
    effects: list[str] = []
    provider = Provider([("c1", "pay", {"amount": 1000})], "Paid.")
    agent = Agent(provider.model)

    @agent.tool
    def pay(ctx: RunContext[object], amount: int) -> str:
        if amount > 100 and not ctx.tool_call_approved:
            raise ApprovalRequired
        effects.append(f"paid {amount}")
        return "paid"

    ledger = Ledger()
    pieces = _run(agent, _turn(ledger=ledger))
    assert pieces[-1] == ToolApprovalRequest("c1", "c1")
    yes = answered(folded(pieces), "c1", state="approval-responded", approval={"id": "c1", "approved": True})
    for _ in range(2):  # the second time as after a crash: from the ledger
        provider.responses = ["Paid."]
        assert _run(agent, _turn(yes, ledger))[0] == ToolOutputAvailable("c1", "paid", dynamic=True)
    assert effects == ["paid 1000"]


def test_a_crash_in_a_step_with_several_calls_repeats_none() -> None:
    """Those with results are not asked again, those in the ledger give theirs, those cut off are told as such."""
    effects: list[str] = []
    provider = Provider("All done.")
    agent = Agent(provider.model)

    @agent.tool_plain
    def effect(number: int) -> int:
        effects.append(f"effect {number}")
        return number

    @agent.tool_plain(metadata={"idempotent": True})
    def again(number: int) -> int:
        effects.append(f"again {number} {current_call().attempt}")
        return number

    ledger = Ledger()
    ledger.rows = {"c2.run": {"attempt": 1, "result": "2"}, "c3.run": {"attempt": 1}, "c4.run": {"attempt": 1}}
    crashed = folded(
        [
            "Let me see.",
            *(ToolInputAvailable(f"c{number}", "effect", {"number": number}, dynamic=True) for number in (1, 2, 3)),
            ToolInputAvailable("c4", "again", {"number": 4}, dynamic=True),
            ToolOutputAvailable("c1", 1, dynamic=True),
            ToolInputAvailable("c5", "effect", {"number": 5}, dynamic=True),
        ]
    )
    pieces = _run(agent, _turn(crashed, ledger))
    assert effects == ["again 4 2", "effect 5"] or effects == ["effect 5", "again 4 2"]
    assert pieces[-1] == "All done."
    outputs = {piece for piece in pieces if isinstance(piece, ToolOutputAvailable)}
    assert {(piece.tool_call_id, piece.output) for piece in outputs} == {("c2", 2), ("c4", 4), ("c5", 5)}
    assert ToolOutputError("c3", "effect was cut off", dynamic=True) in pieces
    assert provider.returns() == {
        "c1": ("success", 1),
        "c2": ("success", 2),
        "c3": ("failed", "effect was cut off"),
        "c4": ("success", 4),
        "c5": ("success", 5),
    }


def test_a_finished_step_is_history_for_the_next_attempt() -> None:
    """The partial text of the step after it is gone on with."""
    effects: list[str] = []
    provider = Provider("There are 12 bells in stock.")
    done = folded(
        [
            ToolInputAvailable("c1", "stock", {"article": "bell"}, dynamic=True),
            ToolOutputAvailable("c1", {"bell": 12}, dynamic=True),
        ]
    )
    turn = _turn(done, Ledger(), partial="There are 12 bells")
    assert _run(_shop(provider, effects), turn) == [" in stock."]
    assert effects == []
    kinds = [type(part).__name__ for message in provider.sent[0] for part in message.parts]
    assert kinds == ["UserPromptPart", "ToolCallPart", "ToolReturnPart", "TextPart", "UserPromptPart"]


def test_the_rooms_tools_are_called_and_left_to_the_room() -> None:
    """Beside the agent's own; the response ends with the call, and goes on with its result."""
    effects: list[str] = []
    schema = {"type": "object", "properties": {"text": {"type": "string"}}}
    note = ToolSpec("note", "Write something down.", schema)
    calls = [("c1", "note", {"text": "12"}), ("c2", "stock", {"article": "bell"})]
    provider = Provider(calls, "Noted.")
    agent = _shop(provider, effects)
    pieces = _run(agent, _turn(ledger=Ledger(), tools=[note]))
    assert provider.tools == [{"note", "stock", "order"}]
    assert ToolInputAvailable("c1", "note", {"text": "12"}) in pieces
    assert pieces[-1] == ToolOutputAvailable("c2", {"bell": 12}, dynamic=True)
    done = answered(folded(pieces), "c1", state="output-available", output=None)
    assert _run(agent, _turn(done, tools=[note])) == [FinishStep(), StartStep(), "Noted."]
    assert provider.returns() == {"c1": ("success", None), "c2": ("success", {"bell": 12})}


def test_a_deferred_call_waits_for_its_result() -> None:
    """`CallDeferred` in a tool: somebody else gives the result."""
    provider = Provider([("c1", "ask", {})], "Blue it is.")
    agent = Agent(provider.model)

    @agent.tool_plain
    def ask() -> str:
        raise CallDeferred(kind="question")

    pieces = _run(agent, _turn(ledger=Ledger()))
    assert pieces[-1] == ToolInputAvailable("c1", "ask", {}, dynamic=True)
    done = answered(folded(pieces), "c1", state="output-available", output="blue")
    assert _run(agent, _turn(done)) == [FinishStep(), StartStep(), "Blue it is."]
    assert provider.returns() == {"c1": ("success", "blue")}


@pytest.mark.parametrize(
    ("raised", "text"),
    [(ModelRetry("Say which."), "Say which."), (ToolFailed("No such article."), "No such article.")],
)
def test_what_a_tool_tells_the_model_is_an_error_part(raised: Exception, text: str) -> None:
    """Also when it comes from the ledger after a crash."""
    ledger = Ledger()
    for _ in range(2):
        provider = Provider([("c1", "stock", {})], "Sorry.")
        agent = Agent(provider.model)

        @agent.tool_plain
        def stock() -> str:
            raise raised

        pieces = _run(agent, _turn(ledger=ledger))
        assert ToolOutputError("c1", text, dynamic=True) in pieces
        assert pieces[-1] == "Sorry."
    assert ledger.began == ["c1.run"]


def test_an_input_that_does_not_fit_is_an_error_part() -> None:
    """The model is told why and tries again."""
    provider = Provider([("c1", "stock", {"article": 7})], [("c2", "stock", {"article": "bell"})], "12.")
    pieces = _run(_shop(provider, []), _turn(ledger=Ledger()))
    errors = [piece for piece in pieces if isinstance(piece, ToolOutputError)]
    assert [error.tool_call_id for error in errors] == ["c1"]
    assert "valid string" in errors[0].error_text
    assert ToolOutputAvailable("c2", {"bell": 12}, dynamic=True) in pieces


def test_a_failing_tool_fails_the_answer() -> None:
    """Other people's exceptions come out as a `ModelError` with their cause; the ledger remembers them."""
    agent = Agent(TestModel())

    @agent.tool_plain
    def weather(city: str) -> str:
        raise LookupError(f"no weather in {city}")

    pieces, error = asyncio.run(answer(resolve_model(agent), TurnContext(text="Weather?", ledger=Ledger())))
    assert isinstance(error, ModelError)
    assert isinstance(error.__cause__, LookupError)
    assert "no weather in a" in str(error)
    assert isinstance(pieces[-1], ToolInputAvailable)


@dataclass(kw_only=True)
class Progress(CustomEvent):
    """How far a tool is."""

    done: int


@dataclass(kw_only=True)
class Audit(CustomEvent, ui=False):
    """Not for people."""


def test_a_tool_can_show_more_than_its_result() -> None:
    """Chunks as the metadata of a `ToolReturn`, and events on the way, unless they are not for people."""
    source = SourceUrl("s1", "https://example.com", title="Stock")
    provider = Provider([("c1", "stock", {})], "12.")
    agent = Agent(provider.model)

    @agent.tool
    async def stock(ctx: RunContext[object]) -> ToolReturn[int]:
        await ctx.emit(Progress(done=1))
        await ctx.emit(Audit())
        return ToolReturn(12, content="Counted today.", metadata=[source])

    ledger = Ledger()
    pieces = _run(agent, _turn(ledger=ledger))
    data = [piece for piece in pieces if isinstance(piece, Data)]
    assert [(piece.type, piece.data["done"]) for piece in data] == [("data-progress", 1)]
    output = ToolOutputAvailable("c1", 12, dynamic=True)
    assert pieces[-5:] == [output, source, FinishStep(), StartStep(), "12."]
    assert "Counted today." in str(provider.sent[-1][-1])
    assert ledger.rows["c1.run"]["result"] == "12"


def test_a_tool_can_show_what_it_has_so_far() -> None:
    """Preliminary results under the call's own id."""
    provider = Provider([("c1", "count", {})], [("c1", "count", {})], "Two.")
    agent = Agent(provider.model)

    @agent.tool
    async def count(ctx: RunContext[object]) -> int:
        await ctx.emit(PreliminaryResult(output={"so far": 1}))
        return 2

    pieces = _run(agent, _turn(ledger=Ledger()))
    shown_outputs = [
        (piece.tool_call_id, piece.output, piece.preliminary)
        for piece in pieces
        if isinstance(piece, ToolOutputAvailable)
    ]
    assert shown_outputs == [
        ("c1", {"so far": 1}, True),
        ("c1", 2, None),
        ("c1-2", {"so far": 1}, True),
        ("c1-2", 2, None),
    ]


def test_an_agent_without_tools_reads_calls_as_text() -> None:
    """Where another model of the room made them: providers refuse calls of tools that they are not told of."""
    provider = Provider("Thanks.")
    call = ToolInputAvailable("c1", "stock", {"article": "bell"})
    done = folded([call, ToolOutputAvailable("c1", {"bell": 12})])
    messages = [user_message("1", "Hi"), done, user_message("2", "And?")]
    assert _run(Agent(provider.model), TurnContext(text="And?", messages=messages)) == ["Thanks."]
    parts = [part for message in provider.sent[0] for part in message.parts]
    assert [str(getattr(part, "content", part)) for part in parts] == [
        "Hi",
        '[I call stock with {"article":"bell"}]',
        '[stock says: {"bell":12}]',
        "And?",
    ]


def test_a_call_begins_when_the_room_has_it() -> None:
    """An effect whose call nobody knows would be asked for again after a crash."""
    began: list[str] = []
    agent = _shop(Provider([("c1", "stock", {"article": "bell"})], "12."), began)

    async def main() -> None:
        response = PydanticAIModel(agent).respond(_turn(ledger=Ledger()))
        async for piece in response:
            if isinstance(piece, ToolInputAvailable):
                await asyncio.sleep(0.05)
                assert began == []
        assert began == ["stock bell key-c1.run"]

    asyncio.run(main())


def test_providers_may_use_ids_of_calls_again() -> None:
    """In another step it is another call; the ledger and the answer know it under an id of its own."""
    effects: list[str] = []
    ledger = Ledger()
    call = [("c1", "stock", {"article": "bell"})]
    provider = Provider(call, call, [("c1", "order", {"article": "bell"})], "12.")
    agent = _shop(provider, effects)
    pieces = _run(agent, _turn(ledger=ledger))
    outputs = [piece.tool_call_id for piece in pieces if isinstance(piece, ToolOutputAvailable)]
    assert outputs == ["c1", "c1-2"]
    assert pieces[-1] == ToolApprovalRequest("c1-3", "c1-3")
    yes = answered(folded(pieces), "c1-3", state="approval-responded", approval={"id": "c1-3", "approved": True})
    provider.responses = [call, "12."]
    pieces = _run(agent, _turn(yes, ledger))
    assert [piece.tool_call_id for piece in pieces if isinstance(piece, ToolOutputAvailable)] == ["c1-3", "c1-4"]
    assert [effect.split()[-1] for effect in effects] == [
        "key-c1.run",
        "key-c1-2.run",
        "key-c1-3.approved",
        "key-c1-4.run",
    ]


def test_a_tool_that_asked_asks_again_after_a_crash() -> None:
    """The ledger has that it asked; the room does not yet."""
    ledger = Ledger()
    provider = Provider("Unused.")
    agent = Agent(provider.model)

    @agent.tool_plain
    def pay() -> str:
        raise ApprovalRequired

    @agent.tool_plain
    def ask() -> str:
        raise CallDeferred

    calls = [ToolInputAvailable(name, name, {}, dynamic=True) for name in ("pay", "ask")]
    for _ in range(2):
        pieces = _run(agent, _turn(folded(calls), ledger))
        assert pieces == [ToolApprovalRequest("pay", "pay")]
    assert sorted(ledger.began) == ["ask.run", "pay.run"]


def test_an_answer_that_ends_with_calls_ends_in_a_step_of_its_own() -> None:
    """A room goes on after a step with calls; the agent's output says that it has ended."""
    provider = Provider([("c1", "stock", {"article": "bell"}), ("c2", "final_result", {"response": [12]})])
    agent = Agent(provider.model, output_type=list[int])

    @agent.tool_plain
    def stock(article: str) -> int:
        return 12

    assert _run(agent, _turn(ledger=Ledger()))[-4:] == [FinishStep(), StartStep(), Data("data-output", [12]), "[12]"]


def test_a_slow_tool_is_no_silence() -> None:
    """It gives signs of life, empty texts, also for the room's watchdog."""
    provider = Provider([("c1", "slow", {})], "Done.")
    agent = Agent(provider.model)

    @agent.tool_plain
    async def slow() -> str:
        await asyncio.sleep(0.4)
        return "slow"

    model = PydanticAIModel(agent, silence_timeout_ms=200)
    pieces, error = asyncio.run(answer(model, _turn(ledger=Ledger())))
    assert (shown(pieces)[-1], error) == ("Done.", None)
    output = pieces.index(ToolOutputAvailable("c1", "slow", dynamic=True))
    assert "" in pieces[:output]


def test_a_structured_output_is_data_and_text() -> None:
    """A data part for programs, JSON for people; the call that carried it is not shown, and it stays in history."""
    agent = Agent(TestModel(custom_output_args=[1, 2]), output_type=list[int])
    pieces = _run(agent, _turn())
    assert pieces == [Data("data-output", [1, 2]), "[1,2]"]
    provider = Provider("And 3.")
    messages = [user_message("1", "Numbers?"), folded(pieces[:1]), user_message("2", "More?")]
    _run(Agent(provider.model), TurnContext(text="More?", messages=messages))
    said = [part for part in provider.sent[0][1].parts if isinstance(part, ai.TextPart)]
    assert [part.content for part in said] == ["[1, 2]"]


def test_an_agent_keeps_its_output_type_and_its_own_deferrals() -> None:
    """One that names `DeferredToolRequests` itself is run as it is; so is one with output validators."""
    provider = Provider([("c1", "order", {})], "Fine.", "Fine.")
    agent = Agent(provider.model, output_type=[str, DeferredToolRequests])

    @agent.tool_plain(requires_approval=True)
    def order() -> str:
        return "ordered"

    @agent.output_validator
    def polite(output: Any) -> Any:
        return output

    assert _run(agent, _turn())[-1] == ToolApprovalRequest("c1", "c1")
    plain = Agent(provider.model)
    plain.output_validator(lambda output: output)
    assert _run(plain, _turn()) == ["Fine."]


def test_an_agents_system_prompt_and_dependencies_reach_it() -> None:
    """Though the conversation comes from the room."""
    provider = Provider("Hello Ada.")
    agent = Agent(provider.model, deps_type=str, system_prompt="Be short.", instructions="Be kind.")

    @agent.instructions
    def who(ctx: RunContext[str]) -> str:
        return f"You work in {ctx.deps}."

    model = PydanticAIModel(agent, deps=lambda turn: f"room {turn.room}")
    turn = TurnContext(text="Hi", messages=[user_message("1", "Hi")], room="shop", instructions="In English.")
    pieces, error = asyncio.run(answer(model, turn))
    assert (shown(pieces), error) == (["Hello Ada."], None)
    request = provider.sent[0][0]
    assert isinstance(request, ai.ModelRequest)
    assert [type(part).__name__ for part in request.parts] == ["SystemPromptPart", "UserPromptPart"]
    for words in ("Be kind.", "In English.", "You work in room shop."):
        assert words in str(request.instructions)


def test_current_call_is_for_tools_only() -> None:
    """Outside of one there is none."""
    with pytest.raises(LookupError):
        current_call()
