"""Connects to untrusted host names, to public addresses only. Resolves a name once and connects to a checked address."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Collection
from typing import Final

import aiohappyeyeballs
import structlog

log = structlog.get_logger(__name__)

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]

# Not public, though some versions of `ipaddress` say so. Source: IANA's special-purpose address registries.
_SPECIAL: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "168.63.129.16/32",  # Azure: the VM's host
        "192.0.0.0/24",  # protocol assignments; Oracle Cloud's metadata is 192.0.0.192
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # protocol assignments, such as Teredo
        "2001:db8::/32",
        "2002::/16",  # 6to4: embeds an IPv4 address
        "3fff::/20",  # documentation
        "64:ff9b::/96",  # NAT64: embeds an IPv4 address
        "64:ff9b:1::/48",
        "::ffff:0:0/96",  # mapped IPv4
    )
)
_UNICAST: Final = ipaddress.IPv6Network("2000::/3")


class AddressRefused(Exception):
    """`reason`: `bad_port`, `unknown_host` or `not_public`.

    Show one message for the last two: the difference reveals private host names.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def public(address: str) -> bool:
    """Whether it is one public host of the internet."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if any(ip.version == network.version and ip in network for network in _SPECIAL):
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in _UNICAST or ip.scope_id):
        return False
    return ip.is_global and not (ip.is_multicast or ip.is_reserved or ip.is_unspecified)


async def look_up(host: str, port: int) -> list[AddressInfo]:
    """All addresses of a host. Raises: AddressRefused."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, ValueError, TypeError) as error:  # unknown, not encodable, or with a NUL
        raise AddressRefused("unknown_host") from error
    if not found:
        raise AddressRefused("unknown_host")
    return found  # type: ignore[return-value]  # typeshed also has addresses without a host, which TCP does not use


async def look_up_public(host: str, port: int) -> list[AddressInfo]:
    """All addresses of a host; each must be public. Raises: AddressRefused."""
    found = await look_up(host, port)
    if not all(public(str(info[4][0])) for info in found):
        raise AddressRefused("not_public")
    return found


async def connect(
    host: str, port: int, *, ports: Collection[int], private_hosts: Collection[str] = frozenset()
) -> socket.socket:
    """Connect to a public host on one of `ports`, or to one of `private_hosts`. Raises: AddressRefused, OSError."""
    name = f"[{host}]" if ":" in host else host
    name = name.lower().removesuffix(".")
    at_this_port = not {f"{name}:{port}", f"{name}:*"}.isdisjoint(private_hosts)
    may_be_private = at_this_port or name in private_hosts
    try:
        if port not in ports and not at_this_port:
            raise AddressRefused("bad_port")
        found = await (look_up(host, port) if may_be_private else look_up_public(host, port))
    except AddressRefused as error:
        log.warning("address_refused", host=host, port=port, reason=error.reason)
        raise
    return await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=0.25, interleave=1)
