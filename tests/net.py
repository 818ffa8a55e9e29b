"""A fake resolver, and connections that fail unless the test allows them."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

import pytest

PUBLIC_IP = "93.184.216.34"
NAMES: Mapping[str, list[str]] = {
    "files.example.test": [PUBLIC_IP],
    "files6.example.test": ["2606:2800:220:1:248:1893:25c8:1946"],
    "inner.example.test": ["10.0.0.5"],
    "half.example.test": [PUBLIC_IP, "192.168.1.1"],
    "metadata.example.test": ["169.254.169.254"],
    "local.example.test": ["127.0.0.1"],
    "mapped.example.test": ["::ffff:10.0.0.5"],
    "linklocal.example.test": ["fe80::1%eth0"],
    "nobody.example.test": [],
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
}


class Net:
    """The names looked up, the connections opened, and where each connection goes."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.connected: list[tuple[str, int]] = []
        self.names = {name: list(addresses) for name, addresses in NAMES.items()}
        self.rewired: dict[tuple[str, int], tuple[str, int]] = {}

    def allow(self, url: str) -> None:
        """Allow connections to this server."""
        host, _, port = url.rpartition("/")[2].partition(":")
        self.rewired[host, int(port)] = (host, int(port))


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    found = Net()
    resolve, connect = socket.getaddrinfo, socket.socket.connect

    def getaddrinfo(host: str, port: int, *_: Any, **__: Any) -> Any:
        found.asked.append(host)
        if host not in found.names:
            # The C library parses numeric addresses; no name leaves this machine.
            return resolve(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        if not found.names[host]:
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        families = [(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip) for ip in found.names[host]]
        return [(family, socket.SOCK_STREAM, 6, "", (ip, port)) for family, ip in families]

    def recorded(self: socket.socket, address: Any) -> None:
        if self.family not in (socket.AF_INET, socket.AF_INET6):
            return connect(self, address)
        found.connected.append((address[0], address[1]))
        target = found.rewired.get((address[0], address[1]))
        if target is None:
            raise ConnectionRefusedError
        return connect(self, target)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(socket.socket, "connect", recorded)
    return found
