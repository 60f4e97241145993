"""What one stream, and all of them, may use."""

from __future__ import annotations

from ...errors import LimitExceeded, TooManyRequests
from ...stream_hosts.directory import HOST_COUNT
from ...stream_hosts.host import StreamHost
from ...stream_hosts.hosted import HostedStream
from ...streams.stream import Stream
from ...values import format_offset
from .limits import StreamLimits

BURST_S = 10
"""Seconds over which the rate of appends is averaged."""

TRIM_SLACK_SHARE = 8
"""A stream is trimmed when it holds this part more than it should: whole blocks go, now and then."""

TRIM_INTERVAL_MS = 1_000
"""How often a stream's age is looked at."""


class Quotas:
    """Checks the limits, and drops what is too old or too much."""

    def __init__(self, limits: StreamLimits) -> None:
        self._limits = limits
        self.any = any(
            limit is not None
            for limit in (
                limits.stream_bytes_max,
                limits.appends_per_s_max,
                limits.retain_bytes_max,
                limits.retain_ms,
            )
        )
        """Whether appends have anything to keep to, beside their size."""

    def check_count(self, host: StreamHost) -> None:
        """Raises TooManyRequests when there may be no more streams. Counted in each host for itself."""
        most = self._limits.streams_max
        if most is not None and host.count >= max(1, most // HOST_COUNT):
            raise TooManyRequests(f"there are {most:,} streams already (streams_max); delete some first")

    def check_readers(self, stream: Stream) -> None:
        """Raises TooManyRequests when the stream has all the live readers that it may have."""
        if stream.readers >= self._limits.readers_per_stream_max:
            raise TooManyRequests(
                f"the stream has {stream.readers:,} live readers (readers_per_stream_max); try again later"
            )

    def check_size(self, size: int) -> None:
        """Raises LimitExceeded when a stream may not hold so many bytes."""
        most = self._limits.stream_bytes_max
        if most is not None and size > most:
            raise LimitExceeded("stream_bytes_max", size, most)

    def check_append(self, hosted: HostedStream, size: int, now_ms: int) -> None:
        """Raises TooManyRequests, LimitExceeded."""
        limits = self._limits
        self.check_size(hosted.stream.stored.bytes + size)
        rate = limits.appends_per_s_max
        if rate is not None:
            elapsed_s = (now_ms - hosted.allowance_ms) / 1000
            allowance = min(rate * BURST_S, hosted.allowance + elapsed_s * rate)
            hosted.allowance_ms = now_ms
            if allowance < 1:
                hosted.allowance = allowance
                raise TooManyRequests(f"more than {rate:g} appends a second to one stream (appends_per_s_max)")
            hosted.allowance = allowance - 1

    def trim(self, hosted: HostedStream, now_ms: int) -> None:
        """Drop blocks that are past `retain_bytes_max` or `retain_ms`."""
        limits, stored = self._limits, hosted.stream.stored
        keep_bytes, keep_ms = limits.retain_bytes_max, limits.retain_ms
        too_large = keep_bytes is not None and stored.bytes > keep_bytes + keep_bytes // TRIM_SLACK_SHARE
        may_be_old = keep_ms is not None and now_ms - hosted.trimmed_ms >= TRIM_INTERVAL_MS
        if not (too_large or may_be_old):
            return
        hosted.trimmed_ms = now_ms
        position, size = stored.first, stored.bytes
        for end, block_bytes, written_ms in hosted.stream.blocks():
            old = keep_ms is not None and written_ms < now_ms - keep_ms
            much = keep_bytes is not None and size - block_bytes >= keep_bytes
            if not (old or much):
                break
            position, size = end, size - block_bytes
        if position > stored.first:
            hosted.stream.trim(format_offset(position))
