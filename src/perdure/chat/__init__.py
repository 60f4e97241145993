"""Chat rooms: messages, turns, recovery."""
