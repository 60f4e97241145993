"""Models and agents of pydantic-ai as a room's model."""

from .model import SILENCE_TIMEOUT_MS, PydanticAIModel
from .tools import current_call

__all__ = ["SILENCE_TIMEOUT_MS", "PydanticAIModel", "current_call"]
