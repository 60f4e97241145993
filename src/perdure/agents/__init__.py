"""Agents: durable objects with state that clients follow, timed and queued work, fibers, and agents of their own."""

from __future__ import annotations

from .agent import Agent
from .current import CurrentAgent, current_agent
from .fibers import FiberContext, FiberInterrupted
from .records import DeadLetter, Fiber, QueueItem, Schedule
from .retries import Retry
from .state import StateListener
from .sub_agents import SubAgent

__all__ = [
    "Agent",
    "CurrentAgent",
    "DeadLetter",
    "Fiber",
    "FiberContext",
    "FiberInterrupted",
    "QueueItem",
    "Retry",
    "Schedule",
    "StateListener",
    "SubAgent",
    "current_agent",
]
