"""A user's new sign-in address: it counts once its mailbox has confirmed."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from tortoise.exceptions import IntegrityError

from integrations.operator_mail import Mail
from models.errors import AlreadyUsed, Invalid, Refusals, SignInFailed
from models.ids import public_id
from models.tables import Account, User
from services.accounts import accounts, users
from services.core import actors, audit_log
from services.core.permissions import Actor
from services.core.unit_of_work import change
from services.team import limits, mailing, passwords, user_tokens

LIFE: Final = timedelta(hours=1)
PURPOSE: Final = "EMAIL_CHANGE"
PAGE: Final = "confirm-email"
MAIL: Final = "email_change"
NOTICE: Final = "email_changed"  # to the former address, which is the job's secret


async def request(actor: Actor, *, email: str, password: str, client_address: str | None) -> None:
    """Send a link to the new address; whether it has a user already shows only there.

    Raises: Forbidden, Blank, Invalid, TooLong, SignInFailed, MailNotConfigured, RateLimited.
    """
    refusals = Refusals()
    address, user = "", None
    with refusals:
        address = accounts.required_email(email)
    with refusals:
        user = await passwords.own(actor, password, field="password", client_address=client_address)
        if user.email == address:
            raise Invalid("This is your address already.", field="email")
    refusals.raise_any()
    if user is None:
        raise AssertionError("a wrong password was refused")
    mailing.require()
    await limits.admit_mail_to(address)
    async with change(actor.account_id, actor=actor.ref, queue_on=[user.id]):
        given = user.password_hash
        user, token = await user_tokens.renew(actor.account_id, user.id, PURPOSE, life=LIFE, email=address)
        if user.password_hash != given:  # a change of the password ends only links that are committed before it
            raise SignInFailed("The password has changed meanwhile.", field="password")
        await audit_log.record(actor, "user.email_change_requested", public_id("usr", user.id))
        await mailing.enqueue(MAIL, {"user_id": str(user.id)}, account_id=user.account_id, token=token)


async def confirm(token: str, *, client_address: str | None) -> None:
    """Raises: LinkInvalid, AlreadyUsed, RateLimited."""
    await limits.admit_token(client_address)
    row = await user_tokens.find(token, PURPOSE)
    try:
        async with change(row.account_id, actor=actors.user(row.user_id), queue_on=[row.user_id]) as changed:
            user = await user_tokens.use(row)
            await User.filter(id=user.id).update(email=row.email)
            await users.drop_links(user.id)  # of password resets: they went to the former address
            await users.record(changed, user_tokens.actor_of(user), user, "user.email_changed")
            await mailing.enqueue(NOTICE, {"user_id": str(user.id)}, account_id=user.account_id, token=user.email)
    except IntegrityError as error:
        raise AlreadyUsed("This email address can't be used.", field="token") from error


# ------------------------------------------------------------------------------------------------------------- email
async def _compose(payload: dict[str, Any], token: str) -> Mail | None:
    row = await user_tokens.current(token, PURPOSE)
    if row is None or row.email is None:
        return None
    user = await User.get(id=row.user_id)
    return Mail(
        recipient=row.email,
        subject="Confirm your new email address",
        text=(
            f"Hello {user.name},\n\n"
            "You want to sign in with this address from now on. Confirm it here; the link works once, until"
            f" {row.expires_at:%d %B %Y, %H:%M} UTC:\n\n"
            f"{mailing.page_url(PAGE, token)}\n\n"
            "If you did not ask for it, ignore this email: nothing changes.\n"
        ),
    )


async def _compose_notice(payload: dict[str, Any], former: str) -> Mail | None:
    user = await User.get(id=payload["user_id"])
    account = await Account.get(id=user.account_id)
    return Mail(
        recipient=former,
        subject="Your email address has changed",
        text=(
            f"Hello {user.name},\n\n"
            f"You sign in to the inbox of {account.name} with another email address from now on.\n\n"
            "If that was not you, tell an owner of the account now.\n"
        ),
    )


mailing.kinds[MAIL] = mailing.Kind(compose=_compose)
mailing.kinds[NOTICE] = mailing.Kind(compose=_compose_notice)
