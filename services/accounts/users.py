"""An account's users; one active OWNER stays.

Locks: the user's row, then invitations, then the account's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from tortoise.exceptions import IntegrityError

from models.errors import AlreadyUsed, Invalid, LastOwner, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import Account, Invitation, User, UserToken
from services.accounts import accounts, credential_cache, sessions
from services.core import audit_log, jobs, validation
from services.core.permissions import ROLES, Actor, allows, invites
from services.core.unit_of_work import Change, change

UPDATED: Final = "user.updated"  # the event
FREE_ASSIGNMENTS: Final = "team.free_assignments"  # the job, of services/team/assignments.py


async def add(actor: Actor, *, email: str, name: str, role: str, password: str) -> User:
    actor.require("keys")
    values = await accounts.user_values(email=email, name=name, role=role, password=password)
    try:
        async with change(actor.account_id, actor=actor.ref) as changed:
            user = await User.create(id=uuid7(), account_id=actor.account_id, **values)
            await record(changed, actor, user, "user.created", {"role": role})
    except IntegrityError as error:
        raise AlreadyUsed("This email address can't be used.", field="email") from error
    return user


async def listed(actor: Actor) -> list[User]:
    """Raises: Forbidden."""
    actor.require("keys")
    return await User.filter(account_id=actor.account_id).order_by("email")


async def find(actor: Actor, email: str) -> User:
    address = validation.optional(email, limit=validation.EMAIL_LIMIT, field="email")
    user = await User.get_or_none(account_id=actor.account_id, email=(address or "").lower())
    if user is None:
        raise NotFound("No user of this account has this address.", field="email")
    return user


async def update(actor: Actor, user_id: UUID, changes: Mapping[str, str | None]) -> User:
    """Change `name` and `role`. Raises: Forbidden, NotFound, Invalid, Blank, TooLong, LastOwner."""
    actor.require("keys")
    values: dict[str, str] = {}
    refusals = Refusals()
    with refusals:
        if "name" in changes:
            values["name"] = validation.required(changes["name"], limit=accounts.NAME_LIMIT, field="name")
    with refusals:
        if "role" in changes and (role := changes["role"]) is not None:
            if role not in ROLES:
                raise Invalid("This is not a role.", field="role")
            values["role"] = role
    async with _changing(actor, user_id, refusals) as (changed, user):
        await _rename(changed, actor, user, values.get("name", user.name))
        await _set_role(changed, actor, user, values.get("role", user.role))
    return await User.get(id=user_id)


async def set_role(actor: Actor, user_id: UUID, role: str) -> User:
    """Raises: Forbidden, NotFound, Invalid, LastOwner."""
    return await update(actor, user_id, {"role": role})


async def disable(actor: Actor, user_id: UUID) -> User:
    """Also signs the user out, and frees the conversations. Raises: Forbidden, NotFound, LastOwner."""
    actor.require("keys")
    async with _changing(actor, user_id) as (changed, user):
        if user.disabled_at is None:
            await _revoke_invitations(user, None)
            await _require_other_owner(user, field="id")
            await User.filter(id=user.id).update(disabled_at=datetime.now(UTC))
            await sessions.revoke_all(user.id)
            await drop_links(user.id)
            await record(changed, actor, user, "user.disabled")
            given = {"user_id": str(user.id)}
            await jobs.enqueue(
                FREE_ASSIGNMENTS, given, account_id=user.account_id, key=f"{FREE_ASSIGNMENTS}:{user.id}", again=True
            )
    return await User.get(id=user_id)


async def enable(actor: Actor, user_id: UUID) -> User:
    """Raises: Forbidden, NotFound."""
    actor.require("keys")
    async with _changing(actor, user_id) as (changed, user):
        if user.disabled_at is not None:
            await User.filter(id=user.id).update(disabled_at=None)
            await record(changed, actor, user, "user.enabled")
    return await User.get(id=user_id)


async def set_password(actor: Actor, user_id: UUID, password: str) -> User:
    """Also signs the user out. Raises: Forbidden, NotFound, Invalid."""
    actor.require("keys")
    hashed = await accounts.hashed_password(password)
    async with _changing(actor, user_id) as (changed, user):
        await User.filter(id=user.id).update(password_hash=hashed)
        await sessions.revoke_all(user.id)
        await drop_links(user.id)
        await record(changed, actor, user, "user.password_changed")
    return await User.get(id=user_id)


async def drop_links(user_id: UUID) -> None:
    """End open links of password resets and new addresses."""
    await UserToken.filter(user_id=user_id).delete()


async def record(changed: Change, actor: Actor, user: User, action: str, detail: dict[str, str] | None = None) -> None:
    """Add the audit entry and the event of a changed user."""
    changed.event(UPDATED, data={"user_id": str(user.id)})
    await audit_log.record(actor, action, public_id("usr", user.id), detail)


@asynccontextmanager
async def _changing(
    actor: Actor, user_id: UUID, refusals: Refusals | None = None
) -> AsyncIterator[tuple[Change, User]]:
    refusals = refusals or Refusals()
    async with change(actor.account_id, actor=actor.ref, queue_on=[user_id]) as changed:
        user = await User.filter(id=user_id, account_id=actor.account_id).select_for_update(no_key=True).first()
        with refusals:
            if user is None:
                raise NotFound(field="id")
        refusals.raise_any()
        if user is None:
            raise AssertionError("a missing user was refused")
        yield changed, user
    credential_cache.forget()


async def _rename(changed: Change, actor: Actor, user: User, name: str) -> None:
    if name != user.name:
        await User.filter(id=user.id).update(name=name)
        await record(changed, actor, user, "user.renamed")


async def _set_role(changed: Change, actor: Actor, user: User, role: str) -> None:
    if role == user.role:
        return
    await _revoke_invitations(user, role)
    if role != "OWNER":
        await _require_other_owner(user, field="role")
    await User.filter(id=user.id).update(role=role)
    await record(changed, actor, user, "user.role_changed", {"from": user.role, "to": role})


async def _revoke_invitations(user: User, role: str | None) -> None:
    # Else a person who lost a role would keep a way back to it.
    open_ones = Invitation.filter(account_id=user.account_id, invited_by_id=user.id, accepted_at=None, revoked_at=None)
    lost = [invited for invited in ROLES if role is None or not allows(role, invites(invited))]
    await open_ones.filter(role__in=lost).update(revoked_at=datetime.now(UTC))


async def _require_other_owner(user: User, *, field: str) -> None:
    if user.role != "OWNER" or user.disabled_at is not None:
        return
    # Of two owners who remove each other, the second sees what the first did.
    await Account.filter(id=user.account_id).select_for_update(no_key=True).get()
    others = User.filter(account_id=user.account_id, role="OWNER", disabled_at=None).exclude(id=user.id)
    if not await others.exists():
        raise LastOwner(field=field)
