"""Agents: durable objects with state that clients follow, timed and queued work, fibers, and agents of their own."""
