"""SQL for the payments of a contact, each represented by its first fact."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from models import database
from schema.connections import Page


def page_statement(account_id: UUID, contacts: Sequence[UUID], page: Page) -> tuple[str, list[Any]]:
    """Columns: id, payment_request_id."""
    sql = f"SELECT id, payment_request_id {_first_facts(len(contacts))}{page.where}{page.order}"
    return sql, [account_id, *contacts, *page.values]


def all_statement(account_id: UUID, contacts: Sequence[UUID]) -> database.Statement:
    """What pages.counts takes."""
    return f"SELECT 1 {_first_facts(len(contacts))}", [account_id, *contacts]


def _first_facts(contacts: int) -> str:
    return (
        f"FROM money_fact f WHERE {database.OF_ACCOUNT} AND contact_id IN ({database.placeholders(contacts)})"  # noqa: S608 (only constants are put in)
        " AND kind <> 'WAIVER' AND NOT EXISTS (SELECT 1 FROM money_fact e"
        " WHERE e.payment_request_id = f.payment_request_id AND e.id < f.id AND e.external_id = f.external_id"
        " AND (e.processor_connection_id = f.processor_connection_id"
        " OR (e.processor_connection_id IS NULL AND f.processor_connection_id IS NULL))"
        f" AND e.kind <> 'WAIVER' AND {_kind('e')} = {_kind('f')})"
    )


def _kind(fact: str) -> str:
    # The payment's kind, as services/payments/payment_views.py groups facts.
    return (
        f"CASE {fact}.kind WHEN 'ACCEPTANCE' THEN 'CHARGE' WHEN 'ADJUSTMENT' THEN"
        f" CASE WHEN {fact}.charge_external_id = {fact}.external_id THEN 'CHARGE' ELSE 'DISPUTE' END ELSE {fact}.kind END"
    )
