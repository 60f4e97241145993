"""Providers' models through the real SDKs, against a local server that speaks their wire formats."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from tests.models.answers import answer, shown
from tests.models.fake_providers import FakeProviders
from tests.requirements import need

from perdure.errors import ConfigError, ModelError, ModelOverloaded, ModelTimeout
from perdure.models.base import TurnContext
from perdure.models.continuation import CONTINUE_INSTRUCTION
from perdure.models.registry import resolve_model
from perdure.wire.messages import ChatMessage, user_message
from perdure.wire.ui_chunks import MessageMetadata, ReasoningDelta, ReasoningEnd, ReasoningStart

if TYPE_CHECKING:
    from perdure.models.pydantic_ai import PydanticAIModel

APIS = ("anthropic", "openai_chat", "openai_responses", "agent")

LONG_MS = 10_000
SHORT_MS = 300


@pytest.fixture(autouse=True)
def _extra() -> None:
    need("the extra `ai`", find_spec("pydantic_ai") is not None, "pip install 'perdure[ai]'")


def _model(
    api: str, fake: FakeProviders, *, timeout_ms: int = LONG_MS, name: str = "claude-haiku-4-5"
) -> PydanticAIModel:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
    from pydantic_ai.providers.anthropic import AnthropicProvider
    from pydantic_ai.providers.openai import OpenAIProvider

    from perdure.models.pydantic_ai import PydanticAIModel

    source: Any
    if api in ("anthropic", "agent"):
        source = AnthropicModel(name, provider=AnthropicProvider(base_url=fake.url, api_key="key"))
        source = Agent(source) if api == "agent" else source
    else:
        provider = OpenAIProvider(base_url=f"{fake.url}/v1", api_key="key")
        source = (
            OpenAIChatModel("gpt-4o", provider=provider)
            if api == "openai_chat"
            else OpenAIResponsesModel("gpt-5.6-sol", provider=provider)
        )
    return PydanticAIModel(source, silence_timeout_ms=timeout_ms)


async def _answered(
    api: str,
    fake: FakeProviders,
    turn: TurnContext | None = None,
    *,
    timeout_ms: int = LONG_MS,
    name: str = "claude-haiku-4-5",
) -> tuple[list[Any], Exception | None]:
    model = _model(api, fake, timeout_ms=timeout_ms, name=name)
    try:
        return await answer(model, turn or TurnContext(text="Hi"))
    finally:
        await model.aclose()


def _with_fake(scenario: str, run: Callable[[FakeProviders], Awaitable[Any]], *, status: int = 529, **kw: Any) -> Any:
    async def main() -> Any:
        async with FakeProviders(scenario, status=status, **kw) as fake:
            return await run(fake)

    return asyncio.run(main())


@pytest.mark.parametrize("api", APIS)
def test_text_comes_in_the_providers_pieces(api: str) -> None:
    """Each text delta is one piece."""
    said, error = _with_fake("normal", lambda fake: _answered(api, fake))
    assert (shown(said), error) == (["Hello", " world", "!"], None)


@pytest.mark.parametrize(("api", "output"), [("anthropic", 15), ("openai_responses", 3), ("agent", 15)])
def test_usage_is_told_at_the_end(api: str, output: int) -> None:
    """Under the AI SDK's names, added to what earlier steps used; nothing where the provider tells nothing."""
    tokens = {"inputTokens": 12, "outputTokens": output, "totalTokens": 12 + output}
    said, _ = _with_fake("normal", lambda fake: _answered(api, fake))
    assert said[-1] == MessageMetadata({"usage": tokens})
    earlier = ChatMessage(id="a", role="assistant", parts=[], metadata={"usage": {**tokens, "reasoningTokens": 2}})
    turn = TurnContext(text="Hi", answer=earlier)
    said, _ = _with_fake("normal", lambda fake: _answered(api, fake, turn))
    assert said[-1] == MessageMetadata({"usage": {name: 2 * count for name, count in tokens.items()}})
    assert _with_fake("normal", lambda fake: _answered("openai_chat", fake))[0] == ["Hello", " world", "!"]


@pytest.mark.parametrize("api", APIS)
def test_an_error_in_the_stream_keeps_what_was_said(api: str) -> None:
    """Anthropic's `overloaded_error` can be tried again; OpenAI's mid-stream `server_error` is a failure."""
    said, error = _with_fake("overloaded_mid_stream", lambda fake: _answered(api, fake))
    assert said == ["Hello", " world", "!"]
    assert type(error) is (ModelError if api == "openai_chat" else ModelOverloaded)
    assert "overloaded" in str(error).lower()


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("status", [429, 503, 529])
def test_an_overloaded_provider_can_be_tried_again(api: str, status: int) -> None:
    """After the SDK's own two retries."""

    async def run(fake: FakeProviders) -> None:
        said, error = await _answered(api, fake)
        assert said == []
        assert isinstance(error, ModelOverloaded)
        assert error.retryable
        assert len(fake.requests) == 3

    _with_fake("refused", run, status=status)


@pytest.mark.parametrize("api", APIS)
def test_a_wrong_key_is_final(api: str) -> None:
    """The provider's own sentence is in the error, and nothing is retried."""

    async def run(fake: FakeProviders) -> None:
        _, error = await _answered(api, fake)
        assert type(error) is ModelError
        assert str(error).endswith("failed: invalid x-api-key")
        assert len(fake.requests) == 1

    _with_fake("refused", run, status=401)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("scenario", ["hang", "hang_mid_stream"])
def test_silence_is_a_timeout(api: str, scenario: str) -> None:
    """Before the first event and between two; the connection is closed."""

    async def run(fake: FakeProviders) -> None:
        said, error = await _answered(api, fake, timeout_ms=SHORT_MS if scenario == "hang" else 2 * SHORT_MS)
        assert isinstance(error, ModelTimeout)
        assert "said nothing for" in str(error)
        assert said == ([] if scenario == "hang" else ["Hello", " world", "!"])
        await asyncio.wait_for(fake.connection_closed.wait(), 2)

    # The first use of an API builds its types, which may take longer than the short timeout.
    _with_fake("normal", lambda fake: _answered(api, fake))
    _with_fake(scenario, run)


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("scenario", ["cut", "cut_politely"])
def test_a_cut_connection_is_never_a_polite_end(api: str, scenario: str) -> None:
    """A reset, and a body that ends without the provider's last word, are both failures."""
    said, error = _with_fake(scenario, lambda fake: _answered(api, fake))
    assert said == ["Hello", " world", "!"]
    assert isinstance(error, ModelError)
    assert ("broke" if scenario == "cut" else "without saying that it is whole") in str(error)


@pytest.mark.parametrize("api", ["anthropic", "agent"])
def test_thinking_becomes_reasoning_chunks(api: str) -> None:
    """Closed before the text begins, with the signature that the provider wants back."""
    said, error = _with_fake("thinking", lambda fake: _answered(api, fake))
    assert error is None
    signed = {"pydantic_ai": {"signature": "c2ln", "provider_name": "anthropic"}}
    assert shown(said) == [
        ReasoningStart("reasoning-1"),
        ReasoningDelta("reasoning-1", "Let me "),
        ReasoningDelta("reasoning-1", "see."),
        ReasoningEnd("reasoning-1", provider_metadata=signed),
        "Hello",
        " world",
        "!",
    ]


@pytest.mark.parametrize("api", APIS)
def test_closing_the_iterator_closes_the_connection(api: str) -> None:
    """A stopped turn costs no more tokens."""

    async def run(fake: FakeProviders) -> None:
        model = _model(api, fake)
        response = model.respond(TurnContext(text="Hi"))
        assert await anext(response) == "Hello"
        await response.aclose()
        await asyncio.wait_for(fake.connection_closed.wait(), 0.5)
        await model.aclose()

    _with_fake("hang_mid_stream", run)


def test_a_prefill_continues_the_providers_own_message() -> None:
    """The partial answer, without its last space, is the last message; the space is not said twice."""

    async def run(fake: FakeProviders) -> None:
        said, error = await _answered("anthropic", fake, TurnContext(text="Count", partial="One, two, "))
        assert (shown(said), error) == (["three"], None)
        assert fake.requests[0]["messages"] == [
            {"role": "user", "content": [{"type": "text", "text": "Count"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "One, two,"}]},
        ]

    _with_fake("normal", run, words=(" three",))


@pytest.mark.parametrize(
    ("scenario", "api", "name", "requests"),
    [
        ("no_prefill", "anthropic", "claude-haiku-4-5", 2),
        ("no_prefill", "anthropic", "claude-sonnet-5-5", 1),
        ("normal", "openai_chat", "", 1),
        ("normal", "agent", "claude-haiku-4-5", 1),
    ],
)
def test_without_prefill_the_model_is_asked_to_go_on(scenario: str, api: str, name: str, requests: int) -> None:
    """In the user's name, after the partial answer; words that it repeats are not shown again."""

    async def run(fake: FakeProviders) -> None:
        turn = TurnContext(text="Count", partial="Let me count: one, two, ")
        said, error = await _answered(api, fake, turn, name=name)
        assert ("".join(shown(said)), error) == ("three", None)
        assert len(fake.requests) == requests
        first, partial, ask = fake.requests[-1]["messages"]
        assert [first["role"], partial["role"], ask["role"]] == ["user", "assistant", "user"]
        assert "Let me count: one, two," in str(partial["content"])
        assert CONTINUE_INSTRUCTION in str(ask["content"])

    _with_fake(scenario, run, words=("one, ", "two, ", "three"))


def test_several_people_are_told_apart() -> None:
    """Each text begins with its writer's name; the instructions go along; an empty answer does not."""

    async def run(fake: FakeProviders) -> None:
        messages = [
            user_message("1", "I am here.", user="Ada"),
            ChatMessage(id="2", role="assistant", parts=[{"type": "text", "text": "Welcome."}]),
            ChatMessage(id="3", role="assistant", parts=[]),
            user_message("4", "So am I.", user="Bob"),
        ]
        await _answered("openai_chat", fake, TurnContext(text="", messages=messages, instructions="Be kind."))
        assert fake.requests[0]["messages"] == [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": "Ada: I am here."},
            {"role": "assistant", "content": "Welcome."},
            {"role": "user", "content": "Bob: So am I."},
        ]

    _with_fake("normal", run)


def test_files_go_along() -> None:
    """A data URL as bytes, an image's address as an address."""

    async def run(fake: FakeProviders) -> None:
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": "Look"},
            {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,aGk="},
            {"type": "file", "mediaType": "image/png", "url": "https://example.com/a.png"},
        ]
        message = ChatMessage(id="1", role="user", parts=parts)
        await _answered("anthropic", fake, TurnContext(text="Look", messages=[message]))
        assert [block["type"] for block in fake.requests[0]["messages"][0]["content"]] == ["text", "image", "image"]

    _with_fake("normal", run)


def test_a_name_reaches_its_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """`anthropic:` and `openai:` take key and address from the environment, as their SDKs do."""

    async def run(fake: FakeProviders) -> None:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", fake.url)
        monkeypatch.setenv("OPENAI_API_KEY", "key")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{fake.url}/v1")
        for name in ("anthropic:claude-haiku-4-5", "openai:gpt-5.6-sol"):
            model = resolve_model(name)
            assert model.name == name
            said, error = await answer(model, TurnContext(text="Hi"))
            assert (shown(said), error) == (["Hello", " world", "!"], None)
            await model.aclose()
            await model.aclose()

    _with_fake("normal", run)


def test_something_else_of_pydantic_ai_is_refused() -> None:
    """Only models and agents answer."""
    from pydantic_ai.messages import TextPart

    with pytest.raises(ConfigError, match="a TextPart is neither a Model nor an Agent"):
        resolve_model(TextPart("hi"))
