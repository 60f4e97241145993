"""Reading an object's stream from outside the object."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ..errors import ObjectReset
from ..streams.stream import READ_BYTES, Batch, Stream
from ..values import ObjectId
from .instance import Instance

if TYPE_CHECKING:
    from .runtime import Runtime

RESETS_MAX = 20
"""Times in a row that a reader outlives the reset of its object before it gives up."""


class StreamCursor:
    """A live reader of one stream, from an offset on. Keeps its object awake while it is open.

    It outlives the object's instance: after a reset it goes on from its offset with the next.
    Use it with ``async with``.
    """

    def __init__(self, runtime: Runtime, object_id: ObjectId, name: str, offset: str = "-1") -> None:
        self.offset = offset
        self._runtime = runtime
        self._object_id = object_id
        self._name = name
        self._stream: Stream | None = None

    async def __aenter__(self) -> StreamCursor:
        await self._open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    async def _open(self) -> Stream:
        """Raises StreamNotFound, or what keeps the object from starting."""

        async def find(instance: Instance) -> tuple[Instance, Stream]:
            stream = instance.streams.get(self._name)
            stream.readers += 1
            return instance, stream

        _, stream = await self._runtime.run_in(self._object_id, find)
        self._stream = stream
        return stream

    def _release(self) -> None:
        if self._stream is not None:
            self._stream.readers -= 1
            self._stream = None

    async def next(self, bytes_max: int = READ_BYTES) -> Batch:
        """The next durable entries; waits for them. ``closed`` in the batch: nothing will follow.

        Cancelling it loses nothing.

        Raises:
            OffsetError: the stream never gave the offset out.
            StreamNotFound: the stream is gone.
            ObjectReset: the object was reset again and again.
        """
        for _ in range(RESETS_MAX):
            stream = self._stream if self._stream is not None else await self._open()
            try:
                batch = await stream.follow(self.offset, bytes_max)
            except ObjectReset:
                self._release()
                continue
            self.offset = batch.next_offset
            return batch
        raise ObjectReset(f"{self._object_id.key} is reset again and again")
