"""The errors of the streams client that `perdure.errors` does not have.

The tree (what stands in brackets is from `perdure.errors` and raised as it is there)::

    PerdureError
    ├── [StreamNotFound]       404
    ├── [OffsetError]          400 to a read: an offset that the stream never gave out
    ├── [Unauthenticated]      401
    ├── [Forbidden]            403
    ├── [RemoteProtocolError]  an answer that breaks the protocol
    ├── [LimitExceeded]        one of `ClientLimits`, or an item larger than a producer's buffer
    ├── [StreamClosed]
    │   └── StreamClosed       409: the stream has ended; ``offset`` is its final one
    ├── StreamGone             410: soft-deleted, or the offset is older than what is kept
    ├── StreamConflict         409: other configuration, other content type, or a `Stream-Seq` that went back
    ├── StreamRefused          any other refusal, as 400 or 413
    ├── StreamUnreachable      tried for as long as allowed; retryable
    ├── [FencedError]
    │   └── ProducerFenced     another producer of the same id has a higher epoch
    ├── EpochReused            the epoch was used before; what was sent was not stored
    ├── SequenceGap            the server has forgotten what it acknowledged
    └── ProducerStopped        the producer was closed or detached
"""

from __future__ import annotations

from ..errors import FencedError, PerdureError
from ..errors import StreamClosed as StreamClosedBase


class StreamClosed(StreamClosedBase):
    """The stream has ended; nothing can be appended. ``offset`` is the final one, where the server said it."""

    def __init__(self, message: str = "", *, offset: str | None = None) -> None:
        self.offset = offset
        super().__init__(message)


class StreamGone(PerdureError):
    """The stream was deleted while forks of it live, or the offset is older than what is kept."""

    code = "stream_gone"
    status = 410


class StreamConflict(PerdureError):
    """The stream is there with another configuration, or has moved past what was presented."""

    code = "stream_conflict"
    status = 409


class StreamRefused(PerdureError):
    """The server refuses the request, and would again. ``status`` is its answer's."""

    code = "stream_refused"

    def __init__(self, message: str = "", *, status: int = 400) -> None:
        self.status = status
        super().__init__(message)


class StreamUnreachable(PerdureError):
    """No answer within the time that the client may try for.

    ``last_status`` is the last answer's, None where there was none; ``retry_after_s`` is what the
    server asked for, where it did.
    """

    code = "stream_unreachable"
    status = 503
    retryable = True

    def __init__(
        self, message: str = "", *, last_status: int | None = None, retry_after_s: float | None = None
    ) -> None:
        self.last_status, self.retry_after_s = last_status, retry_after_s
        super().__init__(message)


class ProducerFenced(FencedError):
    """Another producer of the same id has taken over. ``held`` is its epoch, ``presented`` ours."""

    code = "producer_fenced"


class EpochReused(PerdureError):
    """The producer's epoch was used before: what this one sent was taken for a repetition and is not stored."""

    code = "epoch_reused"
    status = 409


class SequenceGap(PerdureError):
    """The server expects ``expected``, and all before ``received`` was acknowledged: it has forgotten."""

    code = "sequence_gap"
    status = 409

    def __init__(self, expected: int, received: int) -> None:
        self.expected, self.received = expected, received
        super().__init__(f"the server expects batch {expected}, though all before batch {received} was acknowledged")


class ProducerStopped(PerdureError):
    """The producer was closed or detached; it takes nothing more."""

    code = "producer_stopped"
    status = 409
