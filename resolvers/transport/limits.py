"""Limits of one GraphQL endpoint: document size, bodies, requests, sockets."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits of one client. Times in seconds, sizes in bytes."""

    tokens: int = 1_000
    document_chars: int = 65_536
    # Each error searches for its line from the start of the document.
    document_lines: int = 2_000
    # Of validation. Each one searches for similar names.
    errors: int = 5
    depth: int = 10
    aliases: int = 15
    directives: int = 50
    directives_on_one_field: int = 5
    cost: int = 10_000
    body_bytes: int = 131_072
    body_s: float = 10.0
    operation_s: float = 10.0
    init_s: float = 15.0
    operations_per_socket: int = 100
    sockets: int = 5_000
    sockets_per_token: int = 20
    messages_per_s: float = 20.0
    messages_burst: int = 100
    # Per verified user or key; unverified requests per network.
    requests_per_s: float = 50.0
    requests_burst: int = 100
    # A client with a full buffer that reads nothing for this long is disconnected.
    stalled_s: float = 10.0
