"""What tests of messages share: writing one, running its job, and a vendor who answers what a test says."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from integrations.base import (
    Channel,
    OutboundMessage,
    SendResult,
    StatusUpdate,
)
from integrations.channels import simulated
from models.ids import uuid7
from models.tables import (
    Message,
)
from services.connections import providers
from services.core import jobs
from services.messaging import messages
from tests.services.conftest import Team

CHANGED = ("message", "activity_card", "event", "job", "message_payment_request", "idempotency_key", "notification")


async def send(team: Team, body: str, kind: str = "SMS", **more: Any) -> messages.SentMessage:
    return await messages.send_message(
        team.agent, conversation_id=team.conversation.id, channel_id=team.channels[kind].id, body=body, **more
    )


async def run_job(kind: str, message_id: UUID, *, last: bool = False) -> None:
    """One run of a message's job, as the runner would do it."""
    message = await Message.get(id=message_id)
    await jobs.handlers[kind](
        jobs.JobContext(
            job_id=uuid7(),
            kind=kind,
            payload={"message_id": str(message_id)},
            account_id=message.account_id,
            attempt=1,
            last_attempt=last,
        )
    )


class Vendor:
    """Stands in for a provider: answers each send with the next of `answers`, counts the calls, and receives as the real one."""

    def __init__(self, answers: Sequence[object], instead_of: Channel) -> None:
        self.receive = instead_of.receive
        self.answers = list(answers)
        self.sent: list[OutboundMessage] = []
        self.found: StatusUpdate | None = None
        self.limits = simulated.Simulated.limits.__get__(self)

    async def send(self, message: OutboundMessage) -> SendResult:
        self.sent.append(message)
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        assert isinstance(answer, SendResult)
        return answer

    async def look_up(self, message: OutboundMessage, *, sent_after: datetime) -> StatusUpdate | None:
        return self.found

    async def aclose(self) -> None:
        pass


def replace_vendor(team: Team, kind: str, *answers: object) -> Vendor:
    row = team.channels[kind]
    vendor = Vendor(answers, providers.channel(row))
    providers.live.get().channels[row.id] = (providers.cache_key(row), vendor)  # type: ignore[assignment]
    return vendor


async def handed_over(team: Team, body: str, kind: str = "SMS", **more: Any) -> OutboundMessage:
    """What the provider is given for a message."""
    vendor = replace_vendor(team, kind, SendResult(external_id=f"v-{uuid7()}"))
    await run_job("message.send", (await send(team, body, kind, **more)).message.id)
    (outbound,) = vendor.sent
    return outbound
