"""Settings → Channels: connect a channel, test its credentials, disconnect it. `connections.py` reads the connections."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import structlog

from integrations import registry
from integrations.base import IntegrationError
from integrations.channels import web_chat
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import Invalid, NotFound, Refusal
from models.ids import public_id, uuid7
from models.tables import ChannelConnection
from services import audit, connections, contacts, origins, text
from services.actors import Actor
from services.changes import change

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000


async def connect_channel(
    actor: Actor,
    *,
    kind: str,
    provider: str,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    sender: str | None = None,
    credentials: Mapping[str, str] | None = None,
    allowed_origins: Sequence[str] | None = None,
) -> ChannelConnection:
    """Connect a channel, or change its connection. New credentials replace single fields of the old.

    `allowed_origins`: the sites that may show a chat widget; None leaves them, none at all is the beginning.
    The vendor is asked before anything is stored. Raises: Forbidden, NotFound, Invalid, TooLong.
    """
    actor.require("settings")
    if provider not in registry.channel_names():
        raise Invalid("This provider is not installed.", field="provider")
    if provider in connections.STAND_INS and not connections.stand_ins_open():
        raise Invalid("The simulator is closed here; connect a real provider.", field="provider")
    cls = registry.channel_class(provider)
    if kind not in {k.value for k in cls.kinds}:
        raise Invalid("This provider does not serve this kind of channel.", field="kind")
    name = text.optional(display_name, limit=NAME_LIMIT, field="displayName")
    address = text.optional(sender, limit=contacts.ADDRESS_LIMIT, field="sender")
    if allowed_origins and provider != web_chat.NAME:
        raise Invalid("Only our own web chat is shown on sites.", field="allowedOrigins")
    sites = None if allowed_origins is None else origins.checked(allowed_origins)
    row = await connections.channel_connection(connection_id, actor.account_id) if connection_id is not None else None
    if row is not None and (row.provider != provider or row.kind != kind):
        raise NotFound(field="connectionId")
    if credentials and provider in connections.SELF_ISSUED:
        raise Invalid(f"{cls.display_name} makes its own keys: leave this out.", field="credentials")
    merged = connections.readable(row)
    for field, value in (credentials or {}).items():
        merged[field] = text.optional(value, limit=SECRET_LIMIT, field="credentials") or ""
    if provider in connections.SELF_ISSUED:
        merged = connections.issued_keys(provider, [f.name for f in dataclasses.fields(cls.credentials)], merged)
    await _check_channel(provider, kind, merged)
    async with change(actor.account_id, actor_id=actor.user_id) as entries:
        sealed = connections.sealed(actor.account_id, merged)
        if row is None:
            made = await ChannelConnection.create(
                id=uuid7(),
                account_id=actor.account_id,
                kind=kind,
                provider=provider,
                display_name=name or cls.display_name,
                sender=address or "",
                credentials=sealed,
                allowed_origins=sites or [],
            )
        else:
            await ChannelConnection.filter(id=row.id).update(
                display_name=name or row.display_name,
                sender=row.sender if sender is None else address or "",
                credentials=sealed,
                allowed_origins=row.allowed_origins if sites is None else sites,
                connected=True,
                last_error=None,
                version=row.version + 1,
            )
            made = await ChannelConnection.get(id=row.id)
        entries.event("channel.updated")
        await audit.record(
            actor,
            "channel.connected",
            public_id("chn", made.id),
            {
                "provider": provider,
                "kind": kind,
                "changed": sorted([*(credentials or {}), *(["allowed_origins"] if sites is not None else [])]),
            },
        )
    return made


async def test_channel(actor: Actor, connection_id: UUID) -> tuple[ChannelConnection, Refusal | None]:
    """Ask the vendor again with the stored credentials; what it refuses is the connection's `last_error`, else that is cleared.

    Raises: Forbidden, NotFound.
    """
    actor.require("settings")
    row = await connections.channel_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not connections.allowed(row):
            raise Invalid("The simulator is closed here.")
        await _check_channel(row.provider, row.kind, connections.credentials_of(row))
    except Invalid as refused:
        refusal = Invalid(refused.message)  # about what is stored, so about no field of the input
    except UnknownProvider:
        refusal = Invalid("The plug-in of this channel is not installed.")
    except vault.VaultError:
        refusal = Invalid(connections.UNREADABLE)
    async with database.transaction():
        await ChannelConnection.filter(id=row.id).update(
            last_error=refusal and refusal.message[: connections.ERROR_LIMIT]
        )
        await audit.record(actor, "channel.tested", public_id("chn", row.id), {"passed": refusal is None})
        return await connections.channel_connection(connection_id, actor.account_id), refusal


async def rotate_identity_secret(actor: Actor, connection_id: UUID) -> tuple[ChannelConnection, str]:
    """A new secret to sign visitors' identities with, shown this once; the old one counts no more. Raises: Forbidden, NotFound, Invalid."""
    actor.require("settings")
    async with database.transaction():
        row = (
            await ChannelConnection.filter(id=connection_id, account_id=actor.account_id)
            .select_for_update(no_key=True)
            .get_or_none()
        )
        if row is None:
            raise NotFound(field="channelId")
        if row.provider != web_chat.NAME:
            raise Invalid("Only a web chat has an identity secret.", field="channelId")
        issued = connections.issued_keys(row.provider, ["identity_secret"], {})
        await ChannelConnection.filter(id=row.id).update(
            credentials=connections.sealed(actor.account_id, issued), version=row.version + 1
        )
        await audit.record(actor, "channel.identity_secret_rotated", public_id("chn", row.id))
        return await connections.channel_connection(connection_id, actor.account_id), issued["identity_secret"]


async def _check_channel(provider: str, kind: str, credentials: Mapping[str, str]) -> None:
    try:
        probe = connections.make_channel(provider, kind, credentials)
    except IntegrationError as error:
        raise Invalid(error.message or "The credentials are not complete.", field="credentials") from error
    try:
        await probe.check()
    except IntegrationError as error:
        log.warning("channel_check_failed", provider=error.provider, reason=error.reason)
        waits = error.retryable or error.ambiguous
        raise Invalid(
            "The provider does not answer at the moment; try again."
            if waits
            else "The provider refuses these credentials.",
            field="credentials",
        ) from error
    finally:
        await probe.aclose()


async def disconnect_channel(actor: Actor, connection_id: UUID) -> ChannelConnection:
    """Send nothing more through it; what still comes in (a STOP, a status) is taken. Safe to repeat. Raises: Forbidden, NotFound."""
    actor.require("settings")
    async with change(actor.account_id, actor_id=actor.user_id) as entries:
        row = await connections.channel_connection(connection_id, actor.account_id)
        if row.connected:
            await ChannelConnection.filter(id=row.id).update(connected=False, version=row.version + 1)
            entries.event("channel.updated")
            await audit.record(actor, "channel.disconnected", public_id("chn", row.id))
        return await connections.channel_connection(connection_id, actor.account_id)
