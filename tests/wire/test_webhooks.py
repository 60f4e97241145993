"""Webhooks: what a server may call, and how a receiver knows that it was this server."""

from __future__ import annotations

import json

import pytest

from perdure.errors import LimitExceeded, RemoteProtocolError, Unauthenticated
from perdure.wire.webhooks import (
    TOKEN_BYTES_MAX,
    TOKEN_TTL_S,
    WEBHOOK_URL_BYTES_MAX,
    Jwk,
    TokenExpired,
    TokenInvalid,
    UnknownWebhookKey,
    WebhookKey,
    WebhookRejected,
    WebhookTarget,
    check_address,
    check_webhook_signature,
    jwks_document,
    key_id,
    parse_jwks,
    parse_webhook_url,
    read_wake_token,
    wake_token,
)

# The key of RFC 8037, appendix A.1, and its thumbprint of A.3.
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
KID = "ds_kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"

# Signed with Node's crypto module by the same key.
BODY = b'{"subscription_id":"sub-1","wake_id":"w_1","generation":7}'
SIGNATURE = (
    f"t=1700000000,kid={KID},"
    "ed25519=G8_sgw3KTlqisomFvhjgS3jbLR2oQq05LTv3g0ePC8mH1HTofRK2VTkUZzJnx82WKWzPnq1ts41-uyMtUPgZBA"
)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://worker.example/hooks", ("worker.example", 443, False)),
        ("https://Worker.Example:8443/hooks?a=b", ("worker.example", 8443, False)),
        ("https://worker.example./", ("worker.example", 443, False)),
        ("https://xn--bcher-kva.example/", ("xn--bcher-kva.example", 443, False)),
        ("https://a_b.worker-1.example/", ("a_b.worker-1.example", 443, False)),
        ("https://8.8.8.8/", ("8.8.8.8", 443, False)),
        ("https://[2606:4700::1111]/", ("2606:4700::1111", 443, False)),
        ("http://localhost:3000/hook", ("localhost", 3000, True)),
        ("http://127.0.0.1/hook", ("127.0.0.1", 80, True)),
        ("http://127.8.9.10:1/hook", ("127.8.9.10", 1, True)),
    ],
)
def test_what_may_be_called(url: str, target: tuple[str, int, bool]) -> None:
    """Public hosts by https; this machine by http, for development."""
    assert parse_webhook_url(url) == WebhookTarget(url, *target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "worker.example/hooks",
        "/hooks",
        "https:",
        "https:///hooks",
        "https:worker.example",
        "ftp://worker.example/",
        "file:///etc/passwd",
        "javascript:alert(1)",
        # plain http to anywhere else
        "http://worker.example/",
        "http://10.0.0.1/hook",
        "http://[::1]/",
        "http://0.0.0.0/",
        "http://localhost.worker.example/",
        "http://app.localhost/",
        # private, by name
        "https://localhost/",
        "https://app.localhost/",
        "https://redis/",
        "https://printer.local/",
        "https://metadata.google.internal/computeMetadata/v1/",
        # private, by address
        "https://127.0.0.1/",
        "https://10.1.2.3/",
        "https://172.16.0.1/",
        "https://172.31.255.255/",
        "https://192.168.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://100.100.100.200/",
        "https://168.63.129.16/",
        "https://0.0.0.0/",
        "https://224.0.0.1/",
        "https://255.255.255.255/",
        "https://[::]/",
        "https://[::1]/",
        "https://[fe80::1]/",
        "https://[fe80::1%25eth0]/",
        "https://[fd00:ec2::254]/",
        "https://[ff02::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://[::ffff:a9fe:a9fe]/",
        "https://[::127.0.0.1]/",
        "https://[64:ff9b::a00:1]/",
        "https://[2002:a00:1::]/",
        # spellings of 127.0.0.1 that resolvers know
        "https://2130706433/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://1.0x7f/",
        "http://127.1/",
        "http://127.0.0.01/",
        "https://\uff11\uff12\uff17.0.0.1/",
        "https://%31%32%37.0.0.1/",
        # what programs read differently
        "https://ada:secret@worker.example/",
        "https://worker.example@10.0.0.1/",
        "https://@worker.example/",
        "https://worker.example\\@10.0.0.1/",
        "https://worker.example/a b",
        "https://worker.example/\r\nX-Evil: 1",
        " https://worker.example/",
        "https://worker.example:0/",
        "https://worker.example:65536/",
        "https://worker.example:443:80/",
        "https://worker..example/",
        "https://-worker.example/",
        "https://[worker.example]/",
        "https://" + "a" * 64 + ".example/",
        "https://b\u00fccher.example/",
        "https://worker.example/\ud800",
    ],
)
def test_what_is_not_called(url: str) -> None:
    """Anything private, however it is written, and anything that two programs may read differently."""
    with pytest.raises(WebhookRejected) as caught:
        parse_webhook_url(url)
    assert (caught.value.code, caught.value.status) == ("WEBHOOK_URL_REJECTED", 400)


def test_a_url_has_a_length() -> None:
    """`webhook_url_bytes_max`, on both sides."""
    url = "https://worker.example/".ljust(WEBHOOK_URL_BYTES_MAX, "x")
    assert parse_webhook_url(url).url == url
    with pytest.raises(LimitExceeded, match="webhook_url_bytes_max"):
        parse_webhook_url(url + "x")


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "172.15.0.1", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"],
)
def test_public_addresses(address: str) -> None:
    """A public host may be anywhere on the public internet, and nowhere else."""
    check_address(address, local=False)
    with pytest.raises(WebhookRejected, match="not a loopback address"):
        check_address(address, local=True)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1"])
def test_loopback_addresses(address: str) -> None:
    """A host for development has to be this machine; a public host must not be."""
    check_address(address, local=True)
    with pytest.raises(WebhookRejected, match="not a public address"):
        check_address(address, local=False)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "192.0.0.192",
        "198.18.0.1",
        "203.0.113.1",
        "239.255.255.250",
        "240.0.0.1",
        "::",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "::ffff:192.168.1.1",
        "64:ff9b::c0a8:101",
        "64:ff9b:1::808:808",
        "2001:db8::1",
        "2001::1",
        "2002:c0a8:101::1",
        "worker.example",
        "",
    ],
)
def test_addresses_for_nobody(address: str) -> None:
    """What a name resolves to is judged like what is written in a URL."""
    for local in (False, True):
        with pytest.raises(WebhookRejected):
            check_address(address, local=local)


def test_the_keys_id_is_its_thumbprint() -> None:
    """RFC 8037's own key and thumbprint; the same seed gives the same key."""
    key = WebhookKey(SEED)
    assert key.jwk == Jwk("OKP", "Ed25519", X, KID)
    assert key.kid == key_id(X) == KID
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        WebhookKey(SEED[:31])


def test_a_signature_is_the_one_that_others_make() -> None:
    """Ed25519 is deterministic: Node's signature of the same bytes, byte for byte."""
    assert WebhookKey(SEED).sign(BODY, 1_700_000_000) == SIGNATURE


def test_the_key_set() -> None:
    """Several keys are published; receivers pass over what they do not know."""
    old, new = WebhookKey(SEED), WebhookKey(bytes(32))
    document = jwks_document([new.jwk, old.jwk])
    fields = json.loads(document)
    assert fields["keys"][1] == {
        "kty": "OKP",
        "crv": "Ed25519",
        "x": X,
        "kid": KID,
        "use": "sig",
        "alg": "EdDSA",
    }
    fields["keys"].insert(0, {"kty": "RSA", "kid": "1", "n": "..", "e": "AQAB"})
    fields["keys"].insert(0, {"kty": "OKP", "crv": "X25519", "x": X, "kid": "2"})
    assert parse_jwks(json.dumps(fields).encode()) == [new.jwk, old.jwk]
    for bad in (b"", b"[]", b"{}", b'{"keys":{}}'):
        with pytest.raises(RemoteProtocolError):
            parse_jwks(bad)


def test_a_signature_is_checked_within_its_time() -> None:
    """By any key of the set, up to the tolerance before and after, by default five minutes."""
    keys = [WebhookKey(bytes(32)).jwk, WebhookKey(SEED).jwk]
    for now_s in (1_700_000_000, 1_700_000_300, 1_699_999_700):
        check_webhook_signature(SIGNATURE, BODY, keys, now_s=now_s)
    for now_s in (1_700_000_301, 1_699_999_699):
        with pytest.raises(Unauthenticated, match="300 seconds"):
            check_webhook_signature(SIGNATURE, BODY, keys, now_s=now_s)
    check_webhook_signature(SIGNATURE, BODY, keys, now_s=1_700_000_301, tolerance_s=301)


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (SIGNATURE, BODY + b" "),
        (SIGNATURE.replace("G8_s", "G8_t"), BODY),
        (SIGNATURE.replace("t=1700000000", "t=1700000001"), BODY),
        (SIGNATURE[:-1], BODY),
        (SIGNATURE + ",v=2", BODY),
        (SIGNATURE.replace("t=17", "t=\u0661\u0667"), BODY),
        (f"t=1700000000,kid={KID},ed25519=" + "A" * 86, BODY),
        (f"t=1700000000,kid={KID},ed25519=", BODY),
        ("", BODY),
    ],
)
def test_what_is_not_a_signature(header: str, body: bytes) -> None:
    """Another body, another time, another form."""
    with pytest.raises(Unauthenticated) as caught:
        check_webhook_signature(header, body, [WebhookKey(SEED).jwk], now_s=1_700_000_000)
    assert caught.value.status == 401
    assert not isinstance(caught.value, UnknownWebhookKey)


def test_an_unknown_key_is_told_apart() -> None:
    """The receiver's key set may be old: it fetches it again and asks once more."""
    with pytest.raises(UnknownWebhookKey) as caught:
        check_webhook_signature(SIGNATURE, BODY, [WebhookKey(bytes(32)).jwk], now_s=1_700_000_000)
    assert caught.value.kid == KID


def test_a_key_set_with_a_broken_key() -> None:
    """A key whose bytes are no key proves nothing."""
    for x in ("", "AAAA", "!" * 43):
        with pytest.raises(Unauthenticated, match="signature is wrong"):
            check_webhook_signature(SIGNATURE, BODY, [Jwk("OKP", "Ed25519", x, KID)], now_s=1_700_000_000)


TOKEN = "eyJzdWIiOiJzdWItMSIsImdlbiI6NywiZXhwIjoxNzAwMDAwMDAwfQ.3Wr7_-QE86erFl4JvZy99AThbFxbV-lIeMyn0Zx5Cz0"


def test_a_token_says_which_wake() -> None:
    """The generation comes out again, until the second that the token names."""
    assert wake_token(b"key", "sub-1", 7, expires_at_s=1_700_000_000) == TOKEN
    for header in (f"Bearer {TOKEN}", f"bearer  {TOKEN}"):
        assert read_wake_token(header, b"key", "sub-1", now_s=1_700_000_000) == 7
    with pytest.raises(TokenExpired) as caught:
        read_wake_token(f"Bearer {TOKEN}", b"key", "sub-1", now_s=1_700_000_001)
    assert (caught.value.code, caught.value.status) == ("TOKEN_EXPIRED", 401)
    assert TOKEN_TTL_S == 24 * 60 * 60


@pytest.mark.parametrize(
    ("header", "key", "subscription_id"),
    [
        (None, b"key", "sub-1"),
        ("", b"key", "sub-1"),
        ("Bearer", b"key", "sub-1"),
        ("Bearer ", b"key", "sub-1"),
        (TOKEN, b"key", "sub-1"),
        (f"Basic {TOKEN}", b"key", "sub-1"),
        (f"Bearer {TOKEN}", b"another key", "sub-1"),
        (f"Bearer {TOKEN}", b"key", "sub-2"),
        (f"Bearer {TOKEN}=", b"key", "sub-1"),
        (f"Bearer {TOKEN[:-1]}", b"key", "sub-1"),
        (f"Bearer x{TOKEN}", b"key", "sub-1"),
        ("Bearer .", b"key", "sub-1"),
        ("Bearer t\u00f6ken.m\u00e4c", b"key", "sub-1"),
    ],
)
def test_what_is_not_a_token(header: str | None, key: bytes, subscription_id: str) -> None:
    """No token, a changed one, another server's, another subscription's."""
    with pytest.raises(TokenInvalid) as caught:
        read_wake_token(header, key, subscription_id, now_s=1_600_000_000)
    assert (caught.value.code, caught.value.status) == ("TOKEN_INVALID", 401)


def test_a_token_has_a_length() -> None:
    """`TOKEN_BYTES_MAX`: longer ones are not looked at, even if they were signed right."""
    ids = ["x" * count for count in range(1_400, 1_500)]
    tokens = {len(token): (token, id) for id in ids for token in [wake_token(b"key", id, 1, expires_at_s=9)]}
    longest = max(length for length in tokens if length <= TOKEN_BYTES_MAX)
    token, id = tokens[longest]
    assert longest > TOKEN_BYTES_MAX - 3
    assert read_wake_token(f"Bearer {token}", b"key", id, now_s=9) == 1
    token, id = tokens[min(length for length in tokens if length > TOKEN_BYTES_MAX)]
    with pytest.raises(TokenInvalid):
        read_wake_token(f"Bearer {token}", b"key", id, now_s=9)


def test_the_longest_id_has_a_token() -> None:
    """However its characters are escaped."""
    id = '"' * 256
    assert len(wake_token(b"key", id, 2**53, expires_at_s=2**40)) < TOKEN_BYTES_MAX
