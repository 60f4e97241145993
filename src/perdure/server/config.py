"""Settings from outside: the only reader of environment variables."""

from __future__ import annotations

import os
from pathlib import Path

DATA_VARIABLE = "PERDURE_DATA"
DEFAULT_DATA = "data"

MODEL_KEYS = {
    "ANTHROPIC_API_KEY": "anthropic:claude-haiku-4-5",
    "OPENAI_API_KEY": "openai:gpt-5.6-sol",
}
"""The variables that hold providers' keys, and the model that `perdure demo` takes then."""


def data_folder(given: str | Path | None) -> Path:
    """The data folder: as given, else ``PERDURE_DATA``, else ``./data``."""
    return Path(given or os.environ.get(DATA_VARIABLE) or DEFAULT_DATA)


def accelerator_enabled() -> bool:
    """Whether frames may be written past ASGI (``PERDURE_ACCELERATOR=0`` turns it off)."""
    return os.environ.get("PERDURE_ACCELERATOR", "1") != "0"


def provider_model() -> tuple[str, str] | None:
    """The variable that holds a provider's key, and the model that it opens; None without a key."""
    for variable, model in MODEL_KEYS.items():
        if os.environ.get(variable):
            return variable, model
    return None
