"""Imports HTTP clients with their transports, which they would import with the first client, on the event loop (25 ms)."""

import importlib
import sys
from typing import Final

TRANSPORTS: Final = {"httpx": "httpcore", "httpx2": "httpcore2"}


def load_httpx2() -> None:
    importlib.import_module("httpx2")
    load_transports()


def load_transports() -> None:
    """Of the clients that are loaded."""
    for client, transport in TRANSPORTS.items():
        if client in sys.modules:
            importlib.import_module(transport)
