"""The built-in pages."""
