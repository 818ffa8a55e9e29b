"""Filters as SQL conditions, equal on both engines. A condition may read ids of candidates first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final, TypeVar
from uuid import UUID

from models import database, ledger, searching
from services.lists import searches
from services.lists.filters import ContactFilter, ConversationFilter, MoneyRange, PaymentRequestFilter, TimeRange
from services.lists.orders import Order
from services.lists.searches import Condition

F = TypeVar("F", PaymentRequestFilter, ConversationFilter, ContactFilter)
Leaf = Callable[["Scope", Any], Awaitable[Condition]]

# Conditions on payment_request; their value is the time.
# For lists of the account, which payment_request_overdue serves.
OVERDUE: Final = f"(due_at IS NOT NULL AND due_at < ? AND {ledger.OUTSTANDING_SQL})"
# For requests of given contacts: no index of the account's overdue requests serves it.
OVERDUE_OF_CONTACTS: Final = f"(coalesce(due_at < ?, FALSE) AND {ledger.OUTSTANDING_SQL})"
# With a part that each row meets: the index payment_request_open_due serves only statements that name it.
_OPEN_BY_DUE_DATE: Final = f"{ledger.OUTSTANDING_SQL} AND amount_minor > 0"
# Money or a dispute waits for the team, or the contact did not get the link of an open request.
NEEDS_ATTENTION: Final = (
    "(unresolved = TRUE OR excess_minor > 0 OR late_minor > 0 OR dispute_state = 'NEEDS_RESPONSE'"
    f" OR (delivery_state = 'FAILED' AND {ledger.OUTSTANDING_SQL}))"
)
_HAS_OPEN_REQUEST: Final = "EXISTS (SELECT 1 FROM contact_summary s WHERE s.contact_id = {} AND s.open_count > 0)"
_KEPT_CONTACT: Final = (
    "(SELECT coalesce(m.merged_into_id, m.id) FROM contact m WHERE m.id = payment_request.contact_id)"
)
_TAGGED: Final = {
    "sqlite": "EXISTS (SELECT 1 FROM json_each({}) tag WHERE tag.value IN ({}))",
    "postgres": "EXISTS (SELECT 1 FROM jsonb_array_elements_text({}) tag WHERE tag IN ({}))",
}
_HAS_KIND: Final = {"sqlite": "instr(channel_kinds, ?) > 0", "postgres": "strpos(channel_kinds, ?) > 0"}


class Scope:
    """What a filter is applied to: the rows of an account, or the requests of some contacts."""

    def __init__(self, account_id: UUID, contacts: Sequence[UUID] | None = None) -> None:
        self.account_id = account_id
        self.contacts = contacts
        self.now = datetime.now(UTC)


async def of_payment_requests(
    account_id: UUID, filter: PaymentRequestFilter, contacts: Sequence[UUID] | None = None
) -> Condition:
    """A condition on payment_request. `contacts`: only requests to one of these rows."""
    parts = [Condition("discarded_at IS NULL", [], few=False)]
    if contacts is not None:
        parts.append(Condition(f"contact_id IN ({database.placeholders(len(contacts))})", [*contacts], few=True))
    return _listed(account_id, [*parts, await _whole(Scope(account_id, contacts), filter, _REQUEST)])


async def pages_of_payment_requests(
    account_id: UUID, filter: PaymentRequestFilter, contacts: Sequence[UUID] | None, order: Order
) -> list[Condition]:
    """As `of_payment_requests`, in parts without common rows: an index has the rows of each part in their order."""
    status = filter.status or ()
    due = order.field == "DUE_AT" and (bool(filter.overdue) or (bool(status) and {*status} <= {*ledger.OUTSTANDING}))
    more = f" AND {_OPEN_BY_DUE_DATE}" if due and contacts is None else ""
    if len(status) > 1 and contacts is None and not filter.overdue and order.field == "CREATED_AT":
        rest = await of_payment_requests(account_id, replace(filter, status=None))
        if not rest.few:
            return [Condition(f"{rest.where} AND status = ?", [*rest.values, one], few=False) for one in status]
    where, values, few = await of_payment_requests(account_id, filter, contacts)
    return [Condition(where + more, values, few)]


async def of_conversations(account_id: UUID, filter: ConversationFilter) -> Condition:
    """A condition on conversation."""
    parts = [Condition("merged_into_id IS NULL", [], few=False)]
    return _listed(account_id, [*parts, await _whole(Scope(account_id), filter, _CONVERSATION)])


async def of_contacts(account_id: UUID, filter: ContactFilter) -> Condition:
    """A condition on contact."""
    parts = [Condition("merged_into_id IS NULL", [], few=False)]
    return _listed(account_id, [*parts, await _whole(Scope(account_id), filter, _CONTACT)])


def _listed(account_id: UUID, parts: Sequence[Condition]) -> Condition:
    whole = _all_of(parts)
    account = database.OF_ACCOUNT if whole.few else "account_id = ?"
    return Condition(f"{account} AND {whole.where}", [account_id, *whole.values], whole.few)


async def _whole(scope: Scope, filter: F, leaves: Mapping[str, Leaf]) -> Condition:
    parts = [await leaves[name](scope, value) for name, value in filter.conditions]
    parts += [await _whole(scope, one, leaves) for one in filter.and_]
    if filter.or_ is not None:
        parts.append(_any_of([await _whole(scope, one, leaves) for one in filter.or_]))
    if filter.not_ is not None:
        inner = await _whole(scope, filter.not_, leaves)
        parts.append(Condition(f"NOT coalesce({inner.where}, FALSE)", inner.values, few=False))
    return _all_of(parts)


def _all_of(parts: Sequence[Condition]) -> Condition:
    wanted = [part for part in parts if part.where != "TRUE"]
    if not wanted:
        return Condition("TRUE", [], few=False)
    values = [value for part in wanted for value in part.values]
    return Condition(" AND ".join(part.where for part in wanted), values, any(part.few for part in wanted))


def _any_of(parts: Sequence[Condition]) -> Condition:
    if not parts:
        return _NOTHING
    values = [value for part in parts for value in part.values]
    return Condition(f"({' OR '.join(f'({part.where})' for part in parts)})", values, all(part.few for part in parts))


_NOTHING: Final = Condition("1 = 0", [], few=False)


# --- conditions ------------------------------------------------------------------------------------------------------
def _plain(where: str, values: Sequence[Any] = ()) -> Condition:
    return Condition(where, [*values], few=False)


def _one_of(column: str) -> Leaf:
    async def leaf(scope: Scope, values: Sequence[Any]) -> Condition:
        return _among(column, values)

    return leaf


def _among(column: str, values: Sequence[Any]) -> Condition:
    given = [value for value in values if value is not None]
    clauses = [f"{column} IN ({database.placeholders(len(given))})"] if given else []
    clauses += [f"{column} IS NULL"] if len(given) < len(values) else []
    return _plain(f"({' OR '.join(clauses)})" if len(clauses) > 1 else clauses[0], given) if clauses else _NOTHING


def _during(column: str) -> Leaf:
    async def leaf(scope: Scope, range: TimeRange) -> Condition:
        bounds = [(f"{column} >= ?", range.start), (f"{column} < ?", range.end)]
        given = [(clause, value) for clause, value in bounds if value is not None]
        clauses = [clause for clause, _ in given] or [f"{column} IS NOT NULL"]
        return _plain(" AND ".join(clauses), [value for _, value in given])

    return leaf


def _either(yes: str, no: str) -> Leaf:
    async def leaf(scope: Scope, wanted: bool) -> Condition:
        return _plain(yes if wanted else no)

    return leaf


def _fact(clause: str) -> Leaf:
    return _either(clause, f"NOT {clause}")


async def _overdue(scope: Scope, wanted: bool) -> Condition:
    overdue = OVERDUE if scope.contacts is None else OVERDUE_OF_CONTACTS
    return _plain(overdue if wanted else f"NOT {overdue}", [scope.now])


async def _test_mode(scope: Scope, wanted: bool) -> Condition:
    return _plain("test_mode = ?", [wanted])


async def _amount(scope: Scope, range: MoneyRange) -> Condition:
    bounds = [("amount_minor >= ?", range.minimum_minor), ("amount_minor <= ?", range.maximum_minor)]
    given = [(clause, value) for clause, value in bounds if value is not None]
    clauses = ["currency = ?", *(clause for clause, _ in given)]
    return _plain(" AND ".join(clauses), [range.currency, *(value for _, value in given)])


async def _of_contacts(scope: Scope, ids: Sequence[UUID]) -> Condition:
    """Also of rows that are merged with them."""
    if not ids:
        return _NOTHING
    within, values = database.among("id", ids)
    kept = f"SELECT coalesce(merged_into_id, id) FROM contact WHERE {database.OF_ACCOUNT} AND {within}"  # noqa: S608 (only constants are put in)
    found = [row[0] for row in await database.records(kept, scope.account_id, values)]
    within, values = database.among("merged_into_id", found)
    merged = await database.records(f"SELECT id FROM contact WHERE {within}", values)  # noqa: S608 (only constants are put in)
    within, values = database.among("contact_id", list(dict.fromkeys([*found, *(row[0] for row in merged)])))
    return Condition(within, [values], few=True)


async def _of_assignees(scope: Scope, ids: Sequence[UUID | None]) -> Condition:
    assigned = _among("k.assignee_id", ids)
    kept = "conversation v JOIN conversation k ON k.id = coalesce(v.merged_into_id, v.id)"
    where = f"EXISTS (SELECT 1 FROM {kept} WHERE v.id = payment_request.conversation_id AND {assigned.where})"  # noqa: S608 (only constants are put in)
    return _plain(where, assigned.values)


async def _channels_of_requests(scope: Scope, kinds: Sequence[str]) -> Condition:
    of_kind = _among("n.kind", kinds)
    where = "EXISTS (SELECT 1 FROM channel_connection n WHERE n.id = payment_request.channel_connection_id AND {})"
    return _plain(where.format(of_kind.where), of_kind.values)


async def _kinds(scope: Scope, kinds: Sequence[str]) -> Condition:
    return _any_of([_plain(_HAS_KIND[database.dialect()], [f" {kind} "]) for kind in kinds])


def _tagged(of: str) -> Leaf:
    """`of`: the contact's id; "": the row is the contact."""

    async def leaf(scope: Scope, tags: Sequence[str]) -> Condition:
        if not tags:
            return _NOTHING
        test = _TAGGED[database.dialect()].format("c.tags" if of else "tags", database.placeholders(len(tags)))
        where = f"EXISTS (SELECT 1 FROM contact c WHERE c.id = {of} AND {test})" if of else test  # noqa: S608 (only constants are put in)
        return _plain(where, tags)

    return leaf


async def _conversation_tagged(scope: Scope, tags: Sequence[str]) -> Condition:
    if not tags:
        return _NOTHING
    own = _TAGGED[database.dialect()].format("conversation.tags", database.placeholders(len(tags)))
    return _any_of([_plain(own, tags), await _tagged("conversation.contact_id")(scope, tags)])


async def _requests_searched(scope: Scope, search: str) -> Condition:
    return await searches.requests_matching(scope.account_id, search, searching.terms(search))


async def _conversations_searched(scope: Scope, search: str) -> Condition:
    return await searches.conversations_matching(scope.account_id, searching.terms(search))


async def _contacts_searched(scope: Scope, search: str) -> Condition:
    return await searches.contacts_matching(scope.account_id, searching.terms(search))


_REQUEST: Final[Mapping[str, Leaf]] = {
    "status": _one_of("status"),
    "overdue": _overdue,
    "needs_attention": _fact(NEEDS_ATTENTION),
    "refund_state": _one_of("refund_state"),
    "dispute_state": _one_of("dispute_state"),
    "delivery_state": _one_of("delivery_state"),
    "created_at": _during("created_at"),
    "updated_at": _during("updated_at"),
    "due_at": _during("due_at"),
    "paid_at": _during("paid_at"),
    "amount": _amount,
    "contact_ids": _of_contacts,
    "assignee_ids": _of_assignees,
    "channel_kinds": _channels_of_requests,
    "processor_ids": _one_of("processor_connection_id"),
    "tags": _tagged(_KEPT_CONTACT),
    "test_mode": _test_mode,
    "search": _requests_searched,
}
_CONVERSATION: Final[Mapping[str, Leaf]] = {
    "closed": _either("closed_at IS NOT NULL", "closed_at IS NULL"),
    "unread": _either("unread_count > 0", "unread_count = 0"),
    "assignee_ids": _one_of("assignee_id"),
    "channel_kinds": _kinds,
    "tags": _conversation_tagged,
    "has_open_request": _fact(_HAS_OPEN_REQUEST.format("conversation.contact_id")),
    "waiting_since": _during("waiting_since"),
    "search": _conversations_searched,
}
_CONTACT: Final[Mapping[str, Leaf]] = {
    "tags": _tagged(""),
    "search": _contacts_searched,
    "created_at": _during("created_at"),
    "has_open_request": _fact(_HAS_OPEN_REQUEST.format("contact.id")),
}
