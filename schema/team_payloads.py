"""Payloads of the team's mutations."""

from __future__ import annotations

import strawberry

from schema.account import User
from schema.payload_codes import answer_of
from schema.payloads import MutationPayload, SessionPayload
from schema.scalars import URL
from schema.team import Invitation

_REFUSED = "Null: refused, see userErrors."


_LINK = (
    "The link to hand to the person yourself, in this answer only. Null: refused, the installation sends it by email, or a"
    " repeat with the same idempotencyKey (resendInvitation gives a new link)."
)


@strawberry.type(description=answer_of("inviteUser"))
class InviteUserPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)
    link: URL | None = strawberry.field(default=None, description=_LINK)


@strawberry.type(description=answer_of("resendInvitation"))
class ResendInvitationPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)
    link: URL | None = strawberry.field(default=None, description=_LINK)


@strawberry.type(description=answer_of("revokeInvitation"))
class RevokeInvitationPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)


@strawberry.type(description=answer_of("acceptInvitation"))
class AcceptInvitationPayload(SessionPayload):
    pass


@strawberry.type(description=answer_of("updateUser"))
class UpdateUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description=answer_of("disableUser"))
class DisableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description=answer_of("enableUser"))
class EnableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description=answer_of("changePassword"))
class ChangePasswordPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The viewer. " + _REFUSED)


@strawberry.type(description=answer_of("requestPasswordReset"))
class RequestPasswordResetPayload(MutationPayload):
    requested: bool = strawberry.field(
        default=False, description="True, whether or not the address has a user; false when refused."
    )


@strawberry.type(description=answer_of("resetPassword"))
class ResetPasswordPayload(MutationPayload):
    password_reset: bool = strawberry.field(
        default=False, description="Whether the new password holds; sign in with it."
    )


@strawberry.type(description=answer_of("requestEmailChange"))
class RequestEmailChangePayload(MutationPayload):
    requested: bool = strawberry.field(default=False, description="Whether a link goes to the new address.")


@strawberry.type(description=answer_of("confirmEmailChange"))
class ConfirmEmailChangePayload(MutationPayload):
    confirmed: bool = strawberry.field(default=False, description="Whether the user has the new address.")


@strawberry.type(description=answer_of("updateProfile"))
class UpdateProfilePayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The viewer. " + _REFUSED)


@strawberry.type(description=answer_of("revokeSession"))
class RevokeSessionPayload(MutationPayload):
    session_id: strawberry.ID | None = strawberry.field(
        default=None, description="The sign-in that has ended: remove it from lists. " + _REFUSED
    )
