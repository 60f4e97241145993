"""A server reduced to the producers' rule (protocol section 5.2.1), and a network that does what it wants."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable
from functools import partial
from itertools import count

from tests.streams_client.surroundings import World

from perdure.streams_client.answers import Lost, Request, Response
from perdure.streams_client.producing import Outgoing, ProducerCore


class ModelServer:
    """One JSON stream: its messages, and of each producer the epoch and the last number."""

    def __init__(self) -> None:
        self.messages: list[object] = []
        self.closed = False
        self.producers: dict[str, tuple[int, int]] = {}
        self._closed_by: tuple[str, int, int] | None = None

    def answer(self, request: Request) -> Response:
        """Validate, and append what is new."""
        headers = request.headers
        producer = headers["producer-id"]
        epoch, seq = int(headers["producer-epoch"]), int(headers["producer-seq"])
        if self.closed:
            if (producer, epoch, seq) == self._closed_by:
                return self._accepted(204, epoch, seq)
            return Response(409, {"stream-closed": "true", "stream-next-offset": self._offset()})
        held_epoch, last = self.producers.get(producer, (epoch, -1))
        if epoch < held_epoch:
            return Response(403, {"producer-epoch": str(held_epoch)})
        if epoch > held_epoch:
            if seq != 0:
                return Response(400, {})
            last = -1
        if seq <= last:
            return self._accepted(204, epoch, last)
        if seq > last + 1:
            return Response(409, {"producer-expected-seq": str(last + 1), "producer-received-seq": str(seq)})
        if request.body is not None:
            self.messages += json.loads(request.body)
        if headers.get("stream-closed") == "true":
            self.closed = True
            self._closed_by = (producer, epoch, seq)
        self.producers[producer] = (epoch, seq)
        return self._accepted(200 if request.body is not None else 204, epoch, seq)

    def _accepted(self, status: int, epoch: int, seq: int) -> Response:
        headers = {"producer-epoch": str(epoch), "producer-seq": str(seq), "stream-next-offset": self._offset()}
        return Response(status, headers | ({"stream-closed": "true"} if self.closed else {}))

    def _offset(self) -> str:
        return f"{len(self.messages):08d}"


class WildNetwork:
    """Carries a producer's requests to a server: late, out of order, twice, or not, as ``chances`` say.

    When they are used up all goes well.
    """

    def __init__(self, world: World, server: ModelServer, core: ProducerCore, chances: list[int]) -> None:
        self._world = world
        self._server = server
        self._core = core
        self._chances = iter(chances)
        self._events: list[tuple[float, int, Callable[[], object]]] = []
        self._order = count()

    def run(self, items: list[object]) -> None:
        """Give the producer the items, now and then, and close the stream; until all is quiet."""
        left = list(items)
        for _ in range(5_000):
            self._send()
            if self._core.failure is not None:
                break
            if left and (self._draw(3) or not self._events):
                item = self._core.encode(left.pop(0))
                if self._core.has_room(item):
                    self._core.add(item)
                    if self._draw(4) == 1:
                        self._core.push()
                    continue
                left.insert(0, json.loads(item))
            elif not left and not self._core.ending:
                self._core.end([])
                continue
            if not self._step():
                break
        while self._events:  # what is still on its way arrives
            self._step()

    def _send(self) -> None:
        while (outgoing := self._core.take()) is not None:
            self._carry(outgoing, self._draw(9))

    def _carry(self, outgoing: Outgoing, fate: int) -> None:
        """What becomes of a request: it arrives, or not, and its producer is told something, sooner or later."""
        arrive = partial(self._server.answer, outgoing.request)
        told = partial(self._core.took, outgoing)
        match fate:
            case 1:
                self._later(partial(told, Lost("refused", arrived=False)))
            case 2:
                self._later(partial(told, Lost("lost on the way")))
            case 3:  # it arrives after it was given up
                self._later(partial(told, Lost("timeout")))
                self._later(arrive)
            case 4:
                self._later(arrive, then=partial(told, Lost("the answer was lost")))
            case 5:
                self._later(arrive, then=partial(told, Response(502, {})))
            case 6:
                self._later(partial(told, Response(503, {"retry-after": "1"})))
            case 7:
                self._later(partial(told, Response(500, {})))
            case _:
                self._later(partial(self._answered, outgoing))
                if fate == 8:  # and it arrives once more
                    self._later(arrive, behind_ms=50)

    def _answered(self, outgoing: Outgoing) -> None:
        self._later(partial(self._core.took, outgoing, self._server.answer(outgoing.request)))

    def _step(self) -> bool:
        """Go to the next moment at which something happens."""
        wake_ms = self._core.wake_ms()
        if self._events and (wake_ms is None or self._events[0][0] <= wake_ms):
            at_ms, _, happen = heapq.heappop(self._events)
            self._world.now_ms = max(self._world.now_ms, at_ms)
            happen()
            return True
        if wake_ms is not None:
            self._world.now_ms = max(self._world.now_ms, wake_ms)
            return True
        return False

    def _later(
        self, happen: Callable[[], object], *, then: Callable[[], object] | None = None, behind_ms: float = 0
    ) -> None:
        """Some time from now, and ``then`` some time after that."""
        at_ms = self._world.now_ms + behind_ms + 1 + self._draw(40)
        heapq.heappush(self._events, (at_ms, next(self._order), happen))
        if then is not None:
            heapq.heappush(self._events, (at_ms + 1 + self._draw(40), next(self._order), then))

    def _draw(self, size: int) -> int:
        """A number below ``size``; 0 is that all goes well."""
        return next(self._chances, 0) % size
