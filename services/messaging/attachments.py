"""Files that contacts send: stored, fetched by a job, served under short-lived URLs."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import structlog

from integrations import media
from integrations.base import IntegrationError
from models import vault
from models.ids import parse_public_id, public_id, uuid7
from models.storable import storable
from models.tables import Attachment, ChannelConnection, Job, Message
from services.connections import providers
from services.core import configuration, jobs
from services.core.unit_of_work import Change, change
from services.messaging import file_types

log = structlog.get_logger(__name__)

PREFIX: Final = "att"
COUNT_LIMIT: Final = 50  # per message; its text says how many were left out
SIZE_LIMIT: Final = 10 * 1024 * 1024  # bytes
URL_LIMIT: Final = 4000
BY_ID: Final = "id:"  # prefix of a vendor's media id that is stored instead of a URL
LIFE_S: Final = 15 * 60  # of a URL that serves a file
_PURPOSE: Final = "attachment"
_PENDING, _STORED, _REFUSED, _FAILED = "PENDING", "STORED", "REFUSED", "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    name: str
    content_type: str
    content: bytes
    inline: bool


# ------------------------------------------------------------------------------------------------------------ coming in
async def keep(changed: Change, message: Message, given: Sequence[Mapping[str, str]]) -> None:
    """Store an inbound message's files in its transaction; jobs fetch them after the commit."""
    for n, one in enumerate(given[:COUNT_LIMIT], 1):
        content_type = _clean(one.get("content_type", ""))[:120] or "application/octet-stream"
        size = one.get("size", "")
        row = Attachment(
            id=uuid7(),
            account_id=message.account_id,
            message_id=message.id,
            n=n,
            name=_name(one.get("name", ""), n),
            content_type=content_type,
            size_bytes=int(size) if size.isascii() and size.isdecimal() and len(size) < 16 else None,
        )
        url, media_id = storable(one.get("url", "")), storable(one.get("id", ""))
        if "content" in one:  # email brings its files with it
            try:
                _classify(row, base64.b64decode(one["content"], validate=True))
            except (binascii.Error, ValueError):
                row.status, row.reason = _FAILED, "unreadable"
        elif not (url or media_id) or len(url or media_id) > URL_LIMIT or url.startswith(BY_ID):
            row.status, row.reason = _FAILED, "not_given"
        else:
            row.source_url = vault.seal(message.account_id, url or BY_ID + media_id)
            await _enqueue(row)
        changed.attachment(row)


async def sizes(message_id: UUID) -> list[int | None]:
    return [
        row["size_bytes"] for row in await Attachment.filter(message_id=message_id).order_by("n").values("size_bytes")
    ]


def _clean(text: str) -> str:
    return "".join(character for character in text if character.isprintable()).strip()


def _name(given: str, n: int) -> str:
    return re.split(r"[/\\]", _clean(given))[-1].strip(". ")[:200] or f"attachment-{n}"


def _classify(row: Attachment, content: bytes) -> None:
    found = file_types.of(content)
    row.size_bytes = len(content)
    if not content:
        row.status, row.reason = _REFUSED, "empty"
    elif len(content) > SIZE_LIMIT:
        row.status, row.reason = _REFUSED, "too_large"
    elif found is None:
        row.status, row.reason = _REFUSED, "type_not_allowed"
    else:
        row.status, row.reason, row.content_type, row.content = _STORED, None, found, content


async def _fetch_died(job: jobs.JobContext, error: str) -> None:
    row = await Attachment.get_or_none(id=UUID(job.payload["attachment_id"]))
    if row is not None and row.status == _PENDING:
        row.status, row.reason = _FAILED, "not_fetched"
        await _store_outcome(row)


async def sweep_stranded() -> None:
    """Enqueue pending files that lost their job again; fail those whose job died."""
    for id in await jobs.without_job("attachment", "t.status = 'PENDING'", "attachment.fetch:"):
        row = await Attachment.get(id=id)
        if await Job.exists(key=f"attachment.fetch:{id}", status="dead"):
            row.status, row.reason = _FAILED, "not_fetched"
            await _store_outcome(row)
        else:
            await _enqueue(row, again=True)


async def _enqueue(row: Attachment, *, again: bool = False) -> None:
    await jobs.enqueue(
        "attachment.fetch",
        {"attachment_id": str(row.id)},
        account_id=row.account_id,
        key=f"attachment.fetch:{row.id}",
        again=again,
    )


@jobs.handler("attachment.fetch", on_dead=_fetch_died)
async def fetch(job: jobs.JobContext) -> None:
    """Fetch one file; its row leaves PENDING only once."""
    row = await Attachment.get_or_none(id=UUID(job.payload["attachment_id"]))
    if row is None or row.status != _PENDING:
        return
    message = await Message.get(id=row.message_id)
    connection = await ChannelConnection.get(id=message.channel_connection_id)
    try:
        _classify(row, await _fetch_content(row, connection))
    except IntegrationError as error:
        if error.retryable and not job.last_attempt:
            raise
        row.status, row.reason = _FAILED if error.retryable else _REFUSED, error.reason[:60]
        log.info("attachment_not_stored", provider=connection.provider, reason=row.reason, message_id=str(message.id))
    await _store_outcome(row)


async def _store_outcome(row: Attachment) -> None:
    message = await Message.get(id=row.message_id)
    async with change(row.account_id) as changed:
        pending = Attachment.filter(id=row.id, status=_PENDING)
        stored = await pending.update(
            status=row.status,
            reason=row.reason,
            content_type=row.content_type,
            size_bytes=row.size_bytes,
            content=row.content,
            source_url=None,  # a vendor's URL may carry a token
            updated_at=changed.now,
        )
        if stored:
            changed.event(
                "message.updated",
                conversation_id=message.conversation_id,
                contact_id=message.contact_id,
                message_id=message.id,
            )


async def _fetch_content(row: Attachment, connection: ChannelConnection) -> bytes:
    channel = providers.usable_channel(connection)
    if channel is None:  # its package or credentials are unusable, perhaps temporarily
        raise IntegrationError(media.NAME, "provider_unavailable", retryable=True)
    try:
        url = vault.unseal(row.account_id, row.source_url or "")
    except vault.VaultError as error:
        raise IntegrationError(media.NAME, "unreadable") from error
    if url.startswith(BY_ID):
        url = await channel.media_url(url.removeprefix(BY_ID))
    return await media.fetch(
        url, headers=channel.media_headers, limit_bytes=SIZE_LIMIT, trusted=_contract_server_origins()
    )


def _contract_server_origins() -> frozenset[str]:
    return frozenset(media.origin(url) for url in configuration.current().environment.base_addresses.values())


# ----------------------------------------------------------------------------------------------------------- going out
def url_of(row: Attachment, *, now: datetime | None = None) -> str | None:
    """A URL that serves the file for fifteen minutes; None if it is not stored."""
    return address_of(row.id, row.status, now=now)


def address_of(id: UUID, status: str, *, now: datetime | None = None) -> str | None:
    if status != _STORED:
        return None
    name = public_id(PREFIX, id)
    ends = int((now or datetime.now(UTC)).timestamp()) + LIFE_S
    signature = vault.mark(_PURPOSE, f"{name}.{ends}".encode()).hex()
    return f"{configuration.current().environment.public_url}/attachments/{name}?e={ends}&s={signature}"


async def opened(name: str, ends: str, signature: str, *, now: datetime | None = None) -> File | None:
    """The file of such a URL; None if forged, expired or gone."""
    id = parse_public_id(name, PREFIX)
    if id is None or not (ends.isascii() and ends.isdecimal() and len(ends) <= 12):
        return None
    moment = (now or datetime.now(UTC)).timestamp()
    given = bytes.fromhex(signature) if re.fullmatch(r"[0-9a-f]{32}", signature, re.ASCII) else b""
    if not vault.is_mark(_PURPOSE, f"{name}.{ends}".encode(), given) or moment > int(ends):
        return None
    row = await Attachment.get_or_none(id=id, status=_STORED)
    if row is None or row.content is None:
        return None
    content_type = row.content_type
    return File(
        name=row.name,
        content_type=content_type,
        content=bytes(row.content),
        inline=content_type in file_types.INLINE,
    )
