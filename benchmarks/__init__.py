"""Measurements of perdure beside a floor: `python -m benchmarks`. See README.md here."""
