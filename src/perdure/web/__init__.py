"""The built-in pages: pure functions that render them, and their static files."""
