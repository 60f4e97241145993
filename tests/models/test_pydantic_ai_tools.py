"""Bare models call the room's tools, over the providers' own wire formats."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.models.answers import answer, answered, folded, shown
from tests.models.fake_providers import FakeProviders

pytest.importorskip("pydantic_ai", reason="`pip install 'perdure[ai]'`")

from pydantic_ai.models.anthropic import AnthropicModel
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.anthropic import AnthropicProvider
from pydantic_ai.providers.openai import OpenAIProvider

from perdure.models.base import ToolSpec, TurnContext
from perdure.models.pydantic_ai import PydanticAIModel
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import (
    Finish,
    SourceUrl,
    ToolInputAvailable,
    ToolInputDelta,
    ToolInputError,
    ToolInputStart,
    ToolOutputAvailable,
)

APIS = ("anthropic", "openai_chat", "openai_responses")

WEATHER = ToolSpec(
    "weather",
    "The weather of a city.",
    {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
)


def _model(api: str, fake: FakeProviders) -> PydanticAIModel:
    source: Any
    if api == "anthropic":
        source = AnthropicModel("claude-haiku-4-5", provider=AnthropicProvider(base_url=fake.url, api_key="key"))
    else:
        provider = OpenAIProvider(base_url=f"{fake.url}/v1", api_key="key")
        kind = OpenAIChatModel if api == "openai_chat" else OpenAIResponsesModel
        source = kind("gpt-5.6-sol", provider=provider)
    return PydanticAIModel(source)


def _turn(message: ChatMessage | None = None, **more: Any) -> TurnContext:
    messages = [user_message("1", "Weather in Paris?")]
    return TurnContext(text="Weather in Paris?", messages=messages, answer=message, **more)


async def _said(model: PydanticAIModel, turn: TurnContext) -> list[Any]:
    pieces, error = await answer(model, turn)
    if error is not None:
        raise error
    return shown(pieces)


def _call(api: str, fake: FakeProviders) -> dict[str, Any]:
    """The call and its result as the provider was sent them in its last request."""
    request = fake.requests[-1]
    if api == "anthropic":
        blocks = [block for message in request["messages"] for block in message["content"]]
        use = next(block for block in blocks if block["type"] == "tool_use")
        result = next(block for block in blocks if block["type"] == "tool_result")
        content = result["content"]
        text = content if isinstance(content, str) else content[0]["text"]
        return {"id": use["id"], "input": use["input"], "result": text, "is_error": result.get("is_error", False)}
    if api == "openai_chat":
        call = next(message for message in request["messages"] if message.get("tool_calls"))["tool_calls"][0]
        result = next(message for message in request["messages"] if message["role"] == "tool")
        return {"id": call["id"], "input": call["function"]["arguments"], "result": result["content"]}
    call = next(item for item in request["input"] if item.get("type") == "function_call")
    result = next(item for item in request["input"] if item.get("type") == "function_call_output")
    return {"id": call["call_id"], "input": call["arguments"], "result": result["output"]}


@pytest.mark.parametrize("api", APIS)
def test_a_tool_is_called_and_its_result_goes_back(api: str) -> None:
    """The call streams as the provider writes it and ends the response; with the result the model speaks."""

    async def main() -> None:
        async with FakeProviders("tool") as fake:
            model = _model(api, fake)
            pieces = await _said(model, _turn(tools=[WEATHER]))
            assert [tool["name"] for tool in map(_definition, fake.requests[0]["tools"])] == ["weather"]
            assert _definition(fake.requests[0]["tools"][0])["description"] == "The weather of a city."
            id = "toolu_1" if api == "anthropic" else "call_1"
            call = pieces[-1]
            assert pieces[-4:-1] == [
                ToolInputStart(id, "weather"),
                ToolInputDelta(id, '{"city":'),
                ToolInputDelta(id, ' "Paris"}'),
            ]
            assert isinstance(call, ToolInputAvailable)
            assert (call.tool_call_id, call.tool_name, call.input, call.dynamic) == (
                id,
                "weather",
                {"city": "Paris"},
                None,
            )
            done = answered(folded(pieces), id, state="output-available", output={"degrees": 21})
            assert await _said(model, _turn(done, tools=[WEATHER])) == ["Hello", " world", "!"]
            sent = _call(api, fake)
            assert sent["id"] == id
            assert "Paris" in str(sent["input"])
            assert sent["result"] == '{"degrees":21}'
            await model.aclose()

    asyncio.run(main())


def _definition(tool: dict[str, Any]) -> dict[str, Any]:
    return tool.get("function", tool)  # type: ignore[no-any-return]


def test_anthropics_thought_goes_back_with_its_signature() -> None:
    """The next step of the same answer begins with it, as Anthropic demands."""

    async def main() -> None:
        async with FakeProviders("tool") as fake:
            model = _model("anthropic", fake)
            done = answered(
                folded(await _said(model, _turn(tools=[WEATHER]))), "toolu_1", state="output-available", output=1
            )
            await _said(model, _turn(done, tools=[WEATHER]))
            assert [block["type"] for block in fake.requests[1]["messages"][1]["content"]] == [
                "thinking",
                "text",
                "tool_use",
            ]
            thought = fake.requests[1]["messages"][1]["content"][0]
            assert (thought["thinking"], thought["signature"]) == ("Let me see.", "c2ln")
            await model.aclose()

    asyncio.run(main())


def test_openais_hidden_thought_goes_back() -> None:
    """There is nothing to read in it, but the call after it is refused without it."""

    async def main() -> None:
        async with FakeProviders("tool") as fake:
            model = _model("openai_responses", fake)
            done = answered(
                folded(await _said(model, _turn(tools=[WEATHER]))), "call_1", state="output-available", output=1
            )
            await _said(model, _turn(done, tools=[WEATHER]))
            items = [item.get("type", item.get("role")) for item in fake.requests[1]["input"]]
            assert items == ["user", "reasoning", "function_call", "function_call_output"]
            assert fake.requests[1]["input"][1]["id"] == "rs_1"
            assert fake.requests[1]["input"][1]["encrypted_content"] == "secret"
            assert fake.requests[1]["input"][2]["id"] == "fc_1"
            await model.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("api", APIS)
def test_a_length_limit_is_told(api: str) -> None:
    """The text stays; the reason says that it is not all."""

    async def main() -> None:
        async with FakeProviders("length") as fake:
            model = _model(api, fake)
            assert await _said(model, _turn()) == ["Hello", " world", "!", Finish(finish_reason="length")]
            await model.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("api", ["anthropic", "openai_responses"])
def test_sources_follow_the_text(api: str) -> None:
    """Once in an answer, and not in the middle of it."""

    async def main() -> None:
        async with FakeProviders("cited") as fake:
            model = _model(api, fake)
            source = SourceUrl("https://example.com/weather", "https://example.com/weather", title="Weather")
            pieces = await _said(model, _turn())
            assert pieces == ["Hello", " world", "!", source]
            assert await _said(model, _turn(folded(pieces))) == ["Hello", " world", "!"]
            await model.aclose()

    asyncio.run(main())


def _calling(*deltas: Any) -> PydanticAIModel:
    """A model that says these pieces."""

    async def stream(messages: Any, info: Any) -> Any:
        for delta in deltas:
            yield delta

    return PydanticAIModel(FunctionModel(stream_function=stream))


def test_an_id_that_comes_again_is_another_call() -> None:
    """The room gives it an id of its own."""
    call = DeltaToolCall(name="weather", json_args='{"city": "Rome"}', tool_call_id="c1")
    done = folded([ToolInputAvailable("c1", "weather", {"city": "Paris"}), ToolOutputAvailable("c1", 21)])
    pieces = asyncio.run(_said(_calling({0: call}), _turn(done, tools=[WEATHER])))
    assert pieces[-1] == ToolInputAvailable("c1", "weather", {"city": "Rome"})


def test_held_back_text_comes_before_a_call() -> None:
    """Words that might have been a repetition of the partial answer, and were none."""
    call = DeltaToolCall(name="weather", json_args="{}", tool_call_id="c1")
    turn = _turn(tools=[WEATHER], partial="Let me look at the weather.")
    pieces = asyncio.run(_said(_calling("look at", {1: call}), turn))
    assert pieces[:2] == ["look at", ToolInputStart("c1", "weather")]


def test_an_input_that_is_no_json_is_an_error_of_the_call() -> None:
    """The room tells the model, and the model tries again."""
    call = DeltaToolCall(name="weather", json_args='{"city": ', tool_call_id="c1")
    pieces = asyncio.run(_said(_calling({0: call}), _turn(tools=[WEATHER])))
    why = "the model wrote an input that is no JSON object"
    assert pieces[-1] == ToolInputError("c1", "weather", '{"city": ', why)


@pytest.mark.parametrize("api", APIS)
def test_calls_of_tools_that_are_gone_are_told_as_text(api: str) -> None:
    """Providers refuse calls in the history where no tool is known."""

    async def main() -> None:
        async with FakeProviders("normal") as fake:
            model = _model(api, fake)
            call = ToolInputAvailable("c1", "weather", {"city": "Paris"})
            done = answered(folded([call]), "c1", state="output-available", output=21)
            messages = [user_message("1", "Weather?"), done, user_message("2", "Thanks.")]
            await _said(model, TurnContext(text="Thanks.", messages=messages))
            request = fake.requests[0]
            assert "tools" not in request or not request["tools"]
            _, call_text, result, thanks = map(str, request.get("messages") or request["input"])
            assert '[I call weather with {"city":"Paris"}]' in call_text
            assert "[weather says: 21]" in result
            assert "Thanks." in thanks
            await model.aclose()

    asyncio.run(main())
