"""Finds providers by file name in channels/ and processors/, and by installed packages' entry points."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import pkgutil
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import structlog

from integrations import http_clients
from integrations.base import Capabilities, Channel, ChannelKind, Feature, IntegrationError, Processor

log = structlog.get_logger(__name__)

_ROOM: Final = Path(__file__).parent
GROUPS: Final[Mapping[str, str]] = {"processors": "paythread.processors", "channels": "paythread.channels"}
# Used in addresses and database rows.
NAME: Final = re.compile(r"[a-z][a-z0-9_]{1,39}")
# Used in the checkout page's Content-Security-Policy.
ORIGIN: Final = re.compile(r"https://[a-z0-9-]+(\.[a-z0-9-]+)+(:\d{1,5})?")


_imported: set[tuple[str, str]] = set()  # by `load`


class UnknownProvider(KeyError):
    """No file and no usable package has this name."""

    def __init__(self, room: str, name: str) -> None:
        super().__init__(name)
        self.room = room
        self.name = name

    def __str__(self) -> str:
        return f"no provider {self.name!r} in {self.room}"


@cache
def _files(room: str) -> frozenset[str]:
    modules = pkgutil.iter_modules([str(_ROOM / room)])
    return frozenset(m.name for m in modules if not m.ispkg and not m.name.startswith("_"))


@cache
def _packaged(room: str) -> Mapping[str, EntryPoint]:
    offered: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUPS[room]):
        offered.setdefault(point.name, []).append(point)
    found = {}
    for name, points in offered.items():
        if not NAME.fullmatch(name):
            _refuse(
                room,
                points[0],
                "a name is 2 to 40 lower-case letters, digits and underscores, and starts with a letter",
            )
        elif name in _files(room):
            _refuse(room, points[0], "Paythread already has a provider of this name")
        elif len(points) > 1:
            _refuse(room, points[0], "several packages offer this name: uninstall all but one")
        else:
            found[name] = points[0]
    return found


def _refuse(room: str, point: EntryPoint, reason: str) -> None:
    where = f"{point.dist.name if point.dist else '?'}: {point.value}"
    log.error("provider_refused", kind=GROUPS[room], provider=point.name[:80], where=where, reason=reason)


@cache
def _of_file(room: str, name: str) -> Any:
    return importlib.import_module(f"integrations.{room}.{name}").provider


@cache
def _of_package(room: str, name: str) -> Any | None:
    point = _packaged(room)[name]
    try:
        made = point.load()
    except (Exception, SystemExit) as error:  # noqa: BLE001 (a third party's module may raise anything; others must go on)
        _refuse(room, point, f"its import fails: {type(error).__name__}: {error}"[:400])
        return None
    if (reason := why_not(room, name, made)) is not None:
        _refuse(room, point, reason)
        return None
    return made


def why_not(room: str, name: str, made: object) -> str | None:
    """Why a class cannot be the provider `name` of a room; None if it can."""
    base: type[Any] = Processor if room == "processors" else Channel
    if not (isinstance(made, type) and issubclass(made, base)):
        return f"it is not a class derived from integrations.base.{base.__name__}"
    cls: Any = made
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        return f"it does not implement {', '.join(missing)}"
    if getattr(cls, "name", None) != name:
        return f"its `name` is {getattr(cls, 'name', None)!r}, its entry point is called {name!r}"
    if not isinstance(getattr(cls, "display_name", None), str) or not cls.display_name.strip():
        return "its `display_name` is not a non-empty string"
    reason = _why_not_credentials(getattr(cls, "credentials", None))
    if reason is not None:
        return reason
    keywords = {"environment", "webhook_url" if room == "processors" else "kind"}
    if not _accepts(cls, keywords):
        return f"it cannot be called as {cls.__name__}(credentials, {', '.join(f'{k}=…' for k in sorted(keywords))})"
    if room == "channels":
        kinds = getattr(cls, "kinds", None)
        if not isinstance(kinds, tuple) or not kinds or not all(isinstance(kind, ChannelKind) for kind in kinds):
            return "its `kinds` is not a non-empty tuple of ChannelKind"
        if not isinstance(cls.features, frozenset) or not all(isinstance(one, Feature) for one in cls.features):
            return "its `features` is not a frozenset of Feature"
    elif not isinstance(cls.capabilities, Capabilities):
        return "its `capabilities` is not a Capabilities"
    elif not isinstance(cls.checkout_origins, tuple) or not all(
        isinstance(origin, str) and ORIGIN.fullmatch(origin) for origin in cls.checkout_origins
    ):
        return "its `checkout_origins` is not a tuple of origins such as https://pay.example.com"
    return None


def _why_not_credentials(credentials: object) -> str | None:
    if not isinstance(credentials, type) or not dataclasses.is_dataclass(credentials):
        return "its `credentials` is not a dataclass"
    parameters: Any = vars(credentials)["__dataclass_params__"]
    if not parameters.frozen:
        return "its `credentials` is not frozen"
    # With `from __future__ import annotations`, a field's type is a string.
    odd = sorted(field.name for field in dataclasses.fields(credentials) if field.type not in (str, "str"))
    if odd:
        return f"fields of its `credentials` are not strings: {', '.join(odd)}"
    return None


def _accepts(cls: type[Any], keywords: set[str]) -> bool:
    try:
        inspect.signature(cls).bind(object(), **dict.fromkeys(keywords))
    except (TypeError, ValueError):
        return False
    return True


def _provider(room: str, name: str) -> Any:
    # Check membership first: a name from a URL must not reach the import system or a cache unless it is known.
    if name in _files(room):
        return _of_file(room, name)
    made = _of_package(room, name) if name in _packaged(room) else None
    if made is None:
        raise UnknownProvider(room, name)
    return made


def _names(room: str) -> list[str]:
    # Imports every package: not for the event loop.
    usable = {name for name in _packaged(room) if _of_package(room, name) is not None}
    return sorted(_files(room) | usable)


def built_in(room: str) -> list[str]:
    """The names of Paythread's own providers in a room."""
    return sorted(_files(room))


def processor_names() -> list[str]:
    return _names("processors")


def channel_names() -> list[str]:
    return _names("channels")


def processor_class(name: str) -> type[Processor]:
    """Safe for any name. Raises: UnknownProvider."""
    provider: type[Processor] = _provider("processors", name)
    return provider


def channel_class(name: str) -> type[Channel]:
    """Safe for any name. Raises: UnknownProvider."""
    provider: type[Channel] = _provider("channels", name)
    return provider


async def load(room: str, name: str) -> Any | None:
    """The class, imported on another thread, since importing an SDK is slow; None for an unknown name."""
    if name not in _files(room) and name not in _packaged(room):
        return None
    if (room, name) not in _imported:
        await asyncio.to_thread(_import, room, name)
        _imported.add((room, name))
    try:
        return _provider(room, name)
    except UnknownProvider:
        return None


def _import(room: str, name: str) -> None:
    with suppress(UnknownProvider):
        _provider(room, name)
    http_clients.load_transports()


def read_credentials(provider: type[Processor] | type[Channel], values: Mapping[str, str]) -> Any:
    """Raises: IntegrationError (`credentials_incomplete`, `credentials_unknown`), which names fields, never values."""
    fields = dataclasses.fields(provider.credentials)
    known = {field.name for field in fields}
    if unknown := sorted(set(values) - known):
        raise IntegrationError(provider.name, "credentials_unknown", f"not fields of this provider: {unknown}")
    needed = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    if missing := sorted(name for name in needed if not values.get(name)):
        raise IntegrationError(provider.name, "credentials_incomplete", f"fields without a value: {missing}")
    return provider.credentials(**values)
