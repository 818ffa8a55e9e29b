"""Mutations: the account's users and invitations."""

from __future__ import annotations

from typing import Annotated
from uuid import uuid4

import strawberry

from resolvers.mutations.arguments import given_fields, row_id
from resolvers.mutations.fields import mutation
from resolvers.mutations.sign_in import client_of, session
from schema.account import User
from schema.context import Info
from schema.inputs.team import (
    AcceptInvitationInput,
    DisableUserInput,
    EnableUserInput,
    InviteUserInput,
    ResendInvitationInput,
    RevokeInvitationInput,
    UpdateUserInput,
)
from schema.scalars import URL
from schema.team import Invitation
from schema.team_payloads import (
    AcceptInvitationPayload,
    DisableUserPayload,
    EnableUserPayload,
    InviteUserPayload,
    ResendInvitationPayload,
    RevokeInvitationPayload,
    UpdateUserPayload,
)
from services.accounts import sessions, users
from services.team import invitations

_ID = {"id": "userId"}
_INVITATION = {"id": "invitationId", "role": "invitationId"}


def _link(invited: invitations.Invited) -> URL | None:
    return URL(invited.link) if invited.link is not None else None


@strawberry.type
class TeamMutations:
    @mutation(
        "Invite a person by email; the link works once, for seven days. ALREADY_USED: the address has a user or an open"
        " invitation. For owners; admins may invite agents and viewers."
    )
    async def invite_user(
        self, info: Info, input: Annotated[InviteUserInput, strawberry.argument(description="The person.")]
    ) -> InviteUserPayload:
        invited = await invitations.invite(
            info.context.actor,
            email=input.email,
            name=input.name,
            role=input.role.name,
            idempotency_key=input.idempotency_key,
        )
        return InviteUserPayload(invitation=Invitation.from_row(invited.row), link=_link(invited))

    @mutation(
        "Send an invitation again, with a new link for seven days; the former link ends. Also for one that has expired."
        " For owners; admins may do it for agents and viewers.",
        renamed=_INVITATION,
    )
    async def resend_invitation(
        self, info: Info, input: Annotated[ResendInvitationInput, strawberry.argument(description="The invitation.")]
    ) -> ResendInvitationPayload:
        invited = await invitations.resend(info.context.actor, row_id(input.invitation_id, "inv"))
        return ResendInvitationPayload(invitation=Invitation.from_row(invited.row), link=_link(invited))

    @mutation(
        "Take an invitation back: its link ends. INVALID: it was accepted. For owners; admins may do it for agents and"
        " viewers.",
        renamed=_INVITATION,
    )
    async def revoke_invitation(
        self, info: Info, input: Annotated[RevokeInvitationInput, strawberry.argument(description="The invitation.")]
    ) -> RevokeInvitationPayload:
        row = await invitations.revoke(info.context.actor, row_id(input.invitation_id, "inv"))
        return RevokeInvitationPayload(invitation=Invitation.from_row(row))

    @mutation(
        "Accept an invitation: makes the user and signs in. LINK_INVALID: the token is unknown, used, revoked, replaced or"
        " expired. ALREADY_USED: the address has a user by now. Needs no credential.",
        anonymous=True,
    )
    async def accept_invitation(
        self, info: Info, input: Annotated[AcceptInvitationInput, strawberry.argument(description="The person.")]
    ) -> AcceptInvitationPayload:
        user = await invitations.accept(
            input.token, name=input.name, password=input.password, client_address=info.context.client_address
        )
        return await session(AcceptInvitationPayload, await sessions.issue(user, uuid4(), client_of(info)))

    @mutation(
        "Change a user's name or role; fields left out stay. A changed role ends the user's open sockets within 5 s;"
        " they reconnect with the new role. LAST_OWNER: one active owner stays. For owners.",
        renamed=_ID,
    )
    async def update_user(
        self, info: Info, input: Annotated[UpdateUserInput, strawberry.argument(description="What to change.")]
    ) -> UpdateUserPayload:
        changes = given_fields(input, ("name", "role"))
        if (role := changes.get("role")) is not None:
            changes["role"] = role.name
        row = await users.update(info.context.actor, row_id(input.user_id, "usr"), changes)
        return UpdateUserPayload(user=User.from_row(row))

    @mutation(
        "Disable a user: the person can't sign in, tokens and sockets end within 5 s, and the conversations lose their"
        " assignee. What the person did stays. LAST_OWNER: one active owner stays. For owners.",
        renamed=_ID,
    )
    async def disable_user(
        self, info: Info, input: Annotated[DisableUserInput, strawberry.argument(description="The user.")]
    ) -> DisableUserPayload:
        row = await users.disable(info.context.actor, row_id(input.user_id, "usr"))
        return DisableUserPayload(user=User.from_row(row))

    @mutation("Let a disabled user sign in again. For owners.", renamed=_ID)
    async def enable_user(
        self, info: Info, input: Annotated[EnableUserInput, strawberry.argument(description="The user.")]
    ) -> EnableUserPayload:
        row = await users.enable(info.context.actor, row_id(input.user_id, "usr"))
        return EnableUserPayload(user=User.from_row(row))
