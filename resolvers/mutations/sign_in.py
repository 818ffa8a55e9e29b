"""Mutations: signing in and out, and API keys."""

from __future__ import annotations

from typing import Annotated, TypeVar

import strawberry

from resolvers.access.reads import Access
from resolvers.mutations.arguments import row_id
from resolvers.mutations.fields import mutation
from schema.account import ApiKey, User
from schema.context import Info
from schema.inputs.sign_in import CreateApiKeyInput, RefreshSessionInput, RevokeApiKeyInput, SignInInput, SignOutInput
from schema.payloads import (
    CreateApiKeyPayload,
    RefreshSessionPayload,
    RevokeApiKeyPayload,
    SessionPayload,
    SignInPayload,
    SignOutPayload,
)
from services.accounts import api_keys, authentication, login, sessions
from services.accounts.clients import Client

S = TypeVar("S", bound=SessionPayload)


async def session(payload: type[S], tokens: sessions.Tokens) -> S:
    actor = await authentication.authenticate(tokens.access_token)
    row = await Access(actor, None).user(tokens.user_id) if actor is not None else None
    if row is None:
        raise RuntimeError("a new access token is not valid")
    return payload(
        access_token=tokens.access_token,
        access_token_expires_at=tokens.access_expires_at,
        refresh_token=tokens.refresh_token,
        refresh_token_expires_at=tokens.refresh_expires_at,
        user=User.from_row(row),
    )


def client_of(info: Info) -> Client:
    return Client.of(info.context.client_address, info.context.user_agent)


@strawberry.type
class SignInMutations:
    @mutation("Sign in with email address and password. Needs no credential.", anonymous=True)
    async def sign_in(
        self, info: Info, input: Annotated[SignInInput, strawberry.argument(description="The user's credentials.")]
    ) -> SignInPayload:
        address = info.context.client_address
        agent = info.context.user_agent
        tokens = await login.sign_in(input.email, input.password, client_address=address, user_agent=agent)
        return await session(SignInPayload, tokens)

    @mutation(
        "Exchange a refresh token for a new access token. A refresh token works once; using it twice ends the"
        " sign-in. Needs no credential.",
        anonymous=True,
    )
    async def refresh_session(
        self, info: Info, input: Annotated[RefreshSessionInput, strawberry.argument(description="The refresh token.")]
    ) -> RefreshSessionPayload:
        return await session(RefreshSessionPayload, await sessions.refresh(input.refresh_token, client_of(info)))

    @mutation("End the viewer's sign-in: its refresh token and, within seconds, its access token.")
    async def sign_out(
        self, info: Info, input: Annotated[SignOutInput, strawberry.argument(description="The sign-ins to end.")]
    ) -> SignOutPayload:
        await sessions.sign_out(info.context.actor, input.refresh_token, input.everywhere)
        return SignOutPayload(signed_out=True)

    @mutation(
        "Create a credential for programs; its secret is in this answer only. For owners, and keys that may"
        " manage keys."
    )
    async def create_api_key(
        self, info: Info, input: Annotated[CreateApiKeyInput, strawberry.argument(description="The key to create.")]
    ) -> CreateApiKeyPayload:
        row, secret = await api_keys.create_once(
            info.context.actor,
            name=input.name,
            role=input.role.name,
            expires_at=input.expires_at,
            manages_keys=input.manages_keys,
            idempotency_key=input.idempotency_key,
        )
        return CreateApiKeyPayload(api_key=ApiKey.from_row(row), secret=secret)

    @mutation("Revoke an API key. For owners, and keys that may manage keys.")
    async def revoke_api_key(
        self, info: Info, input: Annotated[RevokeApiKeyInput, strawberry.argument(description="The key to revoke.")]
    ) -> RevokeApiKeyPayload:
        row = await api_keys.revoke(info.context.actor, row_id(input.api_key_id, "key"))
        return RevokeApiKeyPayload(api_key=ApiKey.from_row(row))
