"""What users say about themselves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models import locales, time_zones
from models.errors import Forbidden, Invalid, Refusals
from models.tables import User
from services.accounts import accounts, credential_cache, users
from services.core import validation
from services.core.permissions import Actor
from services.core.unit_of_work import change


async def update(actor: Actor, changes: Mapping[str, str | None]) -> User:
    """Change the viewer's `name`, `locale` and `time_zone`. Raises: Forbidden, Blank, Invalid, TooLong."""
    if actor.user_id is None:
        raise Forbidden("Only a person has a profile.")
    values: dict[str, Any] = {}
    refusals = Refusals()
    with refusals:
        if "name" in changes:
            values["name"] = validation.required(changes["name"], limit=accounts.NAME_LIMIT, field="name")
    with refusals:
        if "locale" in changes:
            values["locale"] = _locale(changes["locale"])
    with refusals:
        if "time_zone" in changes:
            values["time_zone"] = _time_zone(changes["time_zone"])
    refusals.raise_any()
    async with change(actor.account_id, actor=actor.ref, queue_on=[actor.user_id]) as changed:
        user = await User.filter(id=actor.user_id).select_for_update(no_key=True).get()
        fresh = {name: value for name, value in values.items() if getattr(user, name) != value}
        if fresh:
            await User.filter(id=user.id).update(**fresh)
            await users.record(changed, actor, user, "user.profile_updated", {"fields": ", ".join(sorted(fresh))})
    credential_cache.forget()
    return await User.get(id=actor.user_id)


def _locale(value: str | None) -> str | None:
    code = validation.optional(value, limit=accounts.LOCALE_LIMIT, field="locale")
    if code is not None and locales.find(code) is None:
        raise Invalid("This is not a locale, such as en-US.", field="locale")
    return code


def _time_zone(value: str | None) -> str | None:
    name = validation.optional(value, limit=accounts.TIME_ZONE_LIMIT, field="timeZone")
    if name is not None and not time_zones.is_known(name):
        raise Invalid("This is not a time zone, such as Europe/Berlin.", field="timeZone")
    return name
