"""Inputs that manage users."""

from __future__ import annotations

import strawberry

from schema.describe import limited
from schema.inputs.descriptions import OPTIONAL_KEY
from schema.scalars import Role
from services.accounts import accounts, login
from services.core import validation
from services.team import invitations, user_tokens

NEW_PASSWORD = limited(f"The password: at least {accounts.PASSWORD_LEAST} characters.", login.PASSWORD_LIMIT)

_USER = "The user."
_INVITATION = "The invitation."
_FROM_LINK = "What follows # in the link."


@strawberry.input(description="Whom to invite.")
class InviteUserInput:
    idempotency_key: str | None = strawberry.field(default=None, description=OPTIONAL_KEY)
    email: str = strawberry.field(
        description=limited("The address that the person will sign in with.", validation.EMAIL_LIMIT)
    )
    name: str | None = strawberry.field(
        default=None,
        description=limited("The person's name; left out: the person gives it.", accounts.NAME_LIMIT),
    )
    role: Role = strawberry.field(description="The role that the person will have.")


@strawberry.input(description="The invitation to send again.")
class ResendInvitationInput:
    invitation_id: strawberry.ID = strawberry.field(description=_INVITATION)


@strawberry.input(description="The invitation to revoke.")
class RevokeInvitationInput:
    invitation_id: strawberry.ID = strawberry.field(description=_INVITATION)


@strawberry.input(description="What the invited person gives.")
class AcceptInvitationInput:
    token: str = strawberry.field(description=limited(_FROM_LINK, invitations.TOKEN_LIMIT))
    name: str | None = strawberry.field(
        default=None,
        description=limited("The person's name; left out: the one of the invitation.", accounts.NAME_LIMIT),
    )
    password: str = strawberry.field(description=NEW_PASSWORD)


@strawberry.input(description="The viewer's old and new password.")
class ChangePasswordInput:
    current_password: str = strawberry.field(description=limited("The current password.", login.PASSWORD_LIMIT))
    new_password: str = strawberry.field(description=NEW_PASSWORD)


@strawberry.input(description="Whose password is lost.")
class RequestPasswordResetInput:
    email: str = strawberry.field(description=limited("The user's email address.", validation.EMAIL_LIMIT))


@strawberry.input(description="The new password.")
class ResetPasswordInput:
    token: str = strawberry.field(description=limited(_FROM_LINK, user_tokens.TOKEN_LIMIT))
    password: str = strawberry.field(description=NEW_PASSWORD)


@strawberry.input(description="The viewer's new email address.")
class RequestEmailChangeInput:
    email: str = strawberry.field(description=limited("The new address.", validation.EMAIL_LIMIT))
    password: str = strawberry.field(description=limited("The current password.", login.PASSWORD_LIMIT))


@strawberry.input(description="The confirmation of a new email address.")
class ConfirmEmailChangeInput:
    token: str = strawberry.field(description=limited(_FROM_LINK, user_tokens.TOKEN_LIMIT))


@strawberry.input(description="What to change about a user; fields left out stay.")
class UpdateUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The person's name.", accounts.NAME_LIMIT)
    )
    role: Role | None = strawberry.field(default=strawberry.UNSET, description="The new role; null: as before.")


@strawberry.input(description="The user to disable.")
class DisableUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)


@strawberry.input(description="The user to enable.")
class EnableUserInput:
    user_id: strawberry.ID = strawberry.field(description=_USER)


@strawberry.input(description="What to change about the viewer; fields left out stay.")
class UpdateProfileInput:
    name: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("The person's name.", accounts.NAME_LIMIT)
    )
    locale: str | None = strawberry.field(
        default=strawberry.UNSET,
        description=limited("Language and region, e.g. en-US; null: the account's.", accounts.LOCALE_LIMIT),
    )
    time_zone: str | None = strawberry.field(
        default=strawberry.UNSET, description=limited("IANA time zone; null: the account's.", accounts.TIME_ZONE_LIMIT)
    )


@strawberry.input(description="The sign-in to end.")
class RevokeSessionInput:
    session_id: strawberry.ID = strawberry.field(description="The sign-in: Viewer.sessions.")
