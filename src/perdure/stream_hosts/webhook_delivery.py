"""Posting a webhook: to the address that was checked, and no other."""

from __future__ import annotations

import asyncio
import socket

import httpx2

from ..errors import PerdureError
from ..wire.subscriptions import webhook_is_done
from ..wire.webhooks import check_address, parse_webhook_url

REPLY_BYTES_MAX = 64 * 1024
"""How much of a receiver's reply is read."""

CONNECT_TIMEOUT_S = 10


class DeliveryFailed(PerdureError):
    """The receiver was not reached, or did not say 2xx."""

    code = "delivery_failed"


async def deliver(url: str, body: bytes, signature: str, *, timeout_s: float) -> bool:
    """Post the body; whether the receiver says that it is done.

    The host is resolved once and checked, and that address is connected to: a name that leads
    somewhere else a moment later (DNS rebinding) leads nowhere. Redirects are not followed.

    Raises:
        DeliveryFailed: no connection, no answer in time, or a status other than 2xx.
        WebhookRejected: the host leads to an address that webhooks may not go to.
    """
    target = parse_webhook_url(url)
    try:
        async with asyncio.timeout(timeout_s):
            address = await _resolve(target.host, target.port)
            check_address(address, local=target.local)
            request_url = httpx2.URL(url)
            pinned = request_url.copy_with(host=address)
            headers = {
                "host": request_url.netloc.decode("ascii"),
                "content-type": "application/json",
                "webhook-signature": signature,
                "user-agent": "perdure",
            }
            timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_TIMEOUT_S, timeout_s))
            async with (
                httpx2.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client,
                client.stream(
                    "POST", pinned, content=body, headers=headers, extensions={"sni_hostname": target.host}
                ) as response,
            ):
                if not response.is_success:
                    raise DeliveryFailed(f"{target.host} answered {response.status_code}")
                reply = bytearray()
                async for piece in response.aiter_bytes():
                    reply += piece
                    if len(reply) > REPLY_BYTES_MAX:
                        return False
                return webhook_is_done(bytes(reply))
    except (TimeoutError, OSError, httpx2.HTTPError) as error:
        raise DeliveryFailed(f"{target.host}: {error or type(error).__name__}") from error


async def _resolve(host: str, port: int) -> str:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise DeliveryFailed(f"{host} has no address")
    return str(found[0][4][0])
