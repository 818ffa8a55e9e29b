"""Accounts and their settings."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

from tortoise.exceptions import IntegrityError

from integrations.phones import normalise_phone
from models import database, locales, time_zones
from models.errors import AlreadyUsed, Blank, CurrencyNotSupported, Invalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.money import CURRENCIES
from models.tables import Account, User
from services.accounts.login import PASSWORD_LIMIT, hash_password
from services.core import audit_log, validation
from services.core.permissions import ROLES, Actor, system_actor
from services.core.unit_of_work import change

DEFAULT_LINK_MESSAGE: Final = "{business}: {amount} for {product}. Pay here: {link}"
LINK_MESSAGE_MARKS: Final = frozenset({"business", "amount", "product", "number", "link"})
LINK_MESSAGE_LIMIT: Final = 1000
NAME_LIMIT: Final = 120
LOCALE_LIMIT: Final = 20
TIME_ZONE_LIMIT: Final = 64
PREFIX_LIMIT: Final = 10
PASSWORD_LEAST: Final = 10  # characters
_MARK = re.compile(r"\{(\w*)\}")
_PREFIX = re.compile(r"[A-Za-z0-9._/-]*")


async def create_account(
    *,
    name: str,
    currency: str,
    email: str,
    password: str,
    user_name: str,
    locale: str = "en-US",
    time_zone: str = "UTC",
) -> tuple[Account, User]:
    """Create an account and its owner. Raises: Blank, TooLong, Invalid, CurrencyNotSupported, AlreadyUsed."""
    values: dict[str, Any] = {
        "name": validation.required(name, limit=NAME_LIMIT, field="name"),
        "default_currency": _currency(currency, "currency"),
        "locale": _locale(locale, "locale"),
        "time_zone": _time_zone(time_zone, "timeZone"),
    }
    owner = await user_values(email=email, name=user_name, role="OWNER", password=password)
    try:
        async with database.transaction():
            account = await Account.create(
                id=uuid7(), link_message_template=DEFAULT_LINK_MESSAGE, event_epoch=secrets.token_hex(6), **values
            )
            user = await User.create(id=uuid7(), account_id=account.id, **owner)
            await audit_log.record(system_actor(account.id), "account.created", public_id("acc", account.id))
    except IntegrityError as error:
        raise AlreadyUsed("This email address can't be used.", field="email") from error
    return account, user


async def update_account(actor: Actor, *, changes: Mapping[str, object]) -> Account:
    """Change settings of _SETTINGS. Raises: Forbidden, Blank, TooLong, Invalid, CurrencyNotSupported."""
    actor.require("settings")
    unknown = set(changes) - set(_SETTINGS)
    if unknown:
        raise ValueError(f"not settings of an account: {sorted(unknown)}")
    account = await Account.get_or_none(id=actor.account_id)
    if account is None:
        raise NotFound
    values: dict[str, object] = {}
    region = region_of(account.locale)
    refusals = Refusals()
    for name, value in changes.items():
        if value is not None and not isinstance(value, str):
            raise TypeError(name)
        field, read = _SETTINGS[name]
        with refusals:
            values[name] = read(value, field, region)
    refusals.raise_any()
    changed = {name: value for name, value in values.items() if getattr(account, name) != value}
    if changed:
        async with change(actor.account_id, actor=actor.ref) as entries:
            # Only what changed: the row also holds counters, which others raise at the same time.
            await Account.filter(id=account.id).update(**changed)
            entries.event("account.updated", data={"fields": sorted(changed)})
            await audit_log.record(actor, "account.updated", public_id("acc", account.id), {"fields": sorted(changed)})
    return await Account.get(id=account.id)


async def user_values(*, email: str, name: str, role: str, password: str) -> dict[str, Any]:
    """Raises: Blank, TooLong, Invalid."""
    address = required_email(email)
    title = validation.required(name, limit=NAME_LIMIT, field="name")
    if role not in ROLES:
        raise Invalid("This is not a role.", field="role")
    return {"email": address, "name": title, "role": role, "password_hash": await hashed_password(password)}


def required_email(email: str, *, field: str = "email") -> str:
    """Lower case. Raises: Blank, Invalid, TooLong."""
    address = validation.email(email, field=field)
    if address is None:
        raise Blank(field=field)
    return address


def require_password(password: str, *, field: str = "password") -> None:
    """Raises: Invalid (length)."""
    if not PASSWORD_LEAST <= len(password) <= PASSWORD_LIMIT:
        raise Invalid(f"Use {PASSWORD_LEAST} to {PASSWORD_LIMIT} characters.", field=field)


async def hashed_password(password: str) -> str:
    """Raises: Invalid (length)."""
    require_password(password)
    return await hash_password(password)


def _name(value: str | None, field: str, region: str | None = None) -> str:
    return validation.required(value, limit=NAME_LIMIT, field=field)


def _currency(value: str | None, field: str, region: str | None = None) -> str:
    code = validation.required(value, limit=3, field=field).upper()
    if code not in CURRENCIES:
        raise CurrencyNotSupported("This is not an ISO 4217 currency.", field=field)
    return code


def _locale(value: str | None, field: str, region: str | None = None) -> str:
    code = validation.required(value, limit=LOCALE_LIMIT, field=field)
    if locales.find(code) is None:
        raise Invalid("This is not a locale, such as en-US.", field=field)
    return code


def _time_zone(value: str | None, field: str, region: str | None = None) -> str:
    name = validation.required(value, limit=TIME_ZONE_LIMIT, field=field)
    if not time_zones.is_known(name):
        raise Invalid("This is not a time zone, such as Europe/Berlin.", field=field)
    return name


def _email(value: str | None, field: str, region: str | None = None) -> str | None:
    return validation.email(value, field=field)


def _phone(value: str | None, field: str, region: str | None = None) -> str | None:
    typed = validation.optional(value, limit=validation.PHONE_LIMIT, field=field)
    if typed is None:
        return None
    number = normalise_phone(typed, region)
    if number is None:
        raise Invalid("This is not a phone number.", field=field)
    return number


def _template(value: str | None, field: str, region: str | None = None) -> str:
    template = validation.required(value, limit=LINK_MESSAGE_LIMIT, field=field, lines=True)
    marks = _MARK.findall(template)
    if marks.count("link") != 1:
        raise Invalid("The text needs {link} exactly once.", field=field)
    if unknown := set(marks) - LINK_MESSAGE_MARKS:
        known = ", ".join(f"{{{mark}}}" for mark in sorted(LINK_MESSAGE_MARKS))
        raise Invalid(f"{{{min(unknown)}}} is not known; use {known}.", field=field)
    return template


def _prefix(value: str | None, field: str, region: str | None = None) -> str:
    prefix = validation.optional(value, limit=PREFIX_LIMIT, field=field) or ""
    if not _PREFIX.fullmatch(prefix):
        raise Invalid("Use letters, digits, and . _ / - only.", field=field)
    return prefix


def region_of(locale: str) -> str | None:
    return locales.territory_of(locale)


_SETTINGS: dict[str, tuple[str, Callable[[str | None, str, str | None], str | None]]] = {
    "name": ("name", _name),
    "default_currency": ("defaultCurrency", _currency),
    "locale": ("locale", _locale),
    "time_zone": ("timeZone", _time_zone),
    "contact_email": ("contactEmail", _email),
    "contact_phone": ("contactPhone", _phone),
    "link_message_template": ("linkMessageTemplate", _template),
    "number_prefix": ("numberPrefix", _prefix),
}
