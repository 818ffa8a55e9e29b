"""Recomputes stored values from facts and log, and reports what differs. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from uuid import UUID

from models import database, event_log
from models.ids import public_id
from models.tables import Account, CheckoutSession, Contact, ContactSummary, MoneyFact, PaymentRequest
from services.payments import dashboard, figure_counts, figure_facts
from services.payments.projection import standing_of
from services.thread import contact_totals, request_rows

BATCH = 500  # requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A stored value that differs from what the facts say."""

    subject: str  # the public id of the request, contact or account
    name: str  # of the column or figure
    stored: object
    recomputed: object

    def __str__(self) -> str:
        return f"{self.subject} {self.name}: stored {self.stored}, recomputed {self.recomputed}"


async def audit(account_id: UUID | None = None) -> list[Difference]:
    """Audit one account, or all (None). Safe on a running system."""
    found: list[Difference] = []
    for account in await (Account.filter(id=account_id) if account_id else Account.all()).order_by("id"):
        found += await _check_log(account.id)
        found += await _check_requests(account.id)
        found += await _check_summaries(account.id)
        found += await _check_figures(account)
    return found


# ---------------------------------------------------------------------------------------------------------------- log
_LOG = """
SELECT a.event_seq, a.created_at, count(e.seq) AS entries, min(e.seq) AS first, max(e.seq) AS last
FROM account a LEFT JOIN event e ON e.account_id = a.id WHERE a.id = ? GROUP BY a.id, a.event_seq, a.created_at
"""


async def _check_log(account_id: UUID) -> list[Difference]:
    # Numbers run without gaps to the counter; only pruned ones may be missing.
    (row,) = await database.rows(_LOG, account_id)  # one statement: no writer commits in between
    head, entries = int(row["event_seq"]), int(row["entries"])
    subject = public_id("acc", account_id)
    pruned = database.to_time(row["created_at"]) <= datetime.now(UTC) - event_log.RETENTION
    if not entries:
        lost = head and not pruned
        return [Difference(subject=subject, name="log entries", stored=0, recomputed=head)] if lost else []
    first, last = int(row["first"]), int(row["last"])
    found = []
    if last != head:
        found.append(Difference(subject=subject, name="event_seq", stored=head, recomputed=last))
    if entries != last - first + 1:
        found.append(Difference(subject=subject, name="log entries", stored=entries, recomputed=last - first + 1))
    if first > 1 and not pruned:
        found.append(Difference(subject=subject, name="first log entry", stored=first, recomputed=1))
    return found


# ----------------------------------------------------------------------------------------------------------- requests
async def _check_requests(account_id: UUID) -> list[Difference]:
    found: list[Difference] = []
    after: UUID | None = None
    while True:
        batch = PaymentRequest.filter(account_id=account_id)
        if after is not None:
            batch = batch.filter(id__gt=after)
        requests = await batch.order_by("id").limit(BATCH)
        if not requests:
            return found
        after = requests[-1].id
        suspect_ids = [request.id for request, differences in await _compare(requests) if differences]
        for request_id in suspect_ids:
            # Compared again under the lock: a change under way is no difference.
            async with database.transaction():
                locked = await request_rows.lock(account_id, request_id)
                ((_, differences),) = await _compare([locked])
            found += differences


async def _compare(requests: Sequence[PaymentRequest]) -> list[tuple[PaymentRequest, list[Difference]]]:
    ids = [request.id for request in requests]
    facts = await MoneyFact.filter(payment_request_id__in=ids).order_by("payment_request_id", "id")
    facts_of: dict[UUID, list[MoneyFact]] = {
        request_id: list(group) for request_id, group in groupby(facts, key=lambda fact: fact.payment_request_id)
    }
    processing: dict[UUID, list[CheckoutSession]] = {request_id: [] for request_id in ids}
    for session in await CheckoutSession.filter(payment_request_id__in=ids, status="PROCESSING"):
        processing[session.payment_request_id].append(session)
    return [
        (request, list(_request_differences(request, facts_of.get(request.id, []), processing[request.id])))
        for request in requests
    ]


def _request_differences(
    request: PaymentRequest, facts: list[MoneyFact], processing: list[CheckoutSession]
) -> Iterator[Difference]:
    at = standing_of(request, facts, processing)
    recomputed = {
        "status": at.status.value,
        "amount_paid_minor": at.settled_minor,
        "refunded_minor": at.refunded_minor,
        "excess_minor": at.excess_minor,
        "late_minor": at.late_minor,
        "waived_minor": at.waived_minor,
        "unresolved": bool(at.unresolved),
        "refund_state": at.refund_state,
        "dispute_state": at.dispute_state,
    }
    if (request.released_at is not None) != at.released:
        subject = public_id("pr", request.id)
        yield Difference(
            subject=subject, name="released", stored=request.released_at is not None, recomputed=at.released
        )
    for name, value in recomputed.items():
        stored = getattr(request, name)
        if stored != value:
            yield Difference(subject=public_id("pr", request.id), name=name, stored=stored, recomputed=value)


# ---------------------------------------------------------------------------------------------------------- summaries
async def _check_summaries(account_id: UUID) -> list[Difference]:
    found: list[Difference] = []
    for contact in await Contact.filter(account_id=account_id, merged_into_id=None).order_by("id"):
        if await _contact_differences(account_id, contact.id):
            async with database.transaction():
                await contact_totals.lock_contact(account_id, contact.id)
                found += await _contact_differences(account_id, contact.id)
    return found


async def _contact_differences(account_id: UUID, contact_id: UUID) -> list[Difference]:
    recomputed = await contact_totals.recompute(account_id, contact_id)
    rows = await ContactSummary.filter(account_id=account_id, contact_id=contact_id)
    stored = {(row.currency, row.test_mode): {name: getattr(row, name) for name in contact_totals.ZERO} for row in rows}
    return [
        Difference(
            subject=public_id("cnt", contact_id),
            name=f"{name} ({currency}, {'test' if test_mode else 'live'})",
            stored=was[name],
            recomputed=now[name],
        )
        for currency, test_mode in sorted(stored.keys() | recomputed.keys())
        for was in [stored.get((currency, test_mode), contact_totals.ZERO)]
        for now in [recomputed.get((currency, test_mode), contact_totals.ZERO)]
        for name in contact_totals.ZERO
        if was[name] != now[name]
    ]


# ------------------------------------------------------------------------------------------------------------ figures
async def _check_figures(account: Account) -> list[Difference]:
    if not await _figure_differences(account):
        return []
    async with database.transaction():
        # Every change of a figure ends with this row's lock.
        await Account.filter(id=account.id).select_for_update(no_key=True).first()
        return await _figure_differences(account)


async def _figure_differences(account: Account) -> list[Difference]:
    now, found = datetime.now(UTC), []
    for range_name in dashboard.RANGES:
        since = dashboard.start_of(range_name, account.time_zone, now)
        for test_mode in (False, True):
            counted = await figure_counts.read(account.id, test_mode, since)
            summed = await figure_facts.read(account.id, test_mode, since)
            stored = {figures.currency: asdict(figures) for figures in counted}
            recomputed = {figures.currency: asdict(figures) for figures in summed}
            mode = "test" if test_mode else "live"
            found += [
                Difference(
                    subject=public_id("acc", account.id),
                    name=f"{name} of {range_name} ({currency}, {mode})",
                    stored=stored.get(currency, {}).get(name),
                    recomputed=recomputed.get(currency, {}).get(name),
                )
                for currency in sorted(stored.keys() | recomputed.keys())
                for name in figure_facts.NAMES
                if stored.get(currency, {}).get(name) != recomputed.get(currency, {}).get(name)
            ]
    return found
