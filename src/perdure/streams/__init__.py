"""Append-only streams inside objects."""
