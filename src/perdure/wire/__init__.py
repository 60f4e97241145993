"""Wire protocols: bytes to typed values and back, pure."""
