"""Invitations: an email with a link, by which a person becomes a user. A link works once, for seven days."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from tortoise.exceptions import IntegrityError

from integrations.operator_mail import Mail
from models.errors import AlreadyUsed, Forbidden, Invalid, LinkInvalid, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import Account, Invitation, User
from models.vault import digest
from services.accounts import accounts, login, users
from services.core import actors, audit_log, idempotency, validation
from services.core.permissions import ROLES, Actor, invites
from services.core.unit_of_work import Change, change
from services.team import limits, mailing
from services.thread import notifications

LIFE: Final = timedelta(days=7)
TOKEN_LIMIT: Final = 200  # characters; a token has 43
PAGE: Final = "join"
MAIL: Final = "invitation"
_NOT_OPEN: Final = "This invitation was accepted or revoked."


@dataclass(frozen=True, slots=True)
class Invited:
    row: Invitation
    link: str | None  # where no email brings it


async def invite(
    actor: Actor, *, email: str, name: str | None, role: str, idempotency_key: str | None = None
) -> Invited:
    """A repeat returns no link.

    Raises: Forbidden, Blank, Invalid, TooLong, AlreadyUsed (a user or an open invitation has the address), RateLimited.
    """
    actor.require("invite")

    async def run(save: idempotency.Save) -> Invited:
        return await _invite(actor, email, name, role, save)

    async def rebuild(ids: dict[str, Any]) -> Invited:
        return Invited(await Invitation.get(id=UUID(ids["invitation"]), account_id=actor.account_id), None)

    given = {"email": email, "name": name, "role": role}
    return await idempotency.once(actor, "inviteUser", idempotency_key, given, run, rebuild)


async def _invite(actor: Actor, email: str, name: str | None, role: str, save: idempotency.Save) -> Invited:
    address, title = await _checked(actor, email, name, role)
    await limits.admit_invitation(actor.account_id)
    token = secrets.token_urlsafe(32)
    try:
        async with change(actor.account_id, actor=actor.ref) as changed:
            await _require_unchanged(actor)
            lapsed = Invitation.filter(
                account_id=actor.account_id,
                email=address,
                accepted_at=None,
                revoked_at=None,
                expires_at__lte=changed.now,
            )
            await lapsed.update(revoked_at=changed.now)
            row = await Invitation.create(
                id=uuid7(),
                account_id=actor.account_id,
                email=address,
                name=title,
                role=role,
                token_hash=digest(token),
                invited_by_id=actor.user_id,
                expires_at=changed.now + LIFE,
            )
            await _record(changed, actor, row, "invitation.created", {"role": role})
            await save({"invitation": str(row.id)})
            return await _handed_over(row, token)
    except IntegrityError as error:
        known = await Invitation.get_or_none(
            account_id=actor.account_id, email=address, accepted_at=None, revoked_at=None
        )
        current = public_id("inv", known.id) if known is not None else None
        text = "This address has an open invitation: resend or revoke it."
        raise AlreadyUsed(text, current=current, field="email") from error


async def _checked(actor: Actor, email: str, name: str | None, role: str) -> tuple[str, str | None]:
    refusals = Refusals()
    address, title = "", None
    with refusals:
        address = accounts.required_email(email)
        if (user := await User.get_or_none(email=address)) is not None:
            own = public_id("usr", user.id) if user.account_id == actor.account_id else None
            raise AlreadyUsed("This email address can't be used.", current=own, field="email")
    with refusals:
        title = validation.optional(name, limit=accounts.NAME_LIMIT, field="name")
    with refusals:
        if role not in ROLES:
            raise Invalid("This is not a role.", field="role")
        _require_role(actor, role)
    refusals.raise_any()
    return address, title


async def resend(actor: Actor, invitation_id: UUID) -> Invited:
    """With a new token: the former link ends. Raises: Forbidden, NotFound, Invalid, RateLimited."""
    actor.require("invite")
    if not await Invitation.exists(id=invitation_id, account_id=actor.account_id):
        raise NotFound(field="id")
    await limits.admit_invitation(actor.account_id)
    token = secrets.token_urlsafe(32)
    async with change(actor.account_id, actor=actor.ref, queue_on=[invitation_id]) as changed:
        await _require_unchanged(actor)
        row = await _open(actor, invitation_id)
        row.expires_at, row.token_hash = changed.now + LIFE, digest(token)
        row.emailed_at, row.email_error = None, None
        await row.save(update_fields=["expires_at", "token_hash", "emailed_at", "email_error"])
        await _record(changed, actor, row, "invitation.resent")
        return await _handed_over(row, token)


async def revoke(actor: Actor, invitation_id: UUID) -> Invitation:
    """Idempotent. Raises: Forbidden, NotFound, Invalid (it was accepted)."""
    async with change(actor.account_id, actor=actor.ref, queue_on=[invitation_id]) as changed:
        row = await _lock(actor, invitation_id)
        if row.accepted_at is not None:
            raise Invalid("This invitation was accepted: disable the user.", field="id")
        if row.revoked_at is None:
            row.revoked_at = changed.now
            await row.save(update_fields=["revoked_at"])
            await _record(changed, actor, row, "invitation.revoked")
        return row


async def accept(token: str, *, name: str | None, password: str, client_address: str | None) -> User:
    """Create the user. Raises: LinkInvalid, Blank, Invalid, TooLong, AlreadyUsed, RateLimited."""
    await limits.admit_token(client_address)
    refusals = Refusals()
    row: Invitation | None = None
    title: str | None = None
    with refusals:
        row = await _of_token(token)
    with refusals:
        title = validation.optional(name, limit=accounts.NAME_LIMIT, field="name")
        if title is None and row is not None:
            title = validation.required(row.name, limit=accounts.NAME_LIMIT, field="name")
    with refusals:
        accounts.require_password(password)
    refusals.raise_any()
    if row is None:
        raise AssertionError("an unknown token was refused")
    hashed = await login.hash_password(password)
    try:
        user_id = uuid7()
        async with change(row.account_id, actor=actors.user(user_id), queue_on=[row.id]) as changed:
            return await _accepted(changed, row, user_id, title or "", hashed)
    except IntegrityError as error:
        raise AlreadyUsed("This email address has a user already; ask for an invitation to another one.") from error


async def _accepted(changed: Change, row: Invitation, user_id: UUID, name: str, password_hash: str) -> User:
    # Compare and set: of two concurrent uses one counts, and none of a link that was replaced meanwhile.
    first = await Invitation.filter(
        id=row.id, token_hash=row.token_hash, accepted_at=None, revoked_at=None, expires_at__gt=changed.now
    ).update(accepted_at=changed.now)
    if not first:
        raise LinkInvalid(field="token")
    user = await User.create(
        id=user_id,
        account_id=row.account_id,
        email=row.email,
        name=name,
        role=row.role,
        password_hash=password_hash,
    )
    await Invitation.filter(id=row.id).update(user_id=user.id)
    actor = Actor(account_id=row.account_id, role=row.role, user_id=user.id, name=name, kind="user", credential="")
    await audit_log.record(actor, "invitation.accepted", public_id("inv", row.id))
    await users.record(changed, actor, user, "user.created", {"role": row.role})
    owners = await User.filter(account_id=row.account_id, role="OWNER", disabled_at=None).exclude(id=user.id)
    await notifications.notify_users(
        changed,
        [owner.id for owner in owners],
        notifications.TeamKind.JOINED,
        title=f"{name} has joined",
        body=f"{row.email} accepted the invitation as {row.role}.",
        cause_key=f"joined:{row.id}",
    )
    return user


async def _of_token(token: str) -> Invitation:
    row = await Invitation.get_or_none(token_hash=digest(token)) if len(token) <= TOKEN_LIMIT else None
    if row is None or not is_open(row, datetime.now(UTC)):
        raise LinkInvalid(field="token")
    return row


def is_open(row: Invitation, now: datetime) -> bool:
    return row.accepted_at is None and row.revoked_at is None and row.expires_at > now


async def _lock(actor: Actor, invitation_id: UUID) -> Invitation:
    actor.require("invite")
    found = Invitation.filter(id=invitation_id, account_id=actor.account_id)
    row = await found.select_for_update(no_key=True).first()
    if row is None:
        raise NotFound(field="id")
    _require_role(actor, row.role)
    return row


async def _open(actor: Actor, invitation_id: UUID) -> Invitation:
    row = await _lock(actor, invitation_id)
    if row.accepted_at is not None or row.revoked_at is not None:
        raise Invalid(_NOT_OPEN, field="id")
    return row


def _require_role(actor: Actor, role: str) -> None:
    if not actor.may(invites(role)):
        raise Forbidden("Only an owner can invite owners and admins.", field="role")


async def _require_unchanged(actor: Actor) -> None:
    # The lock: losing the role revokes the invitations that are committed before it.
    if actor.user_id is None:
        return
    same = User.filter(id=actor.user_id, role=actor.role, disabled_at=None)
    if await same.select_for_update(no_key=True).first() is None:
        raise Forbidden


async def _record(
    changed: Change, actor: Actor, row: Invitation, action: str, detail: dict[str, str] | None = None
) -> None:
    changed.event(users.UPDATED, data={"invitation_id": str(row.id)})
    await audit_log.record(actor, action, public_id("inv", row.id), detail)


async def _handed_over(row: Invitation, token: str) -> Invited:
    await mailing.enqueue(MAIL, {"invitation_id": str(row.id)}, account_id=row.account_id, token=token)
    return Invited(row, None if mailing.available() else mailing.page_url(PAGE, token))


# ------------------------------------------------------------------------------------------------------------- email
async def _wanted(payload: dict[str, Any], token: str) -> Invitation | None:
    row = await Invitation.get_or_none(id=UUID(payload["invitation_id"]), token_hash=digest(token))
    return row if row is not None and is_open(row, datetime.now(UTC)) else None


async def _compose(payload: dict[str, Any], token: str) -> Mail | None:
    row = await _wanted(payload, token)
    if row is None:
        return None
    account = await Account.get(id=row.account_id)
    inviter = await User.get_or_none(id=row.invited_by_id) if row.invited_by_id is not None else None
    who = f"{inviter.name} ({inviter.email}) invites you" if inviter is not None else "You are invited"
    return Mail(
        recipient=row.email,
        subject=f"Invitation to {account.name}",
        text=(
            f"Hello{f' {row.name}' if row.name else ''},\n\n"
            f"{who} to work in the inbox of {account.name}.\n\n"
            f"Choose your password here; the link works once, until {row.expires_at:%d %B %Y, %H:%M} UTC:\n\n"
            f"{mailing.page_url(PAGE, token)}\n\n"
            "If you did not expect this email, ignore it: nothing happens without the link.\n"
        ),
    )


async def _sent(payload: dict[str, Any], token: str) -> None:
    await _note(payload, token, {"emailed_at": datetime.now(UTC), "email_error": None})


async def _failed(payload: dict[str, Any], token: str) -> None:
    await _note(payload, token, {"email_error": "The email could not be sent: check the address, then send it again."})


async def _note(payload: dict[str, Any], token: str, values: dict[str, object]) -> None:
    row = await _wanted(payload, token)
    if row is None:
        return
    async with change(row.account_id) as changed:
        await Invitation.filter(id=row.id, token_hash=row.token_hash).update(**values)
        changed.event(users.UPDATED, data={"invitation_id": str(row.id)})


mailing.kinds[MAIL] = mailing.Kind(compose=_compose, sent=_sent, failed=_failed)
