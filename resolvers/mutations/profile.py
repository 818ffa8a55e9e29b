"""Mutations: the viewer's own profile, password, email address and sign-ins."""

from __future__ import annotations

from typing import Annotated

import strawberry

from resolvers.mutations.arguments import given_fields, row_id
from resolvers.mutations.fields import mutation
from schema.account import User
from schema.context import Info
from schema.inputs.team import (
    ChangePasswordInput,
    ConfirmEmailChangeInput,
    RequestEmailChangeInput,
    RequestPasswordResetInput,
    ResetPasswordInput,
    RevokeSessionInput,
    UpdateProfileInput,
)
from schema.team_payloads import (
    ChangePasswordPayload,
    ConfirmEmailChangePayload,
    RequestEmailChangePayload,
    RequestPasswordResetPayload,
    ResetPasswordPayload,
    RevokeSessionPayload,
    UpdateProfilePayload,
)
from services.accounts import sessions
from services.team import email_changes, passwords, profile


@strawberry.type
class ProfileMutations:
    @mutation(
        "Change the viewer's password: the other sign-ins end, this one stays. SIGN_IN_FAILED: the current password is"
        " wrong; attempts count like sign-ins."
    )
    async def change_password(
        self, info: Info, input: Annotated[ChangePasswordInput, strawberry.argument(description="The passwords.")]
    ) -> ChangePasswordPayload:
        row = await passwords.change_password(
            info.context.actor,
            current=input.current_password,
            new=input.new_password,
            client_address=info.context.client_address,
        )
        return ChangePasswordPayload(user=User.from_row(row))

    @mutation(
        "Send a link to choose a new password: it works once, for an hour, and the newest one counts. Answer and time are"
        " the same for addresses with and without a user. MAIL_NOT_CONFIGURED: the installation sends no emails. Needs no"
        " credential.",
        anonymous=True,
    )
    async def request_password_reset(
        self, info: Info, input: Annotated[RequestPasswordResetInput, strawberry.argument(description="The person.")]
    ) -> RequestPasswordResetPayload:
        await passwords.request_reset(input.email, client_address=info.context.client_address)
        return RequestPasswordResetPayload(requested=True)

    @mutation(
        "Set a new password with the token of an emailed link. All sign-ins of the user end. LINK_INVALID: the token is"
        " unknown, used, replaced or expired. Needs no credential.",
        anonymous=True,
    )
    async def reset_password(
        self, info: Info, input: Annotated[ResetPasswordInput, strawberry.argument(description="The new password.")]
    ) -> ResetPasswordPayload:
        await passwords.reset(input.token, input.password, client_address=info.context.client_address)
        return ResetPasswordPayload(password_reset=True)

    @mutation(
        "Send a link to the viewer's new email address; the address counts once it is confirmed there. The link works once,"
        " for an hour. SIGN_IN_FAILED: the password is wrong. MAIL_NOT_CONFIGURED: the installation sends no emails."
    )
    async def request_email_change(
        self, info: Info, input: Annotated[RequestEmailChangeInput, strawberry.argument(description="The address.")]
    ) -> RequestEmailChangePayload:
        await email_changes.request(
            info.context.actor,
            email=input.email,
            password=input.password,
            client_address=info.context.client_address,
        )
        return RequestEmailChangePayload(requested=True)

    @mutation(
        "Confirm a new email address with the token of the emailed link. LINK_INVALID: the token is unknown, used, replaced"
        " or expired. ALREADY_USED: the address has a user by now. Needs no credential.",
        anonymous=True,
    )
    async def confirm_email_change(
        self, info: Info, input: Annotated[ConfirmEmailChangeInput, strawberry.argument(description="The token.")]
    ) -> ConfirmEmailChangePayload:
        await email_changes.confirm(input.token, client_address=info.context.client_address)
        return ConfirmEmailChangePayload(confirmed=True)

    @mutation("Change the viewer's name, language and time zone; fields left out stay, null takes the account's.")
    async def update_profile(
        self, info: Info, input: Annotated[UpdateProfileInput, strawberry.argument(description="What to change.")]
    ) -> UpdateProfilePayload:
        row = await profile.update(info.context.actor, given_fields(input, ("name", "locale", "time_zone")))
        return UpdateProfilePayload(user=User.from_row(row))

    @mutation(
        "End one of the viewer's sign-ins: its refresh token and, within 5 s, its access token and sockets. signOut ends"
        " this one, or all.",
        renamed={"id": "sessionId"},
    )
    async def revoke_session(
        self, info: Info, input: Annotated[RevokeSessionInput, strawberry.argument(description="The sign-in.")]
    ) -> RevokeSessionPayload:
        await sessions.revoke(info.context.actor, row_id(input.session_id, "ses"))
        return RevokeSessionPayload(session_id=input.session_id)
