"""What is kept of the client that signs in: its kind of device, and a shortened address."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from services.core.rate_limits import network_of

# The first mark that occurs counts: Edge names Chrome too, and Chrome names Safari.
_BROWSERS: Final = (
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("SamsungBrowser", "Samsung Internet"),
    ("Firefox", "Firefox"),
    ("FxiOS", "Firefox"),
    ("Chrome", "Chrome"),
    ("CriOS", "Chrome"),
    ("Safari", "Safari"),
)
_SYSTEMS: Final = (
    ("iPhone", "iPhone"),
    ("iPad", "iPad"),
    ("Android", "Android"),
    ("Windows", "Windows"),
    ("CrOS", "ChromeOS"),
    ("Mac OS X", "macOS"),
    ("Linux", "Linux"),
)
_PRODUCT: Final = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,29}")  # of programs, such as curl
_IPV4_BITS, _IPV6_BITS = 24, 48


@dataclass(frozen=True, slots=True)
class Client:
    device: str | None = None
    network: str | None = None

    @classmethod
    def of(cls, address: str | None, user_agent: str | None) -> Client:
        return cls(device_of(user_agent or ""), shortened(address or ""))


def device_of(user_agent: str) -> str | None:
    """Such as "Firefox on Linux"; None if it says nothing."""
    browser = next((name for mark, name in _BROWSERS if mark in user_agent), None)
    system = next((name for mark, name in _SYSTEMS if mark in user_agent), None)
    if browser is None or not user_agent.startswith("Mozilla/"):
        product = _PRODUCT.match(user_agent)
        return product[0] if product is not None and product[0] != "Mozilla" else system
    return f"{browser} on {system}" if system is not None else browser


def shortened(address: str) -> str | None:
    """The network of /24 or /48 around an address; None if it is none."""
    try:
        found = ipaddress.ip_network(network_of(address), strict=False)
    except ValueError:
        return None
    return str(found.supernet(new_prefix=_IPV4_BITS if found.version == 4 else _IPV6_BITS))
