"""Connections to hosts named by accounts: only public or allowed addresses, and only those that were checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from integrations import addresses
from integrations.addresses import AddressRefused
from integrations.base import ChannelKind, Environment, IntegrationError
from integrations.channels.smtp_email import ALLOWED_PORTS, Credentials, SmtpEmail
from tests.contracts.smtp_server import PASSWORD, USERNAME, MailServer, certificate
from tests.net import PUBLIC_IP, Net

PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "127.1",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "017700000001",
    "0177.0.0.1",
    "0",
    "0.0.0.0",  # noqa: S104
    "00000000",
    "localhost",
    "localhost.",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:7f00:1",
    "0:0:0:0:0:ffff:a9fe:a9fe",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b::808:808",
    "64:ff9b:1::a00:1",
    "2002:7f00:1::",
    "2002:5db8:d822::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
    "fe80::1",
    "fec0::1",
    "fd00::1",
    "fd00:ec2::254",
    "ff02::1",
    "2001:db8::1",
    "3fff::1",
    "5f00::1",
    "100::1",
    "10.0.0.1",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.0.1",
    "169.254.169.254",
    "100.64.0.1",
    "100.127.255.255",
    "100.100.100.200",
    "192.0.0.1",
    "192.0.0.192",
    "168.63.129.16",
    "192.0.2.1",
    "198.18.0.1",
    "198.51.100.1",
    "203.0.113.1",
    "192.88.99.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "inner.example.test",
    "half.example.test",
    "metadata.example.test",
    "local.example.test",
    "mapped.example.test",
    "linklocal.example.test",
]
# Unknown, malformed, or read as this machine by some C libraries.
UNKNOWN = [
    "127.0.0.1.",
    "nobody.example.test",
    "",
    ".",
    "[::1]",
    "127.0.0.1:25",
    "user@127.0.0.1",
    "a\0b",
    "a" * 64 + ".test",
    "\ud800.test",
    "-",
]


async def refused(host: str, port: int = 25, private_hosts: frozenset[str] = frozenset()) -> str:
    with pytest.raises(AddressRefused) as caught:
        await addresses.connect(host, port, ports=ALLOWED_PORTS, private_hosts=private_hosts)
    return caught.value.reason


async def test_no_spelling_of_a_private_address_is_connected_to(net: Net) -> None:
    assert {host: await refused(host) for host in PRIVATE} == dict.fromkeys(PRIVATE, "not_public")
    reasons = {host: await refused(host) for host in UNKNOWN}
    assert set(reasons.values()) <= {"unknown_host", "not_public"}, reasons
    assert net.connected == []


@pytest.mark.parametrize("port", [0, 1, 22, 80, 443, 2424, 3306, 5432, 6379, 8025, 65535])
async def test_ports_of_other_services_are_refused_before_the_name_is_resolved(net: Net, port: int) -> None:
    assert await refused("files.example.test", port) == "bad_port"
    assert (net.asked, net.connected) == ([], [])


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", PUBLIC_IP, "2606:4700::1111", "2a00:1450:4001::8a"])
def test_public_addresses_are_public(address: str) -> None:
    assert addresses.public(address)


@pytest.mark.parametrize(
    ("allowed", "host", "port", "reason"),
    [
        ("inner.example.test", "Inner.Example.Test.", 25, None),
        ("inner.example.test", "inner.example.test", 1025, "bad_port"),
        ("inner.example.test:1025", "inner.example.test", 1025, None),
        ("inner.example.test:1025", "inner.example.test", 25, "not_public"),
        ("inner.example.test:*", "inner.example.test", 6379, None),
        ("[::1]:25", "::1", 25, None),
        ("127.0.0.1", "127.0.0.1", 587, None),
        ("127.0.0.1", "2130706433", 587, "not_public"),
        ("127.0.0.1", "local.example.test", 587, "not_public"),
        ("10.0.0.5", "inner.example.test", 587, "not_public"),
        ("example.test", "inner.example.test", 587, "not_public"),
        ("example.test", "evil-example.test", 587, "unknown_host"),
    ],
)
async def test_only_private_hosts_that_are_named_so_are_connected_to(
    net: Net, allowed: str, host: str, port: int, reason: str | None
) -> None:
    net.names |= {"Inner.Example.Test.": ["10.0.0.5"], "evil-example.test": []}
    if reason is not None:
        assert await refused(host, port, frozenset({allowed})) == reason
        assert net.connected == []
        return
    with pytest.raises(ConnectionRefusedError):
        await addresses.connect(host, port, ports=ALLOWED_PORTS, private_hosts=frozenset({allowed}))
    assert [where[1] for where in net.connected] == [port]


async def test_a_host_is_tried_at_each_of_its_addresses(net: Net) -> None:
    net.names["files.example.test"] = ["93.184.216.35", PUBLIC_IP]
    async with MailServer() as server:
        net.rewired[PUBLIC_IP, 25] = ("127.0.0.1", server.port)
        (await addresses.connect("files.example.test", 25, ports=ALLOWED_PORTS)).close()
    assert net.connected == [("93.184.216.35", 25), (PUBLIC_IP, 25)]


# -------------------------------------------------------------------------------------------------------- by SMTP
def mail_channel(host: str, port: int | str = 587, **changes: str) -> SmtpEmail:
    values = {"host": host, "port": str(port), "from_address": "pay@acme.test", **changes}
    environment = Environment(public_url="https://pay.example.test", sandbox_url="http://127.0.0.1:1", timeout_s=5)
    return SmtpEmail(Credentials(**values), kind=ChannelKind.EMAIL, environment=environment)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_the_checked_address_is_connected_to_and_tls_verifies_the_name(
    net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: str
) -> None:
    tls, authority = certificate(tmp_path, host="files.example.test")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority))
    seen: list[str] = []
    tls.sni_callback = lambda _socket, name, _context: seen.append(str(name))
    net.names |= {"files.example.test.": [PUBLIC_IP], "other.example.test": [PUBLIC_IP]}
    async with MailServer(tls=tls, implicit_tls=security == "tls", auth=True) as server:
        net.rewired[PUBLIC_IP, 587] = ("127.0.0.1", server.port)
        login = {"security": security, "username": USERNAME, "password": PASSWORD}
        for host in ("files.example.test", "files.example.test."):
            assert await mail_channel(host, **login).check() is None
        assert net.asked == ["files.example.test", "files.example.test."]
        with pytest.raises(IntegrationError) as caught:
            await mail_channel("other.example.test", **login).check()
        assert caught.value.reason == "tls_failed"
    assert seen == ["files.example.test", "files.example.test", "other.example.test"]
    assert set(net.connected) == {(PUBLIC_IP, 587)}


async def test_a_private_mail_server_and_an_unknown_one_get_the_same_refusal(net: Net) -> None:
    said = set()
    for host in ("inner.example.test", "nobody.example.test", "127.0.0.1", "2130706433", "::1"):
        for security in ("none", "tls"):
            with pytest.raises(IntegrationError) as caught:
                await mail_channel(host, 25, security=security).check()
            said.add((caught.value.reason, caught.value.message, caught.value.retryable, caught.value.code))
    assert said == {("host_refused", "No mail server with a public address has this name.", True, None)}
    assert net.connected == []
    with pytest.raises(IntegrationError, match="A mail server's port must be one of 25, 465, 587, 2525"):
        await mail_channel("files.example.test", 6379).check()
