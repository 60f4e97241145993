"""Public helpers for testing what stands on perdure."""
