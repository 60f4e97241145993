"""A client of plain rooms."""
