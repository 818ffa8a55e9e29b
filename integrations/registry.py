"""Finds the providers by their file names in channels/ and processors/. Makes no instance and keeps no credentials."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from integrations.base import Channel, IntegrationError, Processor

_ROOM = Path(__file__).parent


class UnknownProvider(KeyError):
    """No file of this name in the room. Install the provider's file, or correct the name."""

    def __init__(self, room: str, name: str) -> None:
        super().__init__(name)
        self.room = room
        self.name = name

    def __str__(self) -> str:
        return f"no provider {self.name!r} in integrations/{self.room}"


@cache
def _found(room: str) -> frozenset[str]:
    """The file names of a room. Read once: a provider is added by a release, not at run time."""
    modules = pkgutil.iter_modules([str(_ROOM / room)])
    return frozenset(m.name for m in modules if not m.ispkg and not m.name.startswith("_"))


@cache
def _load(room: str, name: str) -> Any:
    return importlib.import_module(f"integrations.{room}.{name}").provider


def _provider(room: str, name: str) -> Any:
    # Membership first: a name from a URL never reaches the import system (nor the cache) unless its file was found.
    if name not in _found(room):
        raise UnknownProvider(room, name)
    return _load(room, name)


def processor_names() -> list[str]:
    """Every processor's name, sorted."""
    return sorted(_found("processors"))


def channel_names() -> list[str]:
    """Every channel provider's name, sorted."""
    return sorted(_found("channels"))


def processor_class(name: str) -> type[Processor]:
    """The processor of this name; any text may be asked for. Raises: UnknownProvider."""
    provider: type[Processor] = _provider("processors", name)
    return provider


def channel_class(name: str) -> type[Channel]:
    """The channel provider of this name; any text may be asked for. Raises: UnknownProvider."""
    provider: type[Channel] = _provider("channels", name)
    return provider


def read_credentials(provider: type[Processor] | type[Channel], values: Mapping[str, str]) -> Any:
    """The provider's credentials from a stored mapping of field name to text.

    Raises: IntegrationError (`credentials_incomplete`, `credentials_unknown`); it names fields, never values.
    """
    fields = dataclasses.fields(provider.credentials)
    known = {field.name for field in fields}
    if unknown := sorted(set(values) - known):
        raise IntegrationError(provider.name, "credentials_unknown", f"not fields of this provider: {unknown}")
    needed = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if missing := sorted(name for name in needed if not values.get(name)):
        raise IntegrationError(provider.name, "credentials_incomplete", f"fields without a value: {missing}")
    return provider.credentials(**values)
