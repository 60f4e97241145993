"""Models and agents of pydantic-ai as a room's model."""

from .model import SILENCE_TIMEOUT_MS, PydanticAIModel
from .tools import PreliminaryResult, current_call

__all__ = ["SILENCE_TIMEOUT_MS", "PreliminaryResult", "PydanticAIModel", "current_call"]
