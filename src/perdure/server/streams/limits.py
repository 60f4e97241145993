"""The limits of the stream surface."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Bounds of free-standing streams. Past one, the caller gets a named error and nobody else notices."""

    append_bytes_max: int = 8 * 1024 * 1024
    """Largest body of an append, in bytes; 413."""

    messages_per_append_max: int = 100_000
    """Most JSON messages in one append; 413."""

    read_bytes_max: int = 16 * 1024 * 1024
    """Bytes that one catch-up read returns, more or less (always at least one entry); clients ask for the rest.
    They are sent block by block: memory does not grow with them."""

    long_poll_ms: int = 20_000
    """How long a long-poll waits before it answers 204."""

    rotate_ms: int = 55_000
    """Age at which a live connection is ended politely; clients connect again by themselves."""

    readers_per_stream_max: int = 10_000
    """Live readers of one stream; the next one gets 429."""

    appends_per_s_max: float | None = None
    """Appends to one stream in a second, on average over ten; past it 429. None: any number."""

    stream_bytes_max: int | None = None
    """Bytes that one stream may hold; an append past it is 413. None: what the disk holds."""

    streams_max: int | None = None
    """Free-standing streams in the data folder, more or less; a PUT past it is 429. None: any number."""

    retain_bytes_max: int | None = None
    """Bytes of a stream that are kept; older blocks are dropped, and reading there is 410. None: all."""

    retain_ms: int | None = None
    """Age up to which blocks of a stream are kept; reading older ones is 410. None: all."""
