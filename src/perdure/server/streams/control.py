"""``/v1/stream/__ds/``: subscriptions and the keys of their webhooks.

::

    PUT | GET | DELETE  subscriptions/{id}
    POST                subscriptions/{id}/streams              {"streams": [...]}
    DELETE              subscriptions/{id}/streams/{path}
    POST                subscriptions/{id}/callback             a webhook's receiver reports
    POST                subscriptions/{id}/claim | ack | release
    GET                 jwks.json

Callbacks, acks and releases carry the wake's own token; the rest is for whoever may use streams.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response

from ...stream_hosts.subscriptions import SubscriptionFeed, Subscriptions
from ...wire.subscriptions import (
    SUBSCRIPTION_BODY_BYTES_MAX,
    SubscriptionError,
    check_subscription_id,
    parse_ack,
    parse_claim,
    parse_streams,
    parse_subscription,
    stream_path,
)
from ...wire.webhooks import JWKS_CACHE_S, JWKS_CONTENT_TYPE
from ..replies import read_body
from .access import StreamAccess
from .service import MethodNotAllowed

JSON = "application/json"

MANAGE = "__ds/subscriptions"
"""The stream's name that the ``authorize`` hook is asked for, with the action ``"create"`` or ``"read"``."""

READING = ("GET", "HEAD")

_Result = TypeVar("_Result")


class Control:
    """The control routes."""

    def __init__(self, feed: SubscriptionFeed, access: StreamAccess) -> None:
        self._feed = feed
        self._access = access

    async def answer(self, request: Request, segments: list[str], root_url: str) -> Response:
        """Answer a request for ``__ds/{segments}``; ``root_url`` is that of all streams.

        Raises:
            PerdureError: SubscriptionError and others, each with its status.
        """
        match segments:
            case ["jwks.json"]:
                return await self._keys(request)
            case ["subscriptions", id, ("callback" | "ack" | "release") as what]:
                _only(request, "POST")
                return await self._report(request, check_subscription_id(id), what)
            case ["subscriptions", id]:
                await self._check(request)
                return await self._subscription(request, check_subscription_id(id), root_url)
            case ["subscriptions", id, "claim"]:
                await self._check(request)
                return await self._claim(request, check_subscription_id(id))
            case ["subscriptions", id, "streams"]:
                await self._check(request)
                return await self._add_streams(request, check_subscription_id(id))
            case ["subscriptions", id, "streams", *path]:
                await self._check(request)
                return await self._remove_stream(request, check_subscription_id(id), stream_path("/".join(path)))
        raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", "there is nothing at this address")

    async def _check(self, request: Request) -> None:
        """Raises Unauthenticated, Forbidden."""
        if self._access.open:
            self._access.check_origin(request)
        else:
            await self._access.check(request, MANAGE, "read" if request.method in READING else "create")

    async def _in(self, id: str, work: Callable[[Subscriptions], Coroutine[Any, Any, _Result]]) -> _Result:
        """Do something with a subscription. Where there is none no object is made to say so."""
        if not self._feed.active:
            raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", f"there is no subscription {id!r}")
        return await self._feed.run(work)

    async def _keys(self, request: Request) -> Response:
        _only(request, *READING)

        async def keys(subscriptions: Subscriptions) -> bytes:
            return subscriptions.jwks()

        headers = {"cache-control": f"public, max-age={JWKS_CACHE_S}"}
        return Response(await self._feed.run(keys), headers=headers, media_type=JWKS_CONTENT_TYPE)

    async def _subscription(self, request: Request, id: str, root_url: str) -> Response:
        _only(request, *READING, "PUT", "DELETE")
        if request.method == "PUT":
            config = parse_subscription(await _body(request))
            new, document = await self._feed.run(lambda subscriptions: subscriptions.create(id, config, root_url))
            return Response(document, 201 if new else 200, media_type=JSON)
        if request.method == "DELETE":

            async def delete(subscriptions: Subscriptions) -> None:
                subscriptions.delete(id)

            if self._feed.active:
                await self._feed.run(delete)
            return Response(status_code=204)

        async def show(subscriptions: Subscriptions) -> bytes:
            return subscriptions.document(id)

        return Response(await self._in(id, show), media_type=JSON)

    async def _add_streams(self, request: Request, id: str) -> Response:
        _only(request, "POST")
        paths = parse_streams(await _body(request))
        await self._in(id, lambda subscriptions: subscriptions.add_streams(id, paths))
        return Response(status_code=204)

    async def _remove_stream(self, request: Request, id: str, path: str) -> Response:
        _only(request, "DELETE")

        async def remove(subscriptions: Subscriptions) -> None:
            subscriptions.remove_stream(id, path)

        await self._in(id, remove)
        return Response(status_code=204)

    async def _claim(self, request: Request, id: str) -> Response:
        _only(request, "POST")
        worker = parse_claim(await _body(request))

        async def claim(subscriptions: Subscriptions) -> bytes:
            return subscriptions.claim(id, worker)

        return Response(await self._in(id, claim), media_type=JSON)

    async def _report(self, request: Request, id: str, what: str) -> Response:
        authorization = request.headers.get("authorization")
        body = await _body(request)

        async def report(subscriptions: Subscriptions) -> bytes | None:
            generation = subscriptions.token_generation(id, authorization)
            report = parse_ack(body)
            if what == "release":
                subscriptions.release(id, report, generation)
                return None
            return await subscriptions.acknowledge(id, report, generation, webhook=what == "callback")

        document = await self._in(id, report)
        return Response(status_code=204) if document is None else Response(document, media_type=JSON)


def _only(request: Request, *methods: str) -> None:
    """Raises MethodNotAllowed."""
    if request.method not in methods:
        raise MethodNotAllowed(f"{request.method} is not for this address; it takes {', '.join(methods)}")


async def _body(request: Request) -> bytes:
    return await read_body(request, "subscription_body_bytes_max", SUBSCRIPTION_BODY_BYTES_MAX)
