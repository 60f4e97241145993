"""Durable objects: instances, gates, connections, alarms, the runtime."""
