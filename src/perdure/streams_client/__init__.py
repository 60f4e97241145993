"""A client of Durable Streams: append-only streams behind URLs, of perdure or any other server.

`AsyncStreamClient` and `StreamClient` are the two clients; `AsyncStream` and `Stream` are one
stream of theirs, `AsyncProducer` and `Producer` append exactly once.
"""

from .async_producer import AsyncProducer
from .asynchronous import AsyncFollow, AsyncStream, AsyncStreamClient, connect_async
from .core import CreateResult, Source, StreamInfo
from .errors import (
    EpochReused,
    ProducerFenced,
    ProducerStopped,
    SequenceGap,
    StreamClosed,
    StreamConflict,
    StreamGone,
    StreamRefused,
    StreamUnreachable,
)
from .http import ClientLimits
from .reading import NOW, START, Batch, Live
from .sync_producer import Producer
from .synchronous import Follow, Stream, StreamClient, connect

__all__ = [
    "NOW",
    "START",
    "AsyncFollow",
    "AsyncProducer",
    "AsyncStream",
    "AsyncStreamClient",
    "Batch",
    "ClientLimits",
    "CreateResult",
    "EpochReused",
    "Follow",
    "Live",
    "Producer",
    "ProducerFenced",
    "ProducerStopped",
    "SequenceGap",
    "Source",
    "Stream",
    "StreamClient",
    "StreamClosed",
    "StreamConflict",
    "StreamGone",
    "StreamInfo",
    "StreamRefused",
    "StreamUnreachable",
    "connect",
    "connect_async",
]
