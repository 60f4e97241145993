"""The HTTP and WebSocket surfaces."""
