"""Webhooks of Durable Streams subscriptions: which URLs may be called, who signed a call, and who may answer it.

A URL comes from whoever may create a subscription, and this server calls it from inside its own
network. So it is checked twice: as it is written (`parse_webhook_url`), and, when it is called,
each address that its name resolves to (`check_address`). Connect to the address that was checked;
a second look-up may answer differently (DNS rebinding).

A call is signed with Ed25519. The header is ::

    Webhook-Signature: t=<unix seconds>,kid=<key id>,ed25519=<base64url of 64 bytes>

over the bytes ``<t>.<raw body>``. A key's id is ``ds_`` and the base64url SHA-256 of its
thumbprint input (RFC 7638 with RFC 8037): the same key has the same id everywhere. The public
keys, old ones too, are published as a JWK set (RFC 7517).

Whoever answers a wake shows a token that was given out with it (workers that claim get one, too):
``<payload>.<HMAC-SHA256>``, both as base64url, the payload ``{"sub","gen","exp"}``.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import LimitExceeded, PerdureError, RemoteProtocolError, Unauthenticated
from .json_text import decode_json, encode_json

WEBHOOK_URL_BYTES_MAX = 2_048
"""Longest URL of a webhook, in bytes."""

SIGNATURE_TOLERANCE_S = 300
"""How far a signature's time may be from the receiver's clock, both ways: what a replay has."""

SEED_BYTES = 32

TOKEN_TTL_S = 86_400
"""Seconds that a token is valid, and so the longest that one wake can be kept alive. What ends a
worker's right earlier is the generation."""

TOKEN_BYTES_MAX = 2_048
"""Longest token that is looked at."""

JWKS_CONTENT_TYPE = "application/jwk-set+json"
JWKS_CACHE_S = 300
"""Seconds for which receivers may keep the key set. Publish a new key that long before signing with it."""

JWKS_PATH = "__ds/jwks.json"
"""Where the key set is, below the root of all streams."""


class WebhookRejected(PerdureError):
    """The webhook's URL, or an address that it leads to, is not one that this server calls."""

    code = "WEBHOOK_URL_REJECTED"
    status = 400


class UnknownWebhookKey(Unauthenticated):
    """A signature by a key that is not in the key set. Fetch the set anew, once, and check again."""

    code = "unknown_webhook_key"

    def __init__(self, kid: str) -> None:
        self.kid = kid
        super().__init__(f"no key of the set is called {kid!r}")


class TokenInvalid(Unauthenticated):
    """There is no token, or it is not one that this server gave out for this subscription."""

    code = "TOKEN_INVALID"


class TokenExpired(Unauthenticated):
    """The token was right once."""

    code = "TOKEN_EXPIRED"


# --- where to


class WebhookTarget(NamedTuple):
    """Where a webhook goes. ``local``: by plain HTTP to this machine, for development."""

    url: str
    host: str
    port: int
    local: bool


_PRIVATE_NAMES = ("localhost", "local", "internal", "home.arpa")
"""Top names that never mean a host of the public internet. Cloud metadata services live below ``internal``."""

_NAME = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRINTABLE = re.compile(r"[!-\[\]-~]+")  # ASCII without space, control characters and the backslash


def parse_webhook_url(url: str) -> WebhookTarget:
    """Where ``url`` leads, if webhooks may go there as far as its text can tell.

    ``https`` to public hosts; ``http`` only to ``localhost`` and 127.x.x.x. No user or password.
    A name that is not ASCII has to come as Punycode, an IPv4 address as four decimal numbers:
    other spellings are read differently by different programs.

    Raises:
        WebhookRejected: it is not such a URL; the text says why.
        LimitExceeded: ``webhook_url_bytes_max``.
    """
    size = len(url.encode(errors="surrogatepass"))
    if size > WEBHOOK_URL_BYTES_MAX:
        raise LimitExceeded("webhook_url_bytes_max", size, WEBHOOK_URL_BYTES_MAX)
    if not _PRINTABLE.fullmatch(url):
        raise WebhookRejected("webhook.url holds characters that a URL may not hold unescaped")
    try:
        parts = urlsplit(url)
        host, port = (parts.hostname or "").lower(), parts.port
    except ValueError:
        raise WebhookRejected("webhook.url is not a valid URL") from None
    if parts.scheme not in ("http", "https") or not host:
        raise WebhookRejected("webhook.url has to be an absolute https URL")
    if "@" in parts.netloc:
        raise WebhookRejected("webhook.url must not carry a user or a password")
    if port == 0:
        raise WebhookRejected("webhook.url names port 0")
    host = host.removesuffix(".")
    local = _check_host(host, parts.scheme)
    return WebhookTarget(url, host, port or (80 if local else 443), local)


def _check_host(host: str, scheme: str) -> bool:
    """Whether the host is this machine, meant as such. Raises WebhookRejected."""
    address = _literal_address(host)
    if scheme == "http":
        if host == "localhost" or (address is not None and address.version == 4 and address.is_loopback):
            return True
        raise WebhookRejected("webhook.url by plain http is for localhost and 127.x.x.x only; use https")
    if address is not None:
        check_address(str(address), local=False)
    elif not _NAME.fullmatch(host):
        raise WebhookRejected("webhook.url has no valid host name")
    elif "." not in host or any(host == name or host.endswith("." + name) for name in _PRIVATE_NAMES):
        raise WebhookRejected("webhook.url names a private host")
    return False


def _literal_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if ":" not in host and not _NUMBER.fullmatch(host.rpartition(".")[2]):
        return None
    try:
        if "%" in host:
            raise ValueError(host)  # a zone: only link-local addresses have one
        return ipaddress.ip_address(host)
    except ValueError:
        raise WebhookRejected("webhook.url has no valid address: write IPv4 as four decimal numbers") from None


_REFUSED_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this host
        "10.0.0.0/8",
        "100.64.0.0/10",  # carriers' NAT; a cloud's metadata at 100.100.100.200
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, on a public address
        "169.254.0.0/16",  # link-local; most clouds' metadata
        "172.16.0.0/12",
        "192.0.0.0/24",  # protocols' own; a cloud's metadata at 192.0.0.192
        "192.0.2.0/24",
        "192.88.99.0/24",  # 6to4 relays
        "192.168.0.0/16",
        "198.18.0.0/15",  # benchmarks
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, broadcast
    )
)
_GLOBAL_V6 = ipaddress.IPv6Network("2000::/3")
"""All that is given out for the public internet; loopback, private, link-local and multicast are outside."""

_REFUSED_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocols' own; Teredo carries an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4 carries an IPv4 address
        "3fff::/20",
    )
)
_TRANSLATED_V6 = ipaddress.IPv6Network("64:ff9b::/96")
"""Networks without IPv4 reach it by these (RFC 6052); the last four bytes are the IPv4 address."""


def check_address(address: str, *, local: bool) -> None:
    """Whether a webhook may be sent to the IP address that a target's host resolved to.

    ``local`` is the target's: such a one goes to a loopback address and nowhere else, any other
    to a public address and nowhere else. An IPv6 address that stands for an IPv4 address is
    judged as that.

    Raises:
        WebhookRejected: no; also for what is not an IP address at all.
    """
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        raise WebhookRejected(f"{address[:80]!r} is not an IP address") from None
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            parsed = parsed.ipv4_mapped
        elif parsed in _TRANSLATED_V6:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFF_FFFF)
    allowed = parsed.is_loopback if local else _is_public(parsed)
    if not allowed:
        wanted = "a loopback" if local else "a public"
        raise WebhookRejected(f"webhook.url leads to {address}, which is not {wanted} address")


def _is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    # Own tables: what `is_global` says of an address changed between patch releases of Python.
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _REFUSED_V4)
    return address in _GLOBAL_V6 and not any(address in network for network in _REFUSED_V6)


# --- signatures


class Jwk(msgspec.Struct, frozen=True):
    """A public Ed25519 key as receivers fetch it (RFC 8037): ``x`` is its 32 bytes as base64url."""

    kty: str
    crv: str
    x: str
    kid: str
    use: str = "sig"
    alg: str = "EdDSA"


class WebhookKey:
    """A key that webhooks are signed with.

    ``seed`` is the private key: 32 random bytes, to be kept as long as the key is used. Of a
    key that is not used any more keep the `jwk`, and publish it while its calls may be checked.
    """

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise ValueError(f"a key's seed has {SEED_BYTES} bytes, not {len(seed)}")
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        x = _base64url(self._private.public_key().public_bytes_raw())
        self.jwk = Jwk("OKP", "Ed25519", x, key_id(x))

    @property
    def kid(self) -> str:
        """The key's id."""
        return self.jwk.kid

    def sign(self, body: bytes, now_s: int) -> str:
        """The value of ``Webhook-Signature`` for a call with this body, sent now."""
        signature = self._private.sign(b"%d." % now_s + body)
        return f"t={now_s},kid={self.kid},ed25519={_base64url(signature)}"


def key_id(x: str) -> str:
    """The id of the public key ``x`` (base64url): ``ds_`` and its thumbprint (RFC 7638)."""
    thumbprint_input = f'{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}'
    return "ds_" + _base64url(hashlib.sha256(thumbprint_input.encode()).digest())


def jwks_document(keys: Iterable[Jwk]) -> bytes:
    """The key set to publish, as `JWKS_CONTENT_TYPE`."""
    return encode_json({"keys": list(keys)})


def parse_jwks(document: bytes) -> list[Jwk]:
    """The Ed25519 keys of a published set; keys of other kinds are left out (RFC 7517, section 5).

    Raises:
        RemoteProtocolError: it is not a key set.
    """
    fields = decode_json(document, "the key set")
    if not isinstance(fields, dict) or not isinstance(fields.get("keys"), list):
        raise RemoteProtocolError("the key set has no `keys`")
    found = []
    for item in fields["keys"]:
        try:
            key = msgspec.convert(item, Jwk)
        except msgspec.ValidationError:
            continue
        if (key.kty, key.crv, key.alg, key.use) == ("OKP", "Ed25519", "EdDSA", "sig"):
            found.append(key)
    return found


_SIGNATURE = re.compile(r"t=([0-9]{1,12}),kid=([^,\s]{1,128}),ed25519=([A-Za-z0-9_-]{86})")


def check_webhook_signature(
    header: str, body: bytes, keys: Iterable[Jwk], *, now_s: int, tolerance_s: int = SIGNATURE_TOLERANCE_S
) -> None:
    """For receivers: return if the call was signed by one of ``keys`` within ``tolerance_s`` of now.

    ``header`` is the call's ``Webhook-Signature``, ``body`` its bytes as they came, before any
    parsing. A call can be repeated within the tolerance: a wake's ``wake_id`` tells.

    Raises:
        UnknownWebhookKey: another key; fetch the set anew, once.
        Unauthenticated: anything else is wrong with it; do not act on the call.
    """
    match = _SIGNATURE.fullmatch(header)
    if match is None:
        raise Unauthenticated("the call has no valid Webhook-Signature")
    time_text, kid, signature = match.groups()
    if abs(now_s - int(time_text)) > tolerance_s:
        raise Unauthenticated(f"the call was signed more than {tolerance_s} seconds ago, or will be")
    key = next((key for key in keys if key.kid == kid), None)
    if key is None:
        raise UnknownWebhookKey(kid)
    try:
        public = Ed25519PublicKey.from_public_bytes(_from_base64url(key.x))
        public.verify(_from_base64url(signature), time_text.encode() + b"." + body)
    except (InvalidSignature, ValueError):
        raise Unauthenticated("the call's signature is wrong") from None


# --- tokens


class _TokenPayload(msgspec.Struct, frozen=True):
    sub: str
    gen: int
    exp: int


def wake_token(key: bytes, subscription_id: str, generation: int, *, expires_at_s: int) -> str:
    """The right to answer one wake.

    ``key`` is the server's secret and has to outlive a restart. The token itself hides nothing.
    """
    payload = _base64url(encode_json(_TokenPayload(subscription_id, generation, expires_at_s)))
    return f"{payload}.{_token_mac(key, payload)}"


def read_wake_token(authorization: str | None, key: bytes, subscription_id: str, *, now_s: int) -> int:
    """The generation that the token in an ``Authorization`` header is for.

    Raises:
        TokenInvalid: there is none, or it is not this server's for this subscription.
        TokenExpired: it was.
    """
    scheme, _, token = (authorization or "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise TokenInvalid("this needs an Authorization header with the wake's bearer token")
    payload, _, mac = token.partition(".")
    known = len(token) <= TOKEN_BYTES_MAX and token.isascii()
    if not known or not hmac.compare_digest(mac, _token_mac(key, payload)):
        raise TokenInvalid("the token is not one of this server's")
    fields = msgspec.json.decode(_from_base64url(payload), type=_TokenPayload)  # ours: the MAC says so
    if fields.sub != subscription_id:
        raise TokenInvalid("the token is another subscription's")
    if now_s > fields.exp:
        raise TokenExpired("the token has expired")
    return fields.gen


def _token_mac(key: bytes, payload: str) -> str:
    # The prefix keeps these apart from anything else that is signed with the same key.
    return _base64url(hmac.digest(key, b"perdure wake token." + payload.encode(), "sha256"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _from_base64url(text: str) -> bytes:
    """Raises ValueError."""
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
