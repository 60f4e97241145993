"""The storage engine: one SQLite file an object, one journal that makes them all durable."""
