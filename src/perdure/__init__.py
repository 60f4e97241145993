"""perdure: durable objects for reliable AI chat."""

from __future__ import annotations

from .agents import Agent, current_agent
from .app import App
from .chat.room import BeforeTurn, ChatRoom, InterruptedTurn
from .chat.submitted import Submitted
from .chat.tools import tool
from .errors import PerdureError, ToolError
from .models.base import Model, ToolCall, ToolSpec, TurnContext
from .objects.connections import Connection
from .objects.limits import Limits
from .objects.namespace import ObjectStub
from .objects.object import AlarmInfo, DurableObject, callable
from .server.auth import User
from .server.streams.limits import StreamLimits
from .streams.stream import Stream
from .wire.messages import ChatMessage

__version__ = "0.1.0"

__all__ = [
    "Agent",
    "AlarmInfo",
    "App",
    "BeforeTurn",
    "ChatMessage",
    "ChatRoom",
    "Connection",
    "DurableObject",
    "InterruptedTurn",
    "Limits",
    "Model",
    "ObjectStub",
    "PerdureError",
    "Stream",
    "StreamLimits",
    "Submitted",
    "ToolCall",
    "ToolError",
    "ToolSpec",
    "TurnContext",
    "User",
    "callable",
    "current_agent",
    "tool",
]
