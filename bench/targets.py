"""What is measured: Paythread, the peers and the floors, and how each is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = Path(__file__).resolve().parent / "peers"
NOWHERE = "http://127.0.0.1:9"  # no vendor is called


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One server. `data`: whose tables it needs, `paythread`, `peer` or none."""

    name: str
    command: Sequence[str]
    data: str = ""
    needs_npm: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


# Its limits would refuse the load of one client. Nothing else differs from how the product starts.
_UNLIMITED = {
    "GRAPHQL_LIMIT": "1000000",
    "LOG_LEVEL": "warning",
    "STRIPE_API_BASE": NOWHERE,
    "DEMO": "false",
    "GRAPHIQL": "false",
}


def _python(file: str) -> Sequence[str]:
    return (sys.executable, str(PEERS / file))


def _node(file: str, *arguments: str) -> Sequence[str]:
    return ("node", str(PEERS / file), *arguments)


PAYTHREAD = Target(name="Paythread", command=(sys.executable, "cli.py", "serve"), data="paythread", env=_UNLIMITED)
STRAWBERRY = Target(name="stock strawberry", command=_python("strawberry_stock.py"), data="peer")
UVICORN = Target(name="floor: uvicorn, constant bytes", command=_python("uvicorn_floor.py"))
UVICORN_SOCKETS = Target(name="floor: uvicorn, send loop", command=_python("uvicorn_floor.py"))
