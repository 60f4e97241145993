"""``/v1/stream/``: the ASGI side of the Durable Streams surface.

::

    /v1/stream/{path}                          free-standing streams
    /v1/stream/rooms/{room}/turns/{turn}       a room's turns, to read
    /v1/stream/rooms/{room}/session            a room's session (see server/session.py), to read
    /v1/stream/__ds/streams                    which streams there are
    /v1/stream/__ds/stop/{path}                ends a stream that this process writes
    /v1/stream/__ds/...                        subscriptions (see control.py)

Dispatched before the router: these are the server's hottest routes.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

import msgspec
import structlog
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from ...chat.room import ChatRoom
from ...chat.session import SESSION_STREAM
from ...chat.transcript import stream_name
from ...errors import InvalidName, LimitExceeded, PerdureError, StreamNotFound
from ...objects.instance import Instance
from ...objects.runtime import Runtime
from ...stream_hosts.directory import STREAM_PATH_BYTES_MAX
from ...stream_hosts.live_writers import live_writers
from ...values import ObjectId
from ...wire.durable_streams import ReadRequest, Reply, parse_read
from ..paths import route_path, split_path
from ..replies import read_body
from ..told_streams import feed
from .access import ACTION_OF, StreamAccess
from .control import Control
from .exchange import AsgiExchange, Exchange
from .limits import StreamLimits
from .listing import list_streams
from .pending import PendingRead, PendingReply, fail, failed
from .reads import Place, head_reply
from .replies import NO_STORE, OriginPolicy, error_reply
from .service import STREAM_ROOT, MethodNotAllowed, StreamService, stream_path
from .turn_urls import POST_PARAMETER, TurnUrls

log = structlog.get_logger("perdure.streams")

CONTROL = "__ds"
STOP = "stop"
LIST = "streams"
ROOMS = "rooms"


class StreamSurface:
    """Serves streams over ASGI."""

    def __init__(
        self,
        runtime: Runtime,
        access: StreamAccess,
        room_class: type[ChatRoom] | None,
        limits: StreamLimits,
        origins: Collection[str],
        turn_urls: TurnUrls,
    ) -> None:
        self.service = StreamService(runtime, limits)
        self.turn_urls = turn_urls
        self._control = Control(self.service.feed, access)
        self.policy = OriginPolicy(origins)
        self.runtime = runtime
        self._access = access
        self._room_class = room_class
        self.limits = limits
        self.plain_paths: dict[bytes, str] = {}
        """For the accelerator: request paths that are streams' paths as they are."""
        self._defaults: list[tuple[bytes, bytes]] | None = None
        self._encoded_defaults = b""

    @property
    def open(self) -> bool:
        """Whether anyone may do anything."""
        return self._access.open

    def encode_defaults(self, defaults: list[tuple[bytes, bytes]]) -> bytes:
        """The server's headers and those that every answer has, as bytes. The server's change once a second."""
        if defaults is not self._defaults:
            self._defaults = defaults
            lines = [name + b": " + value + b"\r\n" for name, value in (*defaults, *self.policy.common)]
            self._encoded_defaults = b"".join(lines)
        return self._encoded_defaults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request under `STREAM_ROOT`."""
        headers = dict(scope["headers"])
        common = self.policy.headers(headers.get(b"origin"))
        exchange = AsgiExchange(
            scope["method"],
            stream_path_of(scope),
            scope["query_string"],
            headers,
            b"",
            *_addresses(scope, headers),
            common,
        )
        if scope["method"] == "OPTIONS":
            exchange.reply(self.policy.preflight())
        else:
            try:
                await self._answer(exchange, scope, receive)
            except Exception as error:  # of the application's hooks, too
                exchange.reply(failed(exchange, error))
        await exchange.carry(receive, send)

    async def _answer(self, exchange: AsgiExchange, scope: Scope, receive: Receive) -> None:
        segments = split_path(scope)[2:]
        if not segments:
            raise InvalidName("streams are below this address, each at its path")
        if segments[:2] == [CONTROL, STOP]:
            await self._stop_writer(exchange, Request(scope, receive), check_stream_path("/".join(segments[2:])))
            return
        if segments == [CONTROL, LIST]:
            await self._list(exchange, Request(scope, receive))
            return
        if segments[0] == CONTROL:
            root_url = exchange.url[: exchange.url.index(b"/v1/stream/") + len("/v1/stream")].decode("latin-1")
            await self._answer_control(exchange, Request(scope, receive), segments[1:], root_url)
            return
        path = check_stream_path(exchange.path)
        room = self._room_of(segments)
        request = Request(scope, receive)
        if path.split("/")[0] in (CONTROL, ROOMS) and segments[0] != ROOMS:
            raise StreamNotFound("this address is not a free-standing stream's")  # a slash in it was encoded
        if not self._access.open:
            action = ACTION_OF.get(exchange.method, "read")
            await self._access.check(request, path, action, room=room)
            source = exchange.headers.get(b"stream-forked-from")
            if action == "create" and source is not None:
                given = source.decode("utf-8", "replace")
                await self._access.check(request, stream_path(given, exchange.root), "read")
        elif exchange.method not in ("GET", "HEAD"):
            self._access.check_origin(request)
        if segments[0] == ROOMS:
            mark = request.query_params.get(POST_PARAMETER)
            if mark is not None:
                self.turn_urls.reader_came(mark)
            self._read_turn(exchange, segments)
            return
        if exchange.method in ("POST", "PUT"):
            exchange.body = await read_body(request, "append_bytes_max", self.limits.append_bytes_max)
        self.service.handle(exchange)

    async def _list(self, exchange: AsgiExchange, request: Request) -> None:
        """``GET __ds/streams``: which free-standing streams there are."""
        if exchange.method != "GET":
            raise MethodNotAllowed("streams are listed with GET")
        if not self._access.open:
            await self._access.check(request, f"{CONTROL}/{LIST}", "read")
        asked = request.query_params
        body = await list_streams(
            self.service.directory, asked.get("prefix", ""), asked.get("after", ""), asked.get("limit", "")
        )
        exchange.reply(Reply(200, [(b"content-type", b"application/json"), NO_STORE], msgspec.json.encode(body)))

    async def _stop_writer(self, exchange: AsgiExchange, request: Request, path: str) -> None:
        """``POST __ds/stop/{path}``: end a stream that this process writes."""
        if exchange.method != "POST":
            raise MethodNotAllowed("stop a stream's writer with POST")
        if self._access.open:
            self._access.check_origin(request)
        else:
            await self._access.check(request, path, "append")
        writer = live_writers(self.runtime).get(path)
        if writer is not None:
            writer.stop()
        body = b'{"success":true,"stopped":true}' if writer is not None else b'{"success":true,"stopped":false}'
        exchange.reply(Reply(200, [(b"content-type", b"application/json")], body))

    async def _answer_control(
        self, exchange: AsgiExchange, request: Request, segments: list[str], root_url: str
    ) -> None:
        response = await self._control.answer(request, segments, root_url)
        headers = [(name, value) for name, value in response.raw_headers if name != b"content-length"]
        exchange.reply(Reply(response.status_code, headers, bytes(response.body)))

    # --- a room's turns

    def _room_of(self, segments: list[str]) -> str | None:
        return segments[1] if segments[0] == ROOMS and len(segments) > 1 else None

    def _read_turn(self, exchange: Exchange, segments: list[str]) -> None:
        """Read what a room has said; only the room writes it."""
        name = _stream_of_room(segments)
        if self._room_class is None or name is None:
            raise StreamNotFound(
                "streams of rooms are at rooms/{room}/turns/{turn} and rooms/{room}/session; "
                "free-standing ones live elsewhere"
            )
        if exchange.method not in ("GET", "HEAD"):
            raise MethodNotAllowed("a room's streams are written by the room; they can only be read")
        object_id = self.runtime.object_id(self._room_class, segments[1])
        if not self.runtime.exists(object_id):
            raise StreamNotFound(f"there is no room {segments[1]!r}")
        self._read_at(exchange, object_id, name)

    def _read_at(self, exchange: Exchange, object_id: ObjectId, name: str) -> None:
        read = parse_read(exchange.query) if exchange.method == "GET" else None
        work = partial(self._read_in_room, exchange, read, name, object_id)
        instance = self.runtime.enter(object_id)
        if instance is not None:
            work(instance)
            return

        async def event(woken: Instance) -> None:
            work(woken)

        self.runtime.deliver(object_id, event, "stream", partial(fail, exchange))

    def session_reader(self, object_id: ObjectId) -> ASGIApp:
        """An ASGI application that answers a GET or HEAD with the room's session stream."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            headers = dict(scope["headers"])
            addresses = _addresses(scope, headers)
            # The router's middleware adds what other origins need.
            exchange = AsgiExchange(
                scope["method"], "", scope["query_string"], headers, b"", *addresses, self.policy.common
            )
            try:
                self._read_at(exchange, object_id, SESSION_STREAM)
            except PerdureError as error:
                exchange.reply(error_reply(error))
            await exchange.carry(receive, send)

        return answer

    def _read_in_room(
        self, exchange: Exchange, read: ReadRequest | None, name: str, object_id: ObjectId, instance: Instance
    ) -> None:
        reply: Reply | None
        try:
            if name == SESSION_STREAM and isinstance(instance.object, ChatRoom):
                instance.object.open_session(fresh=read is not None and read.offset in (None, "-1"))
            if isinstance(instance.object, ChatRoom):
                feed(instance.object, name)
            stream = instance.streams.get(name)
            if stream.durable_position == 0 < stream.position:
                # Just made: its first reader is to see all that it begins with.
                again = partial(self._read_in_room, exchange, read, name, object_id, instance)
                instance.gate.submit(True, PendingRead(exchange, lambda: instance.runtime.loop.call_soon(again)))
                return
            place = Place(instance, stream, f"{object_id.key}.{stream.stored.number}")
            reply = head_reply(place) if read is None else self.service.reads.read(read, exchange, place)
        except PerdureError as error:
            reply = error_reply(error)
        if reply is not None:
            instance.gate.submit(instance.storage.dirty, PendingReply(exchange, reply))


def _stream_of_room(segments: list[str]) -> str | None:
    """The name, inside the room, of the stream that the address means."""
    if len(segments) == 4 and segments[2] == "turns":
        return stream_name(segments[3])
    return SESSION_STREAM if len(segments) == 3 and segments[2] == "session" else None


def stream_path_of(scope: Scope) -> str:
    """The stream's path: what follows `STREAM_ROOT`, decoded."""
    return "/".join(split_path(scope)[2:])


def is_stream_path(scope: Scope) -> bool:
    """Whether the request is for a stream."""
    return route_path(scope).startswith(STREAM_ROOT)


def check_stream_path(path: str) -> str:
    """Return ``path`` if a stream may have it.

    Raises:
        InvalidName: it is empty, has empty segments or control characters, or is no valid Unicode text.
        LimitExceeded: ``stream_path_bytes_max``.
    """
    if not path or "//" in path or path.startswith("/") or path.endswith("/"):
        raise InvalidName("a stream's path is one or more names with slashes between them")
    try:
        size = len(path.encode())
    except UnicodeEncodeError:
        raise InvalidName("a stream's path must be valid Unicode text") from None
    if size > STREAM_PATH_BYTES_MAX:
        raise LimitExceeded("stream_path_bytes_max", size, STREAM_PATH_BYTES_MAX)
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        raise InvalidName("a stream's path must not hold control characters")
    return path


def _addresses(scope: Scope, headers: dict[bytes, bytes]) -> tuple[str, bytes]:
    """The path of all streams, and the request's URL without its query, as the client sees them."""
    root = scope.get("root_path", "")
    path: bytes = scope.get("raw_path") or scope["path"].encode()
    host = headers.get(b"host") or b"localhost"
    return f"{root}{STREAM_ROOT}", scope.get("scheme", "http").encode() + b"://" + host + path.split(b"?")[0]
