"""A contact's stored payment totals, per currency and mode."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from models import database, rows
from models.ids import uuid7
from models.tables import Contact, ContactSummary
from services.core import merged_rows
from services.thread import figures

_REQUESTS = f"""
SELECT currency, test_mode,
  coalesce(sum(CASE WHEN {figures.REQUESTED} THEN amount_minor ELSE 0 END), 0) AS requested_minor,
  coalesce(sum(CASE WHEN {figures.DUE} THEN {figures.LEFT} ELSE 0 END), 0) AS outstanding_minor,
  coalesce(sum(CASE WHEN {figures.OUTSTANDING} THEN 1 ELSE 0 END), 0) AS open_count,
  coalesce(sum(CASE WHEN {figures.PAID_IN_FULL} THEN 1 ELSE 0 END), 0) AS paid_count
FROM payment_request WHERE contact_id IN (%s) AND {database.OF_ACCOUNT} AND discarded_at IS NULL GROUP BY currency, test_mode
"""  # noqa: S608 (constant)

# One row per payment: the outcome of highest rank decides.
_MONEY = f"""
SELECT currency, test_mode,
  coalesce(sum(CASE WHEN {figures.ARRIVED} THEN amount_minor ELSE 0 END), 0) AS paid_minor,
  coalesce(sum(CASE WHEN kind = 'ADJUSTMENT' OR ({figures.ARRIVED}) THEN fee_minor END), 0) AS fee_minor,
  max(CASE WHEN kind IN ('REFUND', 'DISPUTE') AND outcome = 'SUCCEEDED' THEN 1 ELSE 0 END) AS has_losses,
  min(CASE WHEN {figures.ARRIVED} THEN occurred_at END) AS first_paid_at,
  max(CASE WHEN {figures.ARRIVED} THEN occurred_at END) AS last_paid_at
FROM money_fact f WHERE contact_id IN (%s) AND {database.OF_ACCOUNT} AND {figures.NOT_UNDONE}
GROUP BY currency, test_mode
"""  # noqa: S608 (constant)

# Refunds and lost disputes together take at most their charge: a processor may report one loss as both (PayPal's reversal and its
# dispute). A succeeded refund can still fail, a lost dispute can be decided again, and a reversal ends when its dispute is won.
_WON = """
f.kind = 'REFUND' AND f.reversal AND EXISTS (
  SELECT 1 FROM money_fact won WHERE won.kind = 'DISPUTE' AND won.processor_connection_id = f.processor_connection_id
  AND won.charge_external_id = f.charge_external_id AND won.outcome IN ('FAILED', 'CANCELED') AND won.occurred_at >= f.occurred_at
  AND NOT EXISTS (
    SELECT 1 FROM money_fact newer WHERE newer.kind = 'DISPUTE' AND newer.processor_connection_id = f.processor_connection_id
    AND newer.charge_external_id = f.charge_external_id AND (newer.occurred_at > won.occurred_at
    OR newer.occurred_at = won.occurred_at AND newer.outcome = 'SUCCEEDED')))
"""
_LOSSES = f"""
SELECT loss.currency, loss.test_mode,
  sum(CASE WHEN refunded > charge.amount_minor THEN charge.amount_minor ELSE refunded END) AS refunded_minor,
  sum(CASE WHEN refunded + lost <= charge.amount_minor OR charge.amount_minor IS NULL THEN lost
    WHEN refunded >= charge.amount_minor THEN 0 ELSE charge.amount_minor - refunded END) AS lost_minor
FROM (
  SELECT account_id, processor_connection_id, charge_external_id, currency, test_mode,
    sum(CASE WHEN kind = 'REFUND' THEN amount_minor ELSE 0 END) AS refunded,
    sum(CASE WHEN kind = 'DISPUTE' THEN amount_minor ELSE 0 END) AS lost
  FROM money_fact f
  WHERE contact_id IN (%s) AND {database.OF_ACCOUNT} AND kind IN ('REFUND', 'DISPUTE') AND outcome = 'SUCCEEDED' AND NOT EXISTS (
    SELECT 1 FROM money_fact later WHERE later.processor_connection_id = f.processor_connection_id AND f.kind = 'REFUND'
    AND later.kind = 'REFUND' AND later.external_id = f.external_id AND later.outcome IN ('FAILED', 'CANCELED'))
    AND NOT EXISTS (
    SELECT 1 FROM money_fact later WHERE later.processor_connection_id = f.processor_connection_id AND f.kind = 'DISPUTE'
    AND later.kind = 'DISPUTE' AND later.external_id = f.external_id AND later.occurred_at > f.occurred_at)
    AND NOT ({_WON})
  GROUP BY account_id, processor_connection_id, charge_external_id, currency, test_mode) loss
LEFT JOIN money_fact charge ON charge.account_id = loss.account_id AND charge.kind = 'CHARGE' AND charge.outcome = 'SUCCEEDED'
  AND charge.processor_connection_id = loss.processor_connection_id AND charge.external_id = loss.charge_external_id
  AND charge.currency = loss.currency
GROUP BY loss.currency, loss.test_mode
"""  # noqa: S608 (constant)

# An empty entry, by the names of the stored columns.
ZERO: dict[str, Any] = {
    "requested_minor": 0,
    "outstanding_minor": 0,
    "paid_minor": 0,
    "refunded_minor": 0,
    "net_minor": 0,
    "open_count": 0,
    "paid_count": 0,
    "first_paid_at": None,
    "last_paid_at": None,
}


async def recompute(account_id: UUID, contact_id: UUID) -> dict[tuple[str, bool], dict[str, Any]]:
    """The current sums by (currency, test mode), merged contacts included."""
    ids = await merged_rows.contact_ids(account_id, contact_id)
    return (await _compute_totals(account_id, ids))[0] if ids else {}


Totals = dict[tuple[str, bool], dict[str, Any]]


async def _compute_totals(
    account_id: UUID, ids: Sequence[UUID], *beside: database.Statement
) -> tuple[Totals, list[Sequence[Sequence[Any]]]]:
    """The totals, and the records of `beside`, which are read with them."""
    marks = database.placeholders(len(ids))
    totals: Totals = {}
    requests, payments, *others = await database.records_together(
        (_REQUESTS % marks, [*ids, account_id]), (_MONEY % marks, [*ids, account_id]), *beside
    )
    for currency, test_mode, *sums in requests:
        entry = totals.setdefault((currency, database.to_bool(test_mode)), dict(ZERO))
        for name, value in zip(("requested_minor", "outstanding_minor", "open_count", "paid_count"), sums, strict=True):
            entry[name] = int(value)
    # Most contacts have no refund or lost dispute: skip the second query.
    some_lost = any(has_losses for _, _, _, _, has_losses, _, _ in payments)
    losses = await database.records(_LOSSES % marks, *ids, account_id) if some_lost else []
    lost = {(currency, test_mode): (int(refunded), int(taken)) for currency, test_mode, refunded, taken in losses}
    for currency, test_mode, paid, fees, _, first_paid_at, last_paid_at in payments:
        entry = totals.setdefault((currency, database.to_bool(test_mode)), dict(ZERO))
        refunded, taken = lost.get((currency, test_mode), (0, 0))
        entry["paid_minor"] = int(paid)
        entry["refunded_minor"] = refunded
        entry["net_minor"] = int(paid) - refunded - int(fees) - taken
        entry["first_paid_at"], entry["last_paid_at"] = database.to_time(first_paid_at), database.to_time(last_paid_at)
    return totals, others


async def lock_contact(account_id: UUID, contact_id: UUID) -> Contact:
    """Lock the contact that this id resolves to; its totals change only under this lock."""
    row = await merged_rows.lock_contact(account_id, contact_id)
    if row is None:
        raise RuntimeError("a row without its contact")
    return row


async def update(account_id: UUID, contact_id: UUID) -> bool:
    """Recompute and store the totals; the caller holds the contact's lock. Returns whether they changed."""
    return await update_locked(await merged_rows.contact_of(account_id, contact_id))


async def update_locked(contact: Contact) -> bool:
    """As `update`, of the row that `lock_contact` returned."""
    account_id, ids = contact.account_id, merged_rows.ids_of(contact)
    contact_id = ids[0]
    summaries = rows.query(ContactSummary, "WHERE contact_id = ? AND account_id = ?", contact_id, account_id)
    totals, (found,) = await _compute_totals(account_id, ids, summaries)
    known = [rows.from_record(ContactSummary, record) for record in found]
    stored = {(row.currency, row.test_mode): row for row in known}
    changed = False
    for (currency, test_mode), entry in (dict.fromkeys(stored, ZERO) | totals).items():
        row = stored.get((currency, test_mode))
        if row is None:
            row = ContactSummary(
                id=uuid7(),
                account_id=account_id,
                contact_id=contact_id,
                currency=currency,
                test_mode=test_mode,
                **entry,
            )
            await rows.add([row])
            changed = True
        elif any(getattr(row, name) != value for name, value in entry.items()):
            row.update_from_dict(entry)
            await rows.update(row, tuple(entry))
            changed = True
    return changed
