"""Posting webhooks: to checked addresses and no others, to hosts that prove their names, within bounds."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import socket
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.running import until

from perdure.stream_hosts import webhook_delivery
from perdure.stream_hosts.webhook_delivery import REPLY_BYTES_MAX, DeliveryFailed, deliver
from perdure.wire.webhooks import WebhookRejected

from .receivers import DONE, Call, Line, hang, receiving, reply

pytestmark = pytest.mark.anyio

BODY = b'{"wake_id": "w_1"}'


async def _deliver(url: str, *, timeout_s: float = 5) -> bool:
    return await deliver(url, BODY, "t=1,kid=k,ed25519=s", timeout_s=timeout_s)


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Have every name lead to these addresses; the names that were asked for."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return list(addresses)

    monkeypatch.setattr(webhook_delivery, "_resolve", resolve)
    return asked


# --- what is sent, and what comes back


async def test_the_call_and_its_reply() -> None:
    """The body as it was signed, to the path and query of the URL; a reply says done or it does not."""
    async with receiving() as receiver:
        assert await _deliver(f"{receiver.url}/a%20b?c=%2F") is True
        call = await receiver.next()
        assert (call.line, call.body) == ("POST /hook/a%20b?c=%2F HTTP/1.1", BODY)
        assert call.headers["host"] == receiver.url.split("/")[2]
        assert call.headers["webhook-signature"] == "t=1,kid=k,ed25519=s"
        assert call.headers["content-type"] == "application/json"
        receiver.answer = reply(202, b'{"done": false}')
        assert await _deliver(receiver.url) is False


async def test_names_of_this_machine() -> None:
    """``localhost`` is tried at each of its addresses."""
    async with receiving() as receiver:
        assert await _deliver(receiver.url.replace("127.0.0.1", "localhost")) is True


async def test_a_name_that_leads_nowhere() -> None:
    """Is a failure like any other."""
    with pytest.raises(DeliveryFailed, match=r"^hooks\.example\.invalid: "):
        await _deliver("https://hooks.example.invalid/")


async def test_nobody_listens() -> None:
    """So it has failed, and the text says where."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        with pytest.raises(DeliveryFailed, match=r"^127\.0\.0\.1: "):
            await _deliver(f"http://127.0.0.1:{port}/")


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would connect to whatever the name means to them."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as receiver:
        assert await _deliver(receiver.url) is True


# --- where to


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.168.1.1",
        "::1",
        "fe80::1%eth0",
        "fd00:ec2::254",
        "::ffff:10.0.0.1",
    ],
)
async def test_a_public_name_may_not_lead_inside(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Whatever else it leads to: no private address is connected to."""
    _resolve_to(monkeypatch, address, "93.184.216.34")
    with pytest.raises(WebhookRejected, match="is not a public address"):
        await _deliver("https://hooks.example.com/")


async def test_a_local_name_may_not_lead_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain HTTP is for this machine."""
    _resolve_to(monkeypatch, "93.184.216.34")
    with pytest.raises(WebhookRejected, match="is not a loopback address"):
        await _deliver("http://localhost:8000/")


async def test_the_address_that_was_checked_is_the_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up once; what it means a moment later does not matter."""
    async with receiving() as receiver:
        asked = _resolve_to(monkeypatch, "127.0.0.1")
        assert await _deliver(receiver.url.replace("127.0.0.1", "localhost")) is True
        assert asked == ["localhost"]
        assert (await receiver.next()).headers["host"].startswith("localhost:")


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """When one takes no connection; not when it has answered, however badly."""
    async with receiving() as receiver:
        _resolve_to(monkeypatch, "::1", "127.0.0.2", "127.0.0.1")
        url = receiver.url.replace("127.0.0.1", "localhost")
        assert await _deliver(url) is True
        _resolve_to(monkeypatch, "127.0.0.1", "127.0.0.1")
        receiver.answer = reply(500)
        receiver.calls.clear()
        with pytest.raises(DeliveryFailed, match="localhost answered 500"):
            await _deliver(url)
        assert len(receiver.calls) == 1
        _resolve_to(monkeypatch, "::1", "93.184.216.34")
        with pytest.raises(WebhookRejected):
            await _deliver(url)


async def test_redirects_lead_nowhere() -> None:
    """Not even to the same host."""
    async with receiving() as receiver:
        receiver.answer = reply(307, b"", f"location: {receiver.url}/other")
        with pytest.raises(DeliveryFailed, match=r"^127\.0\.0\.1 answered 307$"):
            await _deliver(receiver.url)
        assert len(receiver.calls) == 1


# --- how long, and how much


async def test_a_receiver_has_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """No longer, whether it says nothing, or something now and then; and its connection is closed."""

    async def drip(_call: Call, line: Line) -> None:
        line.writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not (line.reader.at_eof() or line.writer.is_closing()):
            line.writer.write(b" ")
            await asyncio.sleep(0.02)

    async with receiving() as receiver:
        for answer in (hang, drip):
            receiver.answer = answer
            with pytest.raises(DeliveryFailed, match=r"TimeoutError|ReadTimeout"):
                await _deliver(receiver.url, timeout_s=0.2)
            await until(lambda: receiver.at_work == 0, timeout_s=1)


@pytest.mark.parametrize(("extra", "done"), [(0, True), (1, False)])
async def test_so_much_of_a_reply_is_read(extra: int, done: bool) -> None:
    """As `REPLY_BYTES_MAX` says; one byte more, and it says nothing."""
    text = b'{"done": true}'
    async with receiving() as receiver:
        receiver.answer = reply(200, text.ljust(REPLY_BYTES_MAX + extra))
        assert await _deliver(receiver.url) is done


async def test_a_packed_reply_is_not_unpacked() -> None:
    """We asked for none, and a small one could be huge."""
    async with receiving() as receiver:
        receiver.answer = reply(200, gzip.compress(b'{"done": true}'), "content-encoding: gzip")
        assert await _deliver(receiver.url) is False
        assert (await receiver.next()).headers["accept-encoding"] == "identity"


async def test_headers_without_end() -> None:
    """Are given up after some."""
    sent = 0

    async def flood(_call: Call, line: Line) -> None:
        nonlocal sent
        line.writer.write(b"HTTP/1.1 200 OK\r\n")
        while not (line.reader.at_eof() or line.writer.is_closing()):
            line.writer.write(b"x: " + b"y" * 1_000 + b"\r\n")
            sent += 1_000
            await line.writer.drain()
            await asyncio.sleep(0)

    async with receiving() as receiver:
        receiver.answer = flood
        with pytest.raises(DeliveryFailed):
            await _deliver(receiver.url, timeout_s=5)
        assert sent < 20_000_000


async def test_garbage_is_a_failure() -> None:
    """What is not HTTP is no answer."""

    async def babble(_call: Call, line: Line) -> None:
        line.writer.write(b"220 mail.example ESMTP\r\n")

    async with receiving() as receiver:
        receiver.answer = babble
        with pytest.raises(DeliveryFailed):
            await _deliver(receiver.url)


# --- TLS


class Authority:
    """Makes certificates."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign("authority", self._key, authority=True)

    def _sign(self, name: str, key: ec.EllipticCurvePrivateKey, *, authority: bool) -> x509.Certificate:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        now = datetime.datetime.now(datetime.UTC)
        usage = x509.KeyUsage(
            digital_signature=True,
            content_commitment=False,
            key_encipherment=False,
            data_encipherment=False,
            key_agreement=False,
            key_cert_sign=authority,
            crl_sign=authority,
            encipher_only=False,
            decipher_only=False,
        )
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
            .add_extension(usage, critical=True)
        )
        return builder.sign(self._key, hashes.SHA256())

    def server(self, name: str, asked: list[str | None]) -> ssl.SSLContext:
        """A server's side; ``asked`` gets the names that clients ask for."""
        key = ec.generate_private_key(ec.SECP256R1())
        file = self._folder / f"{name}.pem"
        file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + self._sign(name, key, authority=False).public_bytes(serialization.Encoding.PEM)
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        context.sni_callback = lambda _socket, name, _context: asked.append(name)
        return context

    def client(self) -> ssl.SSLContext:
        """A client's side that trusts this authority alone."""
        return ssl.create_default_context(cadata=self.certificate.public_bytes(serialization.Encoding.PEM).decode())


async def test_a_host_has_to_prove_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name in the URL, though the connection is to an address; not any certificate will do."""
    authority, asked = Authority(tmp_path), list[str | None]()
    _resolve_to(monkeypatch, "127.0.0.1")
    monkeypatch.setattr(webhook_delivery, "check_address", lambda address, local: None)
    trusting = authority.client()
    async with receiving(authority.server("hooks.example.com", asked)) as receiver:
        port = receiver.url.rsplit(":", 1)[1]
        monkeypatch.setattr(webhook_delivery, "_tls", lambda: trusting)
        assert await _deliver(f"https://hooks.example.com:{port}") is True
        assert asked == ["hooks.example.com"]
        assert (await receiver.next()).headers["host"] == f"hooks.example.com:{port.split('/')[0]}"
        with pytest.raises(DeliveryFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await _deliver(f"https://other.example.com:{port}")
        monkeypatch.undo()
        _resolve_to(monkeypatch, "127.0.0.1")
        monkeypatch.setattr(webhook_delivery, "check_address", lambda address, local: None)
        with pytest.raises(DeliveryFailed, match="CERTIFICATE_VERIFY_FAILED"):
            await _deliver(f"https://hooks.example.com:{port}")  # its authority is unknown to the world
        assert receiver.calls == []
        assert receiver.answer is DONE
