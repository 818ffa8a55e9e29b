"""What a provider knows about its server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    public_url: str  # absolute, no trailing slash
    sandbox_url: str  # the sandbox processor's address (by default in this process)
    base_addresses: Mapping[str, str] = field(default_factory=dict)  # provider name -> address of a stand-in (tests)
    private_hosts: frozenset[str] = frozenset()  # "host", "host:port" or "host:*": see addresses.connect
    timeout_s: float = 15.0
