"""Durable Streams over HTTP: ``/v1/stream/{path}``."""
