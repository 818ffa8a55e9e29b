"""What a provider knows of the server that runs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What a provider may know of where it runs."""

    public_url: str  # absolute, no trailing slash
    sandbox_url: str  # where the sandbox processor's own server answers (this process, by default)
    base_addresses: Mapping[str, str] = field(
        default_factory=dict
    )  # vendor name -> address instead of the real one (tests)
    private_hosts: frozenset[str] = frozenset()  # "host", "host:port" or "host:*": see addresses.connect
    timeout_s: float = 15.0
