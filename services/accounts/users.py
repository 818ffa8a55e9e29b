"""An account's users; one active OWNER stays."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from tortoise.exceptions import IntegrityError

from models import database
from models.errors import AlreadyUsed, Invalid, NotFound
from models.ids import public_id, uuid7
from models.tables import Account, User
from services.accounts import accounts, credential_cache, sessions
from services.core import audit_log, validation
from services.core.permissions import ROLES, Actor

LAST_OWNER = "This is the account's last active OWNER; make another user OWNER first."


async def add(actor: Actor, *, email: str, name: str, role: str, password: str) -> User:
    actor.require("keys")
    values = await accounts.user_values(email=email, name=name, role=role, password=password)
    try:
        async with database.transaction():
            user = await User.create(id=uuid7(), account_id=actor.account_id, **values)
            await audit_log.record(actor, "user.created", public_id("usr", user.id), {"role": role})
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


async def set_role(actor: Actor, user_id: UUID, role: str) -> User:
    """Raises: Forbidden, NotFound, Invalid."""
    actor.require("keys")
    if role not in ROLES:
        raise Invalid("This is not a role.", field="role")
    async with database.transaction():
        user = await _user_under_account_lock(actor, user_id)
        if user.role == role:
            return user
        if role != "OWNER":
            await _require_other_owner(user)
        await User.filter(id=user.id).update(role=role)
        detail = {"from": user.role, "to": role}
        await audit_log.record(actor, "user.role_changed", public_id("usr", user.id), detail)
    credential_cache.forget()
    return await User.get(id=user_id)


async def disable(actor: Actor, user_id: UUID) -> User:
    """Also signs the user out. Raises: Forbidden, NotFound, Invalid."""
    actor.require("keys")
    async with database.transaction():
        user = await _user_under_account_lock(actor, user_id)
        if user.disabled_at is None:
            await _require_other_owner(user)
            await User.filter(id=user.id).update(disabled_at=datetime.now(UTC))
            await sessions.revoke_all(user.id)
            await audit_log.record(actor, "user.disabled", public_id("usr", user.id))
    credential_cache.forget()
    return await User.get(id=user_id)


async def enable(actor: Actor, user_id: UUID) -> User:
    """Raises: Forbidden, NotFound."""
    actor.require("keys")
    async with database.transaction():
        user = await _user_under_account_lock(actor, user_id)
        if user.disabled_at is not None:
            await User.filter(id=user.id).update(disabled_at=None)
            await audit_log.record(actor, "user.enabled", public_id("usr", user.id))
    credential_cache.forget()
    return await User.get(id=user_id)


async def set_password(actor: Actor, user_id: UUID, password: str) -> User:
    """Also signs the user out. Raises: Forbidden, NotFound, Invalid."""
    actor.require("keys")
    hashed = await accounts.hashed_password(password)
    async with database.transaction():
        user = await _user_under_account_lock(actor, user_id)
        await User.filter(id=user.id).update(password_hash=hashed)
        await sessions.revoke_all(user.id)
        await audit_log.record(actor, "user.password_changed", public_id("usr", user.id))
    credential_cache.forget()
    return await User.get(id=user_id)


async def _user_under_account_lock(actor: Actor, user_id: UUID) -> User:
    await Account.filter(id=actor.account_id).select_for_update(no_key=True).get()
    user = await User.get_or_none(id=user_id, account_id=actor.account_id)
    if user is None:
        raise NotFound(field="id")
    return user


async def _require_other_owner(user: User) -> None:
    if user.role != "OWNER" or user.disabled_at is not None:
        return
    others = User.filter(account_id=user.account_id, role="OWNER", disabled_at=None).exclude(id=user.id)
    if not await others.exists():
        raise Invalid(LAST_OWNER, field="role")
