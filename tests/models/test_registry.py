"""`resolve_model`: names and objects to models, and what to do where one is missing."""

from __future__ import annotations

import pytest

from perdure.errors import ConfigError
from perdure.models import registry
from perdure.models.base import Model
from perdure.models.registry import resolve_model
from perdure.models.scripted import ScriptedModel


def test_scripted_names_give_the_scripted_model() -> None:
    """What follows the prefix is the script."""
    model = resolve_model("scripted:count=3&delay_ms=1")
    assert isinstance(model, ScriptedModel)
    assert model.name == "scripted:count=3&delay_ms=1"


def test_a_model_is_itself() -> None:
    """An object with `respond` and `aclose` is used as it is."""
    model = ScriptedModel("echo")
    assert isinstance(model, Model)
    assert resolve_model(model) is model


@pytest.mark.parametrize("name", ["gpt", "", ":", "openai:", ":x"])
def test_a_name_without_a_provider_says_what_a_name_looks_like(name: str) -> None:
    """The message shows names that work."""
    with pytest.raises(ConfigError, match=r"write `provider:name`, like `anthropic:claude-opus-5-5`"):
        resolve_model(name)


def test_an_object_that_is_no_model_is_refused() -> None:
    """The message says what it lacks."""
    with pytest.raises(ConfigError, match="a dict is no model: it has no `respond` and `aclose`"):
        resolve_model({})


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pydantic-ai, a provider's name says which extra to install."""
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'perdure\[ai\]'"):
        resolve_model("anthropic:claude-haiku-4-5")


def test_a_missing_key_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a key, a provider's name says which variable to set."""
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    with pytest.raises(ConfigError, match="ANTHROPIC_API_KEY"):
        resolve_model("anthropic:claude-haiku-4-5")


def test_an_unknown_provider_is_named() -> None:
    """A provider that nobody knows is a setting that cannot work."""
    with pytest.raises(ConfigError, match="nobody"):
        resolve_model("nobody:model")


@pytest.mark.parametrize("name", ["local:no-such-model", "local:/no/such/file.gguf", "local:?speed=3"])
def test_a_local_model_that_is_not_there_is_refused(name: str) -> None:
    """A wrong file or option is found when the model is named, not at the first turn."""
    with pytest.raises(ConfigError):
        resolve_model(name)
