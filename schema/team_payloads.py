"""Payloads of the team's mutations."""

from __future__ import annotations

import strawberry

from schema.account import User
from schema.payloads import MutationPayload, SessionPayload
from schema.scalars import URL
from schema.team import Invitation

_REFUSED = "Null: refused, see userErrors."


_LINK = (
    "The link to hand to the person yourself, in this answer only. Null: refused, the installation sends it by email, or a"
    " repeat with the same idempotencyKey (resendInvitation gives a new link)."
)


@strawberry.type(description="Answer of inviteUser.")
class InviteUserPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)
    link: URL | None = strawberry.field(default=None, description=_LINK)


@strawberry.type(description="Answer of resendInvitation.")
class ResendInvitationPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)
    link: URL | None = strawberry.field(default=None, description=_LINK)


@strawberry.type(description="Answer of revokeInvitation.")
class RevokeInvitationPayload(MutationPayload):
    invitation: Invitation | None = strawberry.field(default=None, description="The invitation. " + _REFUSED)


@strawberry.type(description="Answer of acceptInvitation.")
class AcceptInvitationPayload(SessionPayload):
    pass


@strawberry.type(description="Answer of updateUser.")
class UpdateUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description="Answer of disableUser.")
class DisableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)


@strawberry.type(description="Answer of enableUser.")
class EnableUserPayload(MutationPayload):
    user: User | None = strawberry.field(default=None, description="The user. " + _REFUSED)
