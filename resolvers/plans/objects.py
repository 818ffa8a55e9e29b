"""Objects that services compute from rows: what loads them, and how their fields are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from types import SimpleNamespace
from typing import Any, Final, TypeAlias
from uuid import UUID

from graphql import FieldNode

from models.database import to_time
from models.ids import public_id
from models.ledger import dispute_state
from resolvers.plans.selections import ActorSelection, Built, ObjectReader, Run
from resolvers.transport.executor import NotPlanned
from schema import reasons
from schema.scalars import ProcessorKind, time_text
from services.core.actors import ActorRef
from services.core.permissions import allows
from services.payments import mismatches, payment_requests, payment_views, refund_views, refunds
from services.payments.payment_views import PaymentView


@dataclass(frozen=True)
class Sum:
    """A Money object; null where `minor` is."""

    minor: Callable[[Any], int | None]
    currency: Callable[[Any], str]


@dataclass(frozen=True)
class ObjectBy:
    """An object of the union Actor; null without one."""

    ref: Callable[[Any], ActorRef | None]


@dataclass(frozen=True)
class ObjectOf:
    """Another object of these; null without one. Its fields may have no actors."""

    type_name: str
    of: Callable[[Any], Any]


ObjectField: TypeAlias = Callable[[Any], Any] | Sum | ObjectBy | ObjectOf


def _name(member: Enum | None) -> str | None:
    return member.name if member is not None else None


def _time(at: datetime | None) -> str | None:
    return time_text(at) if at is not None else None


def _of_view(minor: Callable[[Any], int | None]) -> Sum:
    return Sum(minor, lambda view: view.currency)


def _processor_kind(view: PaymentView) -> str | None:
    if view.processor is None:
        return None
    name = view.processor.upper()
    return name if name in ProcessorKind.__members__ else "CUSTOM"


# Type -> field -> its reader.
OBJECTS: Final[Mapping[str, Mapping[str, ObjectField]]] = {
    "Payment": {
        "id": lambda view: public_id("pay", view.id),
        "kind": lambda view: view.kind,
        "status": lambda view: view.status,
        "amount": _of_view(lambda view: view.amount_minor),
        "counted": lambda view: view.counted,
        "fee": _of_view(lambda view: view.fee_minor),
        "net": _of_view(lambda view: None if view.fee_minor is None else view.amount_minor - view.fee_minor),
        "processorKind": _processor_kind,
        "processorReference": lambda view: view.processor_reference if view.processor is not None else None,
        "methodSummary": lambda view: view.method_summary,
        "failureMessage": lambda view: view.failure_message,
        "note": lambda view: view.note,
        "createdAt": lambda view: time_text(view.occurred_at),
        "recordedBy": ObjectBy(lambda view: view.recorded_by),
    },
    "Refund": {
        "id": lambda view: public_id("rfd", view.id),
        "status": lambda view: view.status,
        "amount": _of_view(lambda view: view.amount_minor),
        "reason": lambda view: view.reason,
        "createdAt": lambda view: time_text(view.created_at),
        "failureMessage": lambda view: view.failure_message,
        "requestedBy": ObjectBy(lambda view: view.requested_by),
        "charge": ObjectOf("Payment", lambda view: view.charge),
        "payment": ObjectOf("Payment", lambda view: view.payment),
    },
    "Dispute": {
        "id": lambda view: public_id("dsp", view.id),
        "state": lambda view: dispute_state(view.status),
        "amount": _of_view(lambda view: view.amount_minor),
        "isInquiry": lambda view: view.inquiry,
        "reason": lambda view: _name(reasons.of_dispute(view.dispute_reason)),
        "processorReason": lambda view: view.dispute_reason,
        "responseDueAt": lambda view: _time(view.response_due_at),
        "openedAt": lambda view: time_text(view.occurred_at),
        "closedAt": lambda view: time_text(view.last_at) if view.status != "PENDING" else None,
        "payment": ObjectOf("Payment", lambda view: view),
    },
    "AvailableAction": {
        "action": lambda found: found[0],
        "resultingStatus": lambda found: found[1],
    },
}


def object_reader(
    type_name: str,
    selected: Mapping[str, list[FieldNode]],
    *,
    money: Callable[[list[FieldNode]], Callable[..., Built]],
    actor: Callable[[list[FieldNode]], ActorSelection],
    other: Callable[[str, list[FieldNode]], ObjectReader],
) -> ObjectReader:
    """`money`, `actor` and `other` compile a selection of these. Raises: NotPlanned."""
    parts: list[tuple[str, Callable[[Any], Any]]] = []
    actors: list[tuple[str, Callable[[Any], ActorRef | None], ActorSelection]] = []
    for response_name, nodes in selected.items():
        name = nodes[0].name.value
        reader = OBJECTS[type_name].get(name)
        if name == "__typename":
            parts.append((response_name, lambda found: type_name))
        elif isinstance(reader, Sum):
            parts.append((response_name, _sum(reader, money(nodes))))
        elif isinstance(reader, ObjectBy):
            parts.append((response_name, lambda found: None))  # keeps its place
            actors.append((response_name, reader.ref, actor(nodes)))
        elif isinstance(reader, ObjectOf):
            parts.append((response_name, _other(reader, other(reader.type_name, nodes))))
        elif reader is not None:
            parts.append((response_name, reader))
        else:
            raise NotPlanned

    def make(found: Any, loaded: Sequence[Mapping[ActorRef | None, Built | None]]) -> Built:
        built = {name: read(found) for name, read in parts}
        for (name, ref, _), by_ref in zip(actors, loaded, strict=True):
            built[name] = by_ref[ref(found)]
        return built

    return ObjectReader(make, [(ref, selection) for _, ref, selection in actors])


def _other(reader: ObjectOf, built_by: ObjectReader) -> Callable[[Any], Built | None]:
    if built_by.actors:
        raise NotPlanned

    def read(found: Any) -> Built | None:
        one = reader.of(found)
        return built_by.make(one, ()) if one is not None else None

    return read


def _sum(reader: Sum, build: Callable[..., Built]) -> Callable[[Any], Built | None]:
    def read(found: Any) -> Built | None:
        minor = reader.minor(found)
        return build(minor, reader.currency(found)) if minor is not None else None

    return read


Loaded: TypeAlias = Mapping[Any, Any]  # by the first column's value
Values: TypeAlias = Sequence[tuple[Any, ...]]  # of the columns, per record


def _uuid(value: Any) -> UUID:
    return value if isinstance(value, UUID) else UUID(value)


async def payments(run: Run, values: Values) -> Loaded:
    """By request: its payments. Columns: id."""
    views = await _views(run, [_uuid(id) for (id,) in values])
    return {id: views[_uuid(id)] for (id,) in values}


async def refunds_of_requests(run: Run, values: Values) -> Loaded:
    """By request: its refunds. Columns: id."""
    ids = [_uuid(id) for (id,) in values]
    views = await _views(run, ids)
    found = await refund_views.of_requests(run.records.viewer.account_id, {id: views[id] for id in ids})
    return {id: found[_uuid(id)] for (id,) in values}


async def disputes(run: Run, values: Values) -> Loaded:
    """By request: its disputes. Columns: id."""
    views = await _views(run, [_uuid(id) for (id,) in values])
    return {id: [view for view in views[_uuid(id)] if view.kind == "DISPUTE"] for (id,) in values}


async def payments_of_facts(run: Run, values: Values) -> Loaded:
    """By fact: its payment. Columns: the fact's id."""
    found = await payment_views.by_facts(run.records.viewer.account_id, [_uuid(id) for (id,) in values])
    return {id: found.get(_uuid(id)) for (id,) in values}


ACTION_COLUMNS: Final = (
    "id",
    "unresolved",
    "status",
    "discarded_at",
    "released_at",
    "releasable_at",
    "void_requested_at",
)


async def actions(run: Run, values: Values) -> Loaded:
    """By request: what its resolver in `schema/` gives. Columns: ACTION_COLUMNS."""
    viewer = run.records.viewer
    asked = [_uuid(row[0]) for row in values if allows(viewer.role, "refund") or _waits(viewer.role, row[1])]
    views = await _views(run, asked)
    left = await refunds.refundable(viewer.account_id, {id: views[id] for id in asked})
    return {row[0]: _actions(viewer.role, row, views, left) for row in values}


def _waits(role: str, unresolved: object) -> bool:
    return bool(unresolved) and allows(role, "request_payment")


def _actions(
    role: str,
    row: tuple[Any, ...],
    views: Mapping[UUID, Sequence[PaymentView]],
    left: Mapping[UUID, Mapping[UUID, int]],
) -> list[tuple[str, str | None]]:
    id, unresolved, status, *moments = row
    names = ACTION_COLUMNS[3:]
    request: Any = SimpleNamespace(status=status, **dict(zip(names, map(to_time, moments), strict=True)))
    refundable = left.get(_uuid(id), {})
    resolvable = _waits(role, unresolved) and mismatches.resolvable(views[_uuid(id)], refundable)
    return payment_requests.available_actions(request, role, refundable=bool(refundable), resolvable=resolvable)


async def _views(run: Run, ids: Sequence[UUID]) -> Mapping[UUID, Sequence[PaymentView]]:
    missing = [id for id in ids if id not in run.payments]
    if missing:
        run.payments.update(await payment_views.payments(run.records.viewer.account_id, missing))
    return run.payments
