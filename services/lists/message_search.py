"""Search of messages by their text, newest first."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from models import database, searching
from services.core import merged_rows
from services.lists import filters, searches
from services.lists.filters import TimeRange
from services.lists.searches import Condition


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageSearch:
    """Raises: Invalid."""

    search: str
    conversation_id: UUID | None = None
    channel_kinds: tuple[str, ...] | None = None
    sent_at: TimeRange | None = None

    def __post_init__(self) -> None:
        filters.checked_search(self.search)


async def condition(account_id: UUID, wanted: MessageSearch) -> Condition:
    """A condition on message."""
    terms = searching.terms(wanted.search)
    if not terms or wanted.channel_kinds == ():
        return Condition("1 = 0", [], few=True)
    where, values, few = await searches.messages_matching(account_id, terms)
    if wanted.conversation_id is not None:
        conversation = await merged_rows.conversation(account_id, wanted.conversation_id)
        ids = merged_rows.ids_of(conversation) if conversation is not None else [wanted.conversation_id]
        where += f" AND conversation_id IN ({database.placeholders(len(ids))})"
        values += ids
        few = True
    if wanted.channel_kinds is not None:
        where += f" AND kind IN ({database.placeholders(len(wanted.channel_kinds))})"
        values += wanted.channel_kinds
    bounds = wanted.sent_at or TimeRange()
    for clause, bound in ((" AND occurred_at >= ?", bounds.start), (" AND occurred_at < ?", bounds.end)):
        if bound is not None:
            where += clause
            values.append(bound)
    account = database.OF_ACCOUNT if few else "account_id = ?"
    return Condition(f"{account} AND {where}", [account_id, *values], few)
