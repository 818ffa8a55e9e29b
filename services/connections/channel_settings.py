"""Connects, tests and disconnects channels."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog
from tortoise.expressions import F

from integrations import registry
from integrations.base import Channel, IntegrationError
from integrations.channels import web_chat
from integrations.registry import UnknownProvider
from models import database, vault
from models.errors import Invalid, NotFound, Refusal, Refusals
from models.ids import public_id, uuid7
from models.tables import ChannelConnection
from services.connections import allowed_origins as allowed_origins_service
from services.connections import providers
from services.core import audit_log, configuration, idempotency, validation
from services.core.permissions import Actor
from services.core.unit_of_work import change

log = structlog.get_logger(__name__)

NAME_LIMIT: Final = 120
SECRET_LIMIT: Final = 1000
ROUNDS: Final = 5  # attempts while concurrent changes interfere
# A channel's reason to refuse an address -> the credential with that address.
ADDRESS_REASONS: Final[Mapping[str, str]] = {"host_refused": "host", "port_refused": "port"}


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
    idempotency_key: str | None = None,
) -> ChannelConnection:
    """None keeps a value; `credentials` replace single fields. Raises: Forbidden, NotFound, Invalid, TooLong."""
    actor.require("settings")
    given = {
        "kind": kind,
        "provider": provider,
        "connection": connection_id,
        "name": display_name,
        "sender": sender,
        # Keyed: a short password could be guessed from a plain hash.
        "credentials": {
            name: vault.mark("credential", value.encode()).hex() for name, value in (credentials or {}).items()
        },
        "origins": list(allowed_origins) if allowed_origins is not None else None,
    }

    async def run(save: idempotency.Save) -> ChannelConnection:
        return await _connect(
            actor,
            kind=kind,
            provider=provider,
            connection_id=connection_id,
            display_name=display_name,
            sender=sender,
            credentials=credentials,
            allowed_origins=allowed_origins,
            save=save,
        )

    async def rebuild(ids: dict[str, Any]) -> ChannelConnection:
        return await providers.channel_connection(UUID(ids["channel"]), actor.account_id)

    return await idempotency.once(actor, "connectChannel", idempotency_key, given, run, rebuild)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    cls: type[Channel]
    row: ChannelConnection | None
    name: str | None
    sender: str | None
    credentials: Mapping[str, str]
    sites: list[str] | None


async def check(
    actor: Actor,
    *,
    kind: str,
    provider: str,
    connection_id: UUID | None = None,
    display_name: str | None = None,
    sender: str | None = None,
    credentials: Mapping[str, str] | None = None,
    allowed_origins: Sequence[str] | None = None,
) -> _Wanted:
    """Check the input without the vendor. Raises: Forbidden, NotFound, Invalid, TooLong."""
    actor.require("settings")
    row: ChannelConnection | None = None
    cls: type[Channel] | None = await registry.load("channels", provider)
    sites: list[str] | None = None
    typed: dict[str, str] = {}
    known = False
    served = cls is not None and kind in {k.value for k in cls.kinds}
    refusals = Refusals()
    with refusals:
        if cls is None:
            raise Invalid("This provider is not installed.", field="provider")
        if provider in providers.STAND_INS and not configuration.current().sandbox_open:
            raise Invalid("The simulator is closed here; connect a real provider.", field="provider")
        if not served:
            raise Invalid("This provider does not serve this kind of channel.", field="kind")
    with refusals:
        if connection_id is not None:
            row = await providers.channel_connection(connection_id, actor.account_id)
            if served and (row.provider != provider or row.kind != kind):
                raise NotFound(field="connectionId")
        known = True
    with refusals:
        name = validation.optional(display_name, limit=NAME_LIMIT, field="displayName")
    with refusals:
        address = validation.optional(sender, limit=validation.ADDRESS_LIMIT, field="sender")
    with refusals:
        typed = _typed(cls if served and known else None, credentials or {})
        if cls is not None and served and known:
            _refuse_credentials(cls, row, typed)
    with refusals:
        if allowed_origins and cls is not None and provider != web_chat.NAME:
            raise Invalid("Only the built-in web chat has allowed origins.", field="allowedOrigins")
        if allowed_origins is not None and cls is not None:
            sites = allowed_origins_service.checked(allowed_origins)
    refusals.raise_any()
    assert cls is not None  # noqa: S101 (refused above)
    return _Wanted(cls=cls, row=row, name=name, sender=address, credentials=typed, sites=sites)


def _typed(cls: type[Channel] | None, credentials: Mapping[str, str]) -> dict[str, str]:
    typed: dict[str, str] = {}
    taken = None if cls is None else [field.name for field in dataclasses.fields(cls.credentials)]
    refusals = Refusals()
    for name, value in credentials.items():
        with refusals:
            if cls is not None and cls.name in providers.SELF_ISSUED:
                raise Invalid(
                    f"{cls.display_name} makes its own keys: leave this out.", field=("credentials", name, "name")
                )
            if cls is not None and taken is not None and name not in taken:
                raise Invalid(
                    f"{cls.display_name} takes these credentials only: {', '.join(taken)}.",
                    field=("credentials", name, "name"),
                )
        with refusals:
            typed[name] = validation.optional(value, limit=SECRET_LIMIT, field=("credentials", name, "value")) or ""
    refusals.raise_any()
    return typed


def _refuse_credentials(cls: type[Channel], row: ChannelConnection | None, given: Mapping[str, str]) -> None:
    if cls.name in providers.SELF_ISSUED:
        return
    try:
        registry.read_credentials(cls, {**providers.readable(row), **given})
    except IntegrationError as error:
        raise Invalid(error.message or "The credentials are not complete.", field="credentials") from error


async def _connect(actor: Actor, *, save: idempotency.Save, **given: Any) -> ChannelConnection:
    wanted = await check(actor, **given)
    keeps_sender = given["sender"] is None
    for _ in range(ROUNDS):
        credentials = _merged(wanted)
        await _check_channel(wanted.cls.name, given["kind"], credentials)
        if wanted.row is None:
            await _refuse_duplicate(actor.account_id, wanted, given["kind"])
        stored = await _store(actor, wanted, given["kind"], credentials, keeps_sender=keeps_sender, save=save)
        if stored is not None:
            asked = wanted.row is None or bool(wanted.credentials) or not wanted.row.connected
            return await _register(actor, stored) if asked else stored
        wanted = dataclasses.replace(
            wanted, row=await providers.channel_connection(given["connection_id"], actor.account_id)
        )
    raise Invalid("This connection is being changed by another request: try again.", field="connectionId")


async def _refuse_duplicate(account_id: UUID, wanted: _Wanted, kind: str) -> None:
    # The vendor calls one address: the other connection would receive nothing.
    if wanted.cls.register_webhook is Channel.register_webhook or not wanted.credentials:
        return
    for row in await ChannelConnection.filter(
        account_id=account_id, provider=wanted.cls.name, kind=kind, connected=True
    ):
        stored = providers.readable(row)
        if all(stored.get(name, "") == value for name, value in wanted.credentials.items()):
            raise Invalid(
                f"{row.display_name} is connected with these credentials: change that connection, or disconnect it first.",
                field="credentials",
            )


def _merged(wanted: _Wanted) -> dict[str, str]:
    merged = {**providers.readable(wanted.row), **wanted.credentials}
    if wanted.cls.name in providers.SELF_ISSUED:
        fields = [field.name for field in dataclasses.fields(wanted.cls.credentials)]
        return providers.issued_keys(wanted.cls.name, fields, merged)
    return merged


async def _store(
    actor: Actor,
    wanted: _Wanted,
    kind: str,
    credentials: Mapping[str, str],
    *,
    keeps_sender: bool,
    save: idempotency.Save,
) -> ChannelConnection | None:
    cls, sites = wanted.cls, wanted.sites
    async with change(actor.account_id, actor=actor.ref) as changed:
        if wanted.row is None:
            made = await ChannelConnection.create(
                id=uuid7(),
                account_id=actor.account_id,
                kind=kind,
                provider=cls.name,
                display_name=wanted.name or cls.display_name,
                sender=wanted.sender or "",
                credentials=providers.sealed(actor.account_id, credentials),
                allowed_origins=sites or [],
            )
        else:
            row = await ChannelConnection.filter(id=wanted.row.id).select_for_update(no_key=True).get()
            if not providers.same_credentials(row, wanted.row):
                return None
            values = _changed_values(wanted, wanted.row, row, credentials)
            if not keeps_sender:
                values["sender"] = wanted.sender or ""
            await ChannelConnection.filter(id=row.id).update(**values, version=F("version") + 1)
            made = await ChannelConnection.get(id=row.id)
        await audit_log.record(
            actor,
            "channel.connected",
            public_id("chn", made.id),
            {
                "provider": cls.name,
                "kind": kind,
                "changed": sorted([*wanted.credentials, *(["allowed_origins"] if sites is not None else [])]),
            },
        )
        changed.event("channel.updated")
        await save({"channel": str(made.id)})
    return made


def _changed_values(
    wanted: _Wanted, before: ChannelConnection, row: ChannelConnection, credentials: Mapping[str, str]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if wanted.name is not None:
        values["display_name"] = wanted.name
    if wanted.sites is not None:
        values["allowed_origins"] = wanted.sites
    if credentials != providers.readable(row):
        values["credentials"] = providers.sealed(row.account_id, credentials)
    if wanted.credentials or not before.connected:
        values["connected"] = True  # a mere rename must not undo a concurrent disconnection
    if row.last_error == before.last_error:
        values["last_error"] = None
    return values


async def check_channel(actor: Actor, connection_id: UUID) -> tuple[ChannelConnection, Refusal | None]:
    """Store the result as `last_error`. Raises: Forbidden, NotFound."""
    actor.require("settings")
    row = await providers.channel_connection(connection_id, actor.account_id)
    refusal: Refusal | None = None
    try:
        if not providers.allowed(row):
            raise Invalid("The simulator is closed here.")
        await _check_channel(row.provider, row.kind, providers.credentials_of(row))
    except Invalid as refused:
        refusal = Invalid(refused.message)  # without a field: it is about stored values
    except UnknownProvider:
        refusal = Invalid("The plug-in of this channel is not installed.")
    except vault.VaultError:
        refusal = Invalid(providers.UNREADABLE)
    async with change(actor.account_id, actor=actor.ref) as changed:
        locked = await ChannelConnection.filter(id=row.id).select_for_update(no_key=True).get()
        problem = locked.last_error
        # Not if the credentials or the error changed since.
        if providers.same_credentials(locked, row) and (refusal is not None or locked.last_error == row.last_error):
            problem = None if refusal is None else refusal.message[: providers.ERROR_LIMIT]
        if locked.last_error != problem:
            await ChannelConnection.filter(id=row.id).update(last_error=problem)
            changed.event("channel.updated")
        await audit_log.record(actor, "channel.tested", public_id("chn", row.id), {"passed": refusal is None})
        tested = await providers.channel_connection(connection_id, actor.account_id)
    # Without a webhook so far, the vendor may not know our address.
    return (await _register(actor, tested) if refusal is None and row.last_webhook_at is None else tested), refusal


async def _register(actor: Actor, row: ChannelConnection) -> ChannelConnection:
    # Register again after a concurrent change of credentials.
    for _ in range(ROUNDS):
        if not _can_register(row):
            return row
        found, problem = await _register_at_vendor(row)
        async with change(actor.account_id, actor=actor.ref) as changed:
            locked = await ChannelConnection.filter(id=row.id).select_for_update(no_key=True).get()
            if providers.same_credentials(locked, row):
                values: dict[str, Any] = {} if problem is None else {"last_error": problem[: providers.ERROR_LIMIT]}
                if found:
                    merged = {**providers.readable(locked), **found}
                    values |= {"credentials": providers.sealed(row.account_id, merged), "version": F("version") + 1}
                if values:
                    await ChannelConnection.filter(id=row.id).update(**values)
                    changed.event("channel.updated")
                return await providers.channel_connection(row.id, actor.account_id)
        row = locked
    return row


def _can_register(row: ChannelConnection) -> bool:
    try:
        cls = registry.channel_class(row.provider)
    except UnknownProvider:
        return False
    return row.connected and providers.allowed(row) and cls.register_webhook is not Channel.register_webhook


async def _register_at_vendor(row: ChannelConnection) -> tuple[Mapping[str, str], str | None]:
    cls, url = registry.channel_class(row.provider), providers.inbound_url(row)
    if not url.startswith("https://") and row.provider not in configuration.current().environment.base_addresses:
        return (
            {},
            f"{cls.display_name} can't call {url}: set PUBLIC_URL to an https address and test the channel.",
        )
    channel = providers.make_channel(row.provider, row.kind, providers.readable(row))
    try:
        found = await channel.register_webhook(url) or {}
        registry.read_credentials(cls, {**providers.readable(row), **found})
    except IntegrationError as error:
        log.warning("channel_not_registered", provider=error.provider, reason=error.reason)
        return (
            {},
            f"{cls.display_name} did not take the address for messages ({error.reason}): add {url} there, or test the channel again.",
        )
    finally:
        await channel.aclose()
    return found, None


async def rotate_identity_secret(
    actor: Actor, connection_id: UUID, *, idempotency_key: str | None = None
) -> tuple[ChannelConnection, str | None]:
    """Replace and return the secret that signs visitors' identities. Raises: Forbidden, NotFound, Invalid."""
    actor.require("settings")

    async def run(save: idempotency.Save) -> tuple[ChannelConnection, str | None]:
        return await _rotate(actor, connection_id, save)

    async def rebuild(ids: dict[str, Any]) -> tuple[ChannelConnection, str | None]:
        row = await providers.channel_connection(connection_id, actor.account_id)
        secret = providers.readable(row).get("identity_secret")
        return row, secret if secret is not None and vault.digest(secret) == ids["secret"] else None

    given = {"connection": connection_id}
    return await idempotency.once(actor, "rotateIdentitySecret", idempotency_key, given, run, rebuild)


async def _rotate(actor: Actor, connection_id: UUID, save: idempotency.Save) -> tuple[ChannelConnection, str]:
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
        issued = providers.issued_keys(row.provider, ["identity_secret"], {})
        await ChannelConnection.filter(id=row.id).update(
            credentials=providers.sealed(actor.account_id, issued), version=F("version") + 1
        )
        await audit_log.record(actor, "channel.identity_secret_rotated", public_id("chn", row.id))
        await save({"secret": vault.digest(issued["identity_secret"])})
        return await providers.channel_connection(connection_id, actor.account_id), issued["identity_secret"]


async def _check_channel(provider: str, kind: str, credentials: Mapping[str, str]) -> None:
    try:
        probe = providers.make_channel(provider, kind, credentials)
    except IntegrationError as error:
        raise Invalid(error.message or "The credentials are not complete.", field="credentials") from error
    try:
        await probe.check()
    except IntegrationError as error:
        log.warning("channel_check_failed", provider=error.provider, reason=error.reason)
        if error.reason in ADDRESS_REASONS:
            field = ADDRESS_REASONS[error.reason]
            raise Invalid(error.message, field=("credentials", field)) from error
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
    """Inbound messages and statuses are still accepted. Raises: Forbidden, NotFound."""
    actor.require("settings")
    async with change(actor.account_id, actor=actor.ref) as changed:
        row = await providers.channel_connection(connection_id, actor.account_id)
        if row.connected:
            await ChannelConnection.filter(id=row.id).update(connected=False, version=F("version") + 1)
            changed.event("channel.updated")
            await audit_log.record(actor, "channel.disconnected", public_id("chn", row.id))
        return await providers.channel_connection(connection_id, actor.account_id)
