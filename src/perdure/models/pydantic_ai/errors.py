"""Errors of providers as errors of ours, and how a provider says that an answer is whole."""

from __future__ import annotations

from pydantic_ai import exceptions
from pydantic_ai import messages as ai

from ...errors import ModelError, ModelOverloaded, ModelTimeout

ERROR_CHARACTERS_MAX = 500
"""How much of a provider's own sentence is kept."""


def was_cut(response: ai.ModelResponse) -> bool:
    """Whether the provider never said why it ended.

    pydantic-ai fills in a reason for chat completions that end without one, so the provider's own word is
    looked for where it is always kept.
    """
    if response.state in ("incomplete", "interrupted"):
        return True
    said = response.finish_reason if response.provider_name != "openai" else _raw_finish_reason(response)
    return response.provider_name in ("anthropic", "openai") and said is None


def model_error(error: Exception, name: str) -> ModelError:
    """The error of the tree that says whether to try again; the cause keeps the details."""
    status = error.status_code if isinstance(error, exceptions.ModelHTTPError) else None
    said = _provider_sentence(error)
    if isinstance(error, (exceptions.ModelTimeoutError, exceptions.ModelRequestTimeout, TimeoutError)):
        return ModelTimeout(f"{name} did not answer in time")
    if status in (408, 504):
        return ModelTimeout(f"{name} did not answer in time: {said}")
    overloaded = (exceptions.ModelRateLimitError, exceptions.ModelUnavailableError)
    if status in (429, 503, 529) and not isinstance(error, exceptions.ModelQuotaExceededError):
        return ModelOverloaded(f"{name} is overloaded: {said}")
    if isinstance(error, overloaded):
        return ModelOverloaded(f"{name} is overloaded: {said}")
    if isinstance(error, exceptions.ModelConnectionError):
        return ModelError(f"the connection to {name} broke: {said}")
    return ModelError(f"{name} failed: {said}")


def _provider_sentence(error: Exception) -> str:
    """The provider's own message, without the envelope around it."""
    body = getattr(error, "body", None)
    if isinstance(body, dict):
        inner = body.get("error", body)
        if isinstance(inner, dict) and isinstance(inner.get("message"), str):
            return str(inner["message"])[:ERROR_CHARACTERS_MAX]
    return (str(error) or type(error).__name__)[:ERROR_CHARACTERS_MAX]


def _raw_finish_reason(response: ai.ModelResponse) -> object:
    return (response.provider_details or {}).get("finish_reason")
