"""``GET /v1/stream/__ds/streams``: which free-standing streams there are, and how they do.

::

    ?prefix=&after=&limit=     in order of their paths
    {"streams": [{"path", "content_type", "next_offset", "first_offset", "bytes", "closed",
                  "readers", "created_at", "ttl_s", "expires_at", "forked_from"}, ...],
     "after": "the last path, where there are more"}
"""

from __future__ import annotations

import asyncio
import heapq
from typing import Any

from ...errors import RemoteProtocolError
from ...stream_hosts.directory import StreamDirectory
from ...stream_hosts.host import StreamHost
from ...wire.durable_streams import format_time

LIST_DEFAULT = 100
LIST_MAX = 1_000
"""Most streams in one answer."""


async def list_streams(directory: StreamDirectory, prefix: str, after: str, limit: str) -> dict[str, Any]:
    """The answer's body.

    Raises:
        RemoteProtocolError: ``limit`` is no number from 1 to `LIST_MAX`.
    """
    if limit and not (limit.isascii() and limit.isdigit() and 0 < int(limit[:5]) <= LIST_MAX):
        raise RemoteProtocolError(f"limit is a number from 1 to {LIST_MAX:,}")
    count = int(limit or LIST_DEFAULT)
    found = await asyncio.gather(
        *(
            directory.run_in(number, lambda host: _list(host, prefix, after, count))
            for number in range(len(directory.host_ids))
            if directory.exists(number)
        )
    )
    streams = heapq.nsmallest(count + 1, (item for items in found for item in items), key=lambda item: item["path"])
    body: dict[str, Any] = {"streams": streams[:count]}
    if len(streams) > count:
        body["after"] = streams[count - 1]["path"]
    return body


def _list(host: StreamHost, prefix: str, after: str, count: int) -> list[dict[str, Any]]:
    """One more than asked for, so that it shows whether there are more."""
    found = []
    for path in host.storage.stream_table.names_after(after, prefix, count + 1):
        hosted = host.find(path)
        if hosted is None:
            continue
        stream, options = hosted.stream, hosted.options
        item: dict[str, Any] = {
            "path": path,
            "content_type": stream.content_type,
            "next_offset": stream.tail_batch.next_offset,
            "first_offset": stream.first_offset,
            "bytes": stream.stored.bytes,
            "closed": stream.durable_closed,
            "readers": stream.readers,
            "created_at": format_time(stream.stored.created_ms),
        }
        if options.ttl_s is not None:
            item["ttl_s"] = options.ttl_s
        if options.expires_at_ms is not None:
            item["expires_at"] = format_time(options.expires_at_ms)
        if options.fork_source is not None:
            item["forked_from"] = options.fork_source
        found.append(item)
    return found
