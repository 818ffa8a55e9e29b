"""What is measured: Paythread, the peers and the floors, and how each is started."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    npm: bool = False
    env: Mapping[str, str] = field(default_factory=dict)


# Its limits would refuse the load of one client; the peers log nothing and have no demo pages.
_UNLIMITED = {
    "GRAPHQL_LIMIT": "1000000",
    "LOG_LEVEL": "warning",
    "STRIPE_API_BASE": NOWHERE,
    "DEMO": "false",
    "GRAPHIQL": "false",
}


_NODE = {"NODE_ENV": "production"}
INSTALL_S = 300


def _python(file: str) -> Sequence[str]:
    return (sys.executable, str(PEERS / file))


def _node(file: str, *arguments: str) -> Sequence[str]:
    return ("node", str(PEERS / file), *arguments)


PAYTHREAD = Target(name="Paythread", command=(sys.executable, "cli.py", "serve"), data="paythread", env=_UNLIMITED)
# The product keeps answers by default; without the cache each request is computed.
PAYTHREAD_UNCACHED = replace(PAYTHREAD, env={**_UNLIMITED, "ANSWER_CACHE_MB": "0"})
STRAWBERRY = Target(name="stock strawberry", command=_python("strawberry_stock.py"), data="peer")
UVICORN = Target(name="floor: uvicorn, constant bytes", command=_python("uvicorn_floor.py"))
UVICORN_SOCKETS = Target(name="floor: uvicorn, send loop", command=_python("uvicorn_floor.py"))
YOGA = Target(name="graphql-yoga + graphql-ws", command=_node("yoga.mjs"), data="peer", npm=True, env=_NODE)
YOGA_CACHED = Target(
    name="graphql-yoga, answer cache", command=_node("yoga.mjs", "--cache"), data="peer", npm=True, env=_NODE
)
APOLLO = Target(name="Apollo Server + graphql-ws", command=_node("apollo.mjs"), data="peer", npm=True, env=_NODE)
MERCURIUS = Target(name="mercurius", command=_node("mercurius.mjs"), data="peer", npm=True, env=_NODE)
MERCURIUS_JIT = Target(
    name="mercurius with jit", command=_node("mercurius.mjs", "--jit"), data="peer", npm=True, env=_NODE
)
NODE_SOCKETS = Target(name="floor: node ws, send loop", command=_node("ws_floor.mjs"), npm=True, env=_NODE)


def install_peers() -> str | None:
    """Install the Node peers from their lock, unless a stamp shows that they are; returns why that is not possible."""
    npm = shutil.which("npm")
    if npm is None or shutil.which("node") is None:
        return "no Node 20 with npm"
    stamp = PEERS / "node_modules" / "stamp"
    wanted = hashlib.sha256((PEERS / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return None
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=PEERS, check=True, timeout=INSTALL_S)
    except subprocess.SubprocessError as error:
        return f"npm ci: {error}"
    stamp.write_text(wanted)
    return None
