"""Posting a webhook: to an address that was checked, and no other."""

from __future__ import annotations

import asyncio
import socket
import ssl
from functools import cache

import httpx2

from ..errors import PerdureError
from ..wire.subscriptions import webhook_is_done
from ..wire.webhooks import WebhookTarget, check_address, parse_webhook_url

REPLY_BYTES_MAX = 64 * 1024
"""How much of a receiver's reply is read."""

CONNECT_TIMEOUT_S = 10


class DeliveryFailed(PerdureError):
    """The receiver was not reached, or did not say 2xx."""

    code = "delivery_failed"


async def deliver(url: str, body: bytes, signature: str, *, timeout_s: float) -> bool:
    """Post the body; whether the receiver says that it is done.

    The host is resolved once; each of its addresses is checked before it is connected to, and
    nothing else is: a name that leads somewhere else a moment later (DNS rebinding) leads
    nowhere. The next address is tried when one takes no connection. Redirects are not followed.

    Raises:
        DeliveryFailed: no connection, no answer in time, or a status other than 2xx.
        WebhookRejected: the host leads to an address that webhooks may not go to.
    """
    target = parse_webhook_url(url)
    try:
        async with asyncio.timeout(timeout_s):
            addresses = await _resolve(target.host, target.port)
            for address in addresses[:-1]:
                try:
                    return await _post(target, address, body, signature, timeout_s)
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    continue
            return await _post(target, addresses[-1], body, signature, timeout_s)
    except (TimeoutError, OSError, httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise DeliveryFailed(f"{target.host}: {str(error) or type(error).__name__}") from error


async def _resolve(host: str, port: int) -> list[str]:
    """The host's addresses, best first."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise DeliveryFailed(f"{host} has no address")
    return list(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


async def _post(target: WebhookTarget, address: str, body: bytes, signature: str, timeout_s: float) -> bool:
    check_address(address, local=target.local)
    url = httpx2.URL(target.url)
    headers = {
        "host": url.netloc.decode("ascii"),
        "content-type": "application/json",
        "webhook-signature": signature,
        "user-agent": "perdure",
        "accept-encoding": "identity",  # a small packed reply could be a huge one
    }
    timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
    # No connection is kept: it is known by its address, and another host's certificate may have opened it.
    transport = await asyncio.to_thread(_transport, local=target.local)
    async with (
        httpx2.AsyncClient(transport=transport, timeout=timeout, follow_redirects=False, trust_env=False) as client,
        client.stream(
            "POST",
            url.copy_with(host=address),
            content=body,
            headers=headers,
            extensions={"sni_hostname": target.host},
        ) as response,
    ):
        if not response.is_success:
            raise DeliveryFailed(f"{target.host} answered {response.status_code}")
        reply = bytearray()
        async for piece in response.aiter_raw():
            reply += piece
            if len(reply) > REPLY_BYTES_MAX:
                return False
        return webhook_is_done(bytes(reply))


def _transport(*, local: bool) -> httpx2.AsyncHTTPTransport:
    """What makes connections. To be called in a thread: the first one loads modules and certificates."""
    return httpx2.AsyncHTTPTransport(verify=_no_tls() if local else _tls(), trust_env=False)


@cache
def _tls() -> ssl.SSLContext:
    """Read once: that takes as long as a hundred deliveries."""
    return httpx2.create_ssl_context(trust_env=False)


@cache
def _no_tls() -> ssl.SSLContext:
    """For plain HTTP, where it is never used; trusts nobody."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
