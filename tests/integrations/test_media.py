"""Downloads from untrusted URLs: only public hosts, and only addresses that were checked."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from integrations import media
from integrations.base import IntegrationError
from integrations.kit.vendor import Answer, Call, FakeVendor
from tests.net import PUBLIC_IP, Net


async def fetch(url: str, **more: Any) -> bytes:
    given: dict[str, Any] = {"headers": lambda _: {}, "limit_bytes": 1000, "timeout_s": 5, **more}
    return await media.fetch(url, **given)


async def refusal(url: str, **more: Any) -> tuple[str, bool]:
    with pytest.raises(IntegrationError) as refused:
        await fetch(url, **more)
    assert refused.value.provider == "media"
    assert "example" not in str(refused.value)  # errors must not show the address
    return refused.value.reason, refused.value.retryable


TRICKS = {
    "this machine": "https://127.0.0.1/",
    "this machine, another of its addresses": "https://127.8.8.8/",
    "its name": "https://localhost/",
    "its name with a dot": "https://localhost./",
    "short": "https://127.1/",
    "one number": "https://2130706433/",
    "hexadecimal": "https://0x7f000001/",
    "octal": "https://017700000001/",
    "octal in parts": "https://0177.0.0.1/",
    "zero": "https://0/",
    "any": "https://0.0.0.0/",
    "circled digits": "https://①②⑦.⓪.⓪.①/",
    "full-width": "https://127。0。0。1/",
    "IPv6 loopback": "https://[::1]/",
    "IPv6 any": "https://[::]/",
    "mapped IPv4": "https://[::ffff:127.0.0.1]/",
    "mapped IPv4 in hexadecimal": "https://[::ffff:a9fe:a9fe]/",
    "compatible IPv4": "https://[::127.0.0.1]/",
    "NAT64": "https://[64:ff9b::7f00:1]/",
    "local NAT64": "https://[64:ff9b:1::a00:1]/",
    "6to4": "https://[2002:7f00:1::]/",
    "6to4 of a public host": "https://[2002:5db8:d822::1]/",
    "Teredo": "https://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "IPv6 link": "https://[fe80::1]/",
    "IPv6 site": "https://[fec0::1]/",
    "IPv6 private": "https://[fd00::1]/",
    "IPv6 multicast": "https://[ff02::1]/",
    "IPv6 documentation": "https://[2001:db8::1]/",
    "class A network": "https://10.0.0.1/",
    "class B network": "https://172.16.0.1/",
    "class C network": "https://192.168.0.1/",
    "metadata": "https://169.254.169.254/latest/meta-data/",
    "carrier": "https://100.64.0.1/",
    "benchmark": "https://198.18.0.1/",
    "6to4 relay": "https://192.88.99.1/",
    "multicast": "https://224.0.0.1/",
    "broadcast": "https://255.255.255.255/",
    "reserved": "https://240.0.0.1/",
    "name of an inner host": "https://inner.example.test/",
    "name of this machine": "https://local.example.test/",
    "name of the metadata": "https://metadata.example.test/",
    "name of a mapped address": "https://mapped.example.test/",
    "name of a link": "https://linklocal.example.test/",
    "name with one private address of two": "https://half.example.test/",
    "name of nobody": "https://nobody.example.test/",
    "plain http": "http://files.example.test/",
    "another port": "https://files.example.test:22/",
    "credentials": "https://files.example.test@127.0.0.1/",
    "credentials of a public host": "https://a:b@files.example.test/",
    "backslash": "https://files.example.test\\@127.0.0.1/",
    "file": "file:///etc/passwd",
    "ftp": "ftp://files.example.test/",
    "gopher": "gopher://127.0.0.1:6379/_FLUSHALL",
    "data": "data:text/plain,hello",
    "no scheme": "//127.0.0.1/",
    "no host": "https:///etc/passwd",
    "no address": "hello",
    "line break": "https://files.example.test/\r\nX-Evil: 1",
    "empty": "",
}


@pytest.mark.parametrize("name", TRICKS)
async def test_no_trick_makes_a_connection(net: Net, name: str) -> None:
    await refusal(TRICKS[name])
    assert net.connected == []


def test_the_readme_counts_the_tricks() -> None:
    assert len(TRICKS) >= 20
    assert f"{len(TRICKS)} tricks" in (Path(__file__).resolve().parents[2] / "README.md").read_text()


class Redirecting(FakeVendor):
    def __init__(self, answer: Callable[[Call], Answer]) -> None:
        super().__init__()
        self._answer = answer

    async def handle(self, call: Call) -> Answer:
        return self._answer(call)


@pytest.fixture
async def trap() -> AsyncIterator[FakeVendor]:
    """A local server that must never be reached."""
    async with Redirecting(lambda _: Answer(200, b"secret")) as server:
        yield server


@pytest.mark.parametrize("name", TRICKS)
async def test_no_redirect_to_a_trick_is_followed(net: Net, name: str) -> None:
    target = TRICKS[name].replace("\r\n", "")
    if not target or not target.isascii() or target in ("hello",):
        target = "https://local.example.test/"  # not valid in a Location header
    if name in ("line break", "no scheme"):
        target = "https://inner.example.test/"  # relative to the vendor's own address
    async with Redirecting(lambda _: Answer(302, headers={"location": target})) as vendor:
        net.allow(vendor.url)
        await refusal(f"{vendor.url}/file", trusted=frozenset({media.origin(vendor.url)}))
        assert net.connected == [("127.0.0.1", int(vendor.url.rpartition(":")[2]))]
        assert len(vendor.calls) == 1


async def test_a_trusted_origin_is_one_port_of_this_machine(net: Net, trap: FakeVendor) -> None:
    net.allow(trap.url)
    trusted = frozenset({"http://127.0.0.1:1"})
    assert await refusal(f"{trap.url}/file", trusted=trusted) == ("not_https", False)
    async with Redirecting(lambda _: Answer(307, headers={"location": f"{trap.url}/file"})) as vendor:
        net.allow(vendor.url)
        assert await refusal(vendor.url, trusted=frozenset({media.origin(vendor.url)})) == ("not_https", False)
    assert (await refusal("http://files.example.test:80/", trusted=frozenset({"http://files.example.test:80"})))[
        0
    ] == "not_public"
    assert trap.calls == []


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_checked(net: Net) -> None:
    addresses = net.names["files.example.test"]

    class Rebinding(list[str]):
        def __iter__(self) -> Any:
            found = list(addresses) if len(net.asked) == 1 else ["127.0.0.1"]
            return iter(found)

    net.names["files.example.test"] = Rebinding(addresses)
    assert await refusal("https://files.example.test/") == ("connection", True)
    assert net.asked == ["files.example.test"]
    assert net.connected == [(PUBLIC_IP, 443)]
    assert await refusal("https://files6.example.test/") == ("connection", True)
    assert net.connected[1:] == [("2606:2800:220:1:248:1893:25c8:1946", 443)]


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's TLS context for this name, and a client's that trusts it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "files")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / "both.pem"
    pem.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return server, ssl.create_default_context(cafile=str(pem))


@pytest.mark.parametrize(("name", "fits"), [("files.example.test", True), ("other.example.test", False)])
async def test_tls_is_for_the_name_though_the_connection_is_to_the_address(
    net: Net, tmp_path: Path, name: str, fits: bool
) -> None:
    server, client = certificate(tmp_path, name)
    seen: list[str] = []
    server.sni_callback = lambda _socket, sni, _context: seen.append(str(sni))
    heads: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0, ssl=server) as listening:
        net.rewired[PUBLIC_IP, 443] = listening.sockets[0].getsockname()
        if fits:
            assert await fetch("https://files.example.test/a?b=c", context=client) == b"hello"
            assert heads[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
            assert b"host: files.example.test\r\n" in heads[0].lower()
        else:
            assert await refusal("https://files.example.test/", context=client) == ("connection", True)
            assert heads == []
    assert seen == ["files.example.test"]


# ------------------------------------------------------------------------------------------------------ what comes back
async def vendor_says(net: Net, answer: Answer, **more: Any) -> bytes:
    async with Redirecting(lambda _: answer) as vendor:
        net.allow(vendor.url)
        return await fetch(f"{vendor.url}/file", trusted=frozenset({media.origin(vendor.url)}), **more)


async def test_a_file_at_the_limit_is_taken_and_one_byte_more_is_not(net: Net) -> None:
    assert await vendor_says(net, Answer(200, b"x" * 1000)) == b"x" * 1000
    for headers in ({}, {"content-length": "1001"}):
        with pytest.raises(IntegrationError) as refused:
            await vendor_says(net, Answer(200, b"x" * 1001, headers=headers))
        assert (refused.value.reason, refused.value.retryable) == ("too_large", False)


@pytest.mark.parametrize(
    ("status", "reason", "retryable"),
    [
        (500, "refused", True),
        (503, "refused", True),
        (429, "refused", True),
        (404, "refused", True),
        (401, "refused", False),
        (403, "refused", False),
        (410, "refused", False),
        (206, "refused", False),
        (304, "refused", False),
        (302, "too_many_redirects", False),
    ],
)
async def test_an_answer_that_is_no_file_says_whether_it_may_become_one(
    net: Net, status: int, reason: str, retryable: bool
) -> None:
    with pytest.raises(IntegrationError) as refused:
        await vendor_says(net, Answer(status, b""))
    assert (refused.value.reason, refused.value.retryable) == (reason, retryable)


async def test_what_is_packed_is_not_unpacked(net: Net) -> None:
    with pytest.raises(IntegrationError, match="encoded"):
        await vendor_says(net, Answer(200, b"\x1f\x8b", headers={"content-encoding": "gzip"}))


async def test_a_vendor_that_never_answers_is_left(net: Net) -> None:
    async with Redirecting(lambda _: Answer(200, b"")) as vendor:
        net.allow(vendor.url)
        vendor.fail_next("hang")
        trusted = frozenset({media.origin(vendor.url)})
        assert await refusal(vendor.url, trusted=trusted, timeout_s=0.2) == ("timeout", True)


async def test_three_redirects_are_followed_and_a_fourth_is_not(net: Net) -> None:
    def steps(call: Call) -> Answer:
        n = int(call.query["n"])
        return Answer(302, headers={"location": f"/file?n={n - 1}"}) if n else Answer(200, b"here")

    async with Redirecting(steps) as vendor:
        net.allow(vendor.url)
        trusted = frozenset({media.origin(vendor.url)})
        assert await fetch(f"{vendor.url}/file?n=3", trusted=trusted) == b"here"
        assert await refusal(f"{vendor.url}/file?n=4", trusted=trusted) == ("too_many_redirects", False)


async def test_the_vendors_credentials_never_go_elsewhere(net: Net) -> None:
    asked: list[str] = []

    def credentials(url: str) -> dict[str, str]:
        asked.append(url)
        return {"authorization": "Basic c2VjcmV0"}

    async with (
        Redirecting(lambda call: Answer(302, headers={"location": call.query["to"]})) as storage,
        Redirecting(
            lambda call: (
                Answer(307, headers={"location": f"{storage.url}/?to={vendor.url}/end"})
                if call.path == "/start"
                else Answer(200, b"here")
            )
        ) as vendor,
    ):
        for one in (vendor, storage):
            net.allow(one.url)
        trusted = frozenset(media.origin(one.url) for one in (vendor, storage))
        assert await fetch(f"{vendor.url}/start", headers=credentials, trusted=trusted) == b"here"
        assert [call.headers.get("authorization") for call in vendor.calls] == ["Basic c2VjcmV0", None]
        assert [call.headers.get("authorization") for call in storage.calls] == [None]
        assert asked == [f"{vendor.url}/start"]
