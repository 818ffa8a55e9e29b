"""Emails of the installation to users: each is a job, and its token is sealed in the job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import structlog

from integrations import operator_mail
from integrations.operator_mail import Mail, MailRefused
from models.errors import MailNotConfigured
from services.core import jobs
from services.core.configuration import current

log = structlog.get_logger(__name__)

SEND: Final = "team.send_mail"
ATTEMPTS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """A kind of email. `compose`: None if the email is no longer wanted."""

    compose: Callable[[dict[str, Any], str], Awaitable[Mail | None]]  # of the payload and the job's secret
    sent: Callable[[dict[str, Any], str], Awaitable[None]] | None = None
    failed: Callable[[dict[str, Any], str], Awaitable[None]] | None = None


kinds: dict[str, Kind] = {}


def available() -> bool:
    return current().mail_server is not None


def require() -> None:
    """Raises: MailNotConfigured."""
    if not available():
        raise MailNotConfigured


def page_url(page: str, token: str) -> str:
    # In the fragment: neither this server's log nor a proxy's nor a Referer header ever holds it.
    return f"{current().environment.public_url}/{page}#{token}"


async def enqueue(kind: str, payload: dict[str, str], *, account_id: UUID, token: str) -> None:
    """Call inside a transaction. Does nothing without a mail server."""
    if available():
        await jobs.enqueue(SEND, {"kind": kind, **payload}, account_id=account_id, secret=token, max_attempts=ATTEMPTS)


async def _on_dead(job: jobs.JobContext, error: str) -> None:
    if (failed := kinds[job.payload["kind"]].failed) is not None:
        await failed(job.payload, job.secret)


@jobs.handler(SEND, on_dead=_on_dead)
async def _send(job: jobs.JobContext) -> None:
    kind, server = kinds[job.payload["kind"]], current().mail_server
    mail = await kind.compose(job.payload, job.secret)
    if mail is None:
        return
    if server is None:
        raise jobs.Permanent("no mail server")
    try:
        await operator_mail.send(server, mail)
    except MailRefused as error:
        log.warning("team_mail_refused", kind=job.payload["kind"], account_id=str(job.account_id))
        raise jobs.Permanent("refused") from error
    if kind.sent is not None:
        await kind.sent(job.payload, job.secret)
