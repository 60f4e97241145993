"""Agents: durable objects with state that clients mirror, schedules, queues and fibers."""
