"""perdure: durable objects for reliable AI chat."""

__version__ = "0.1.0"
