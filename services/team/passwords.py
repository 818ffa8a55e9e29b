"""Passwords: changed by their owner, or reset by a link in an email that works once, for an hour."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from integrations.operator_mail import Mail
from models import database
from models.errors import Forbidden, LinkInvalid, NotFound, Refusals, SignInFailed
from models.ids import public_id
from models.tables import User
from models.vault import digest
from services.accounts import accounts, credential_cache, login, sessions, users
from services.core import actors, audit_log, jobs
from services.core.permissions import Actor, system_actor
from services.core.unit_of_work import change
from services.team import limits, mailing, user_tokens

LIFE: Final = timedelta(hours=1)
PURPOSE: Final = "PASSWORD_RESET"
PAGE: Final = "reset-password"
REQUESTED: Final = "team.password_reset"
MAIL: Final = "password_reset"


async def change_password(actor: Actor, *, current: str, new: str, client_address: str | None) -> User:
    """Ends the user's other sessions. Raises: Forbidden, SignInFailed, Invalid, RateLimited."""
    refusals = Refusals()
    user: User | None = None
    with refusals:
        user = await own(actor, current, field="currentPassword", client_address=client_address)
    with refusals:
        accounts.require_password(new, field="newPassword")
    refusals.raise_any()
    if user is None:
        raise AssertionError("a wrong password was refused")
    hashed = await login.hash_password(new)
    async with change(actor.account_id, actor=actor.ref, queue_on=[user.id]) as changed:
        same = User.filter(id=user.id, password_hash=user.password_hash, disabled_at=None)
        if await same.select_for_update(no_key=True).first() is None:
            raise SignInFailed("The password has changed meanwhile.", field="currentPassword")
        await User.filter(id=user.id).update(password_hash=hashed)
        await sessions.revoke_others(user.id, UUID(actor.credential))
        await users.drop_links(user.id)
        await users.record(changed, actor, user, "user.password_changed")
    credential_cache.forget()
    return user


async def own(actor: Actor, password: str, *, field: str, client_address: str | None) -> User:
    """The viewer, who gave the password. Raises: Forbidden, SignInFailed, RateLimited."""
    user = await User.get_or_none(id=actor.user_id, disabled_at=None) if actor.user_id is not None else None
    if user is None:
        raise Forbidden("Only a person has a password.")
    if not await login.matches(user, password, client_address=client_address):
        raise SignInFailed("This is not your password.", field=field)
    return user


async def request_reset(email: str, *, client_address: str | None) -> None:
    """Ask for a link. The answer and its time do not depend on whether the address has a user.

    Raises: Blank, Invalid, TooLong, MailNotConfigured, RateLimited.
    """
    address = accounts.required_email(email)
    mailing.require()
    await limits.admit_token(client_address)
    if not await limits.admits_mail_to(address):
        return
    # The job looks the address up.
    await jobs.enqueue(REQUESTED, {"email": address}, account_id=None, key=f"{REQUESTED}:{digest(address)}", again=True)


@jobs.handler(REQUESTED, on_dead="the person asks again")
async def _requested(job: jobs.JobContext) -> None:
    found = await User.get_or_none(email=job.payload["email"], disabled_at=None)
    if found is None:
        return
    async with database.transaction():
        user, token = await user_tokens.renew(found.account_id, found.id, PURPOSE, life=LIFE)
        actor = system_actor(user.account_id)
        await audit_log.record(actor, "user.password_reset_requested", public_id("usr", user.id))
        await mailing.enqueue(MAIL, {"user_id": str(user.id)}, account_id=user.account_id, token=token)


async def reset_link(actor: Actor, user_id: UUID) -> str:
    """A link to hand over; earlier ones end. Raises: Forbidden, NotFound."""
    actor.require("keys")
    async with database.transaction():
        try:
            user, token = await user_tokens.renew(actor.account_id, user_id, PURPOSE, life=LIFE)
        except LinkInvalid as error:
            raise NotFound("No active user of this account has this id.", field="id") from error
        await audit_log.record(actor, "user.password_reset_requested", public_id("usr", user.id))
    return mailing.page_url(PAGE, token)


async def reset(token: str, password: str, *, client_address: str | None) -> None:
    """Ends all sessions of the user. Raises: LinkInvalid, Invalid, RateLimited."""
    await limits.admit_token(client_address)
    refusals = Refusals()
    with refusals:
        row = await user_tokens.find(token, PURPOSE)
    with refusals:
        accounts.require_password(password)
    refusals.raise_any()
    hashed = await login.hash_password(password)
    async with change(row.account_id, actor=actors.user(row.user_id), queue_on=[row.user_id]) as changed:
        user = await user_tokens.use(row)
        await User.filter(id=user.id).update(password_hash=hashed)
        await sessions.revoke_all(user.id)
        await users.drop_links(user.id)
        await users.record(changed, user_tokens.actor_of(user), user, "user.password_reset")
    credential_cache.forget()


# ------------------------------------------------------------------------------------------------------------- email
async def _compose(payload: dict[str, Any], token: str) -> Mail | None:
    row = await user_tokens.current(token, PURPOSE)
    if row is None:
        return None
    user = await User.get(id=row.user_id)
    return Mail(
        recipient=user.email,
        subject="Choose a new password",
        text=(
            f"Hello {user.name},\n\n"
            f"Choose a new password here; the link works once, until {row.expires_at:%d %B %Y, %H:%M} UTC:\n\n"
            f"{mailing.page_url(PAGE, token)}\n\n"
            "If you did not ask for it, ignore this email: your password stays.\n"
        ),
    )


mailing.kinds[MAIL] = mailing.Kind(compose=_compose)
