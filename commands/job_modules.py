"""The modules whose jobs register themselves when imported: the server and the worker run all of them."""

from __future__ import annotations

from types import ModuleType
from typing import Final

from services.accounts import search_index
from services.connections import credential_renewal
from services.core import idempotency, retention, ticks
from services.messaging import attachments, contact_names, delivery, inbound, look_ups, message_changes, pacing, sending
from services.payments import (
    checkout_reads,
    due_dates,
    figure_counts,
    mismatches,
    processor_events,
    refund_outcomes,
    sweeper,
    voids,
)
from services.sandbox import channels, fees, hosted_page, scenarios, webhooks
from services.team import assignments, digests, email_changes, invitations, mailing, passwords
from services.web_chat import visits

JOB_MODULES: Final[tuple[ModuleType, ...]] = (
    search_index,
    credential_renewal,
    idempotency,
    retention,
    ticks,
    attachments,
    contact_names,
    delivery,
    inbound,
    look_ups,
    message_changes,
    pacing,
    sending,
    checkout_reads,
    due_dates,
    figure_counts,
    mismatches,
    processor_events,
    refund_outcomes,
    sweeper,
    voids,
    channels,
    fees,
    hosted_page,
    scenarios,
    webhooks,
    assignments,
    digests,
    email_changes,
    invitations,
    mailing,
    passwords,
    visits,
)
