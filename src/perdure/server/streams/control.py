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

import time

from starlette.requests import Request
from starlette.responses import Response

from ...errors import Forbidden
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
from ...wire.webhooks import JWKS_CACHE_S, JWKS_CONTENT_TYPE, read_wake_token
from ..replies import read_body
from .access import StreamAccess

JSON = "application/json"

MANAGE = "__ds/subscriptions"
"""The stream's name that the ``authorize`` hook is asked for, with the action ``"create"`` or ``"read"``."""


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
        method = request.method
        if segments == ["jwks.json"] and method in ("GET", "HEAD"):
            document = await self._feed.run(_jwks)
            headers = {"cache-control": f"public, max-age={JWKS_CACHE_S}"}
            return Response(document, headers=headers, media_type=JWKS_CONTENT_TYPE)
        if len(segments) < 2 or segments[0] != "subscriptions":
            raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", "there is nothing at this address")
        id, rest = check_subscription_id(segments[1]), segments[2:]
        if rest in (["callback"], ["ack"], ["release"]) and method == "POST":
            return await self._report(request, id, rest[0])
        if not self._access.open:
            await self._access.check(request, MANAGE, "read" if method == "GET" else "create")
        elif method != "GET":
            self._access.check_origin(request)
        if not rest:
            return await self._subscription(request, method, id, root_url)
        if rest == ["claim"] and method == "POST":
            worker = parse_claim(await _body(request))

            async def claim(subscriptions: Subscriptions) -> bytes:
                return subscriptions.claim(id, worker)

            return Response(await self._feed.run(claim), media_type=JSON)
        if rest == ["streams"] and method == "POST":
            paths = parse_streams(await _body(request))
            await self._feed.run(lambda subscriptions: subscriptions.add_streams(id, paths))
            return Response(status_code=204)
        if rest[0] == "streams" and len(rest) > 1 and method == "DELETE":
            path = stream_path("/".join(rest[1:]))

            async def remove(subscriptions: Subscriptions) -> None:
                subscriptions.remove_stream(id, path)

            await self._feed.run(remove)
            return Response(status_code=204)
        raise SubscriptionError("SUBSCRIPTION_NOT_FOUND", "there is nothing at this address")

    async def _subscription(self, request: Request, method: str, id: str, root_url: str) -> Response:
        if method == "PUT":
            config = parse_subscription(await _body(request))
            new, document = await self._feed.run(lambda subscriptions: subscriptions.create(id, config, root_url))
            return Response(document, 201 if new else 200, media_type=JSON)
        if method in ("GET", "HEAD"):

            async def show(subscriptions: Subscriptions) -> bytes:
                return subscriptions.document(id)

            return Response(await self._feed.run(show), media_type=JSON)
        if method == "DELETE":

            async def delete(subscriptions: Subscriptions) -> None:
                subscriptions.delete(id)

            await self._feed.run(delete)
            return Response(status_code=204)
        raise Forbidden(f"{method} is not for subscriptions")

    async def _report(self, request: Request, id: str, what: str) -> Response:
        authorization = request.headers.get("authorization")
        body = await _body(request)

        async def report(subscriptions: Subscriptions) -> bytes | None:
            subscriptions.document(id)  # whether there is one comes before whether the token is right
            generation = read_wake_token(authorization, subscriptions.token_key, id, now_s=int(time.time()))
            report = parse_ack(body)
            if what == "release":
                subscriptions.release(id, report, generation)
                return None
            return await subscriptions.acknowledge(id, report, generation, webhook=what == "callback")

        document = await self._feed.run(report)
        return Response(status_code=204) if document is None else Response(document, media_type=JSON)


async def _jwks(subscriptions: Subscriptions) -> bytes:
    return subscriptions.jwks()


async def _body(request: Request) -> bytes:
    return await read_body(request, "subscription_body_bytes_max", SUBSCRIPTION_BODY_BYTES_MAX)
