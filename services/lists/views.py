"""Saved views: a filter and an order with a name, of one user or shared by the account."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal
from uuid import UUID

from models import database, rows
from models.errors import Forbidden, Invalid, LimitReached, NotFound, Refusals
from models.ids import public_id, uuid7
from models.tables import SavedView
from services.core import audit_log, idempotency, validation
from services.core.permissions import Actor
from services.core.unit_of_work import Change, change
from services.lists import view_log
from services.lists.subjects import Wanted

NAME_LIMIT: Final = 80
MOST_OWN: Final = 50  # of one user
MOST_SHARED: Final = 200  # of one account


@dataclass(frozen=True, slots=True)
class Named:
    """An id in a filter. `id` None: malformed. `field`: its path in the input."""

    table: Table
    id: UUID | None
    field: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Content:
    """What a view lists. `given`: the filter as the client gave it. `names`: the ids in it."""

    wanted: Wanted
    given: Mapping[str, Any]
    names: Sequence[Named] = ()


Read = Callable[[], Content]  # raises: Invalid
Table = Literal["contact", "user_account", "processor_connection"]


def owner_of(actor: Actor) -> UUID | None:
    """The user whose own views the actor may use; None: no one's."""
    return actor.user_id if actor.kind == "user" and actor.may("message") else None


def may_see(actor: Actor, view: SavedView) -> bool:
    return view.owner_user_id is None or view.owner_user_id == owner_of(actor)


async def find(actor: Actor, id: UUID) -> SavedView | None:
    """None also for another user's view."""
    row = await rows.first(SavedView, "WHERE id = ? AND account_id = ?", id, actor.account_id)
    return row if row is not None and may_see(actor, row) else None


async def create(
    actor: Actor, *, name: str, listed: Mapping[str, Any], read: Read, shared: bool, idempotency_key: str | None = None
) -> SavedView:
    """`listed`: what `read` reads. Raises: Forbidden, Blank, TooLong, Invalid, NotFound (an id in the filter), LimitReached."""
    _require(actor, shared=shared)
    owner_id = None if shared else actor.user_id
    given = {"name": name, "shared": shared, "list": listed}

    async def run(save: idempotency.Save) -> SavedView:
        refusals = Refusals()
        with refusals:
            kept_name = validation.required(name, limit=NAME_LIMIT, field="name")
        with refusals:
            content = read()
            await _check_ids(actor.account_id, content.names)
        refusals.raise_any()
        async with change(
            actor.account_id, actor=actor.ref, queue_on=[owner_id] if owner_id is not None else []
        ) as changed:
            await _refuse_too_many(actor.account_id, owner_id)
            view = rows.new(
                SavedView,
                id=uuid7(),
                account_id=actor.account_id,
                owner_user_id=owner_id,
                name=kept_name,
                **_stored(content),
            )
            await rows.add([view])
            await _log(changed, actor, view_log.CREATED, view)
            await save({"view": str(view.id)})
        return view

    async def rebuild(ids: dict[str, Any]) -> SavedView:
        view = await find(actor, UUID(ids["view"]))
        if view is None:
            raise NotFound
        return view

    return await idempotency.once(actor, "createView", idempotency_key, given, run, rebuild)


async def update(actor: Actor, id: UUID, *, name: str | None = None, read: Read | None = None) -> SavedView:
    """Raises: Forbidden, NotFound, Blank, TooLong, Invalid."""
    content: Content | None = None
    async with change(actor.account_id, actor=actor.ref, queue_on=[id]) as changed:
        refusals = Refusals()
        view: SavedView | None = None
        with refusals:
            view = await _lock(actor, id)
        with refusals:
            kept_name = validation.required(name, limit=NAME_LIMIT, field="name") if name is not None else None
        with refusals:
            if read is not None:
                content = read()
                await _check_ids(actor.account_id, content.names)
                if view is not None and _stored(content)["subject"] != view.subject:
                    raise Invalid("A view keeps listing what it lists; create another one.", field="list")
        refusals.raise_any()
        assert view is not None  # noqa: S101 (refused above)
        new: dict[str, Any] = {"name": kept_name} if kept_name is not None else {}
        if content is not None:
            new |= _stored(content)
        new = {field: value for field, value in new.items() if getattr(view, field) != value}
        if new:
            view.update_from_dict(new)
            await rows.update(view, [*new, "updated_at"])
            await _log(changed, actor, view_log.UPDATED, view, new)
        return view


async def delete(actor: Actor, id: UUID) -> SavedView:
    """Raises: Forbidden, NotFound."""
    async with change(actor.account_id, actor=actor.ref, queue_on=[id]) as changed:
        view = await _lock(actor, id)
        await database.execute("DELETE FROM saved_view WHERE id = ?", id)
        await _log(changed, actor, view_log.DELETED, view)
        return view


def public_id_of(view: SavedView) -> str:
    return public_id("prv" if view.subject == "PAYMENT_REQUEST" else "cvv", view.id)


def _require(actor: Actor, *, shared: bool) -> None:
    if shared:
        actor.require("settings")
    elif owner_of(actor) is None:
        raise Forbidden("Only a user who may write messages has views of its own.")


def _stored(content: Content) -> dict[str, Any]:
    order = content.wanted.order
    return {
        "subject": content.wanted.subject.value,
        "conditions": dict(content.given),
        "order_field": order.field,
        "descending": order.descending,
    }


async def _lock(actor: Actor, id: UUID) -> SavedView:
    actor.require("message")
    view = await rows.first(SavedView, "WHERE id = ? AND account_id = ?", id, actor.account_id, lock=True)
    if view is None or not may_see(actor, view):
        raise NotFound(field="viewId")
    if view.owner_user_id is None:
        actor.require("settings")
    return view


async def _refuse_too_many(account_id: UUID, owner_id: UUID | None) -> None:
    # The lock lets one count at a time.
    if owner_id is None:
        await database.records(f"SELECT id FROM account WHERE id = ?{database.row_lock()}", account_id)  # noqa: S608 (only constants are put in)
        count = "SELECT count(*) FROM saved_view WHERE account_id = ? AND owner_user_id IS NULL"
        found, most = await database.records(count, account_id), MOST_SHARED
    else:
        await database.records(f"SELECT id FROM user_account WHERE id = ?{database.row_lock()}", owner_id)  # noqa: S608 (only constants are put in)
        count = "SELECT count(*) FROM saved_view WHERE account_id = ? AND owner_user_id = ?"
        found, most = await database.records(count, account_id, owner_id), MOST_OWN
    if found[0][0] >= most:
        raise LimitReached(f"At most {most} {'shared views' if owner_id is None else 'views of one user'}.")


async def _check_ids(account_id: UUID, names: Sequence[Named]) -> None:
    refusals = Refusals()
    for table in sorted({one.table for one in names}):
        ids = {one.id for one in names if one.table == table and one.id is not None}
        sql = f"SELECT id FROM {table} WHERE {database.OF_ACCOUNT} AND id IN ({database.placeholders(len(ids) or 1)})"  # noqa: S608 (only constants are put in)
        records = await database.records(sql, account_id, *ids) if ids else ()
        known = {database.to_uuid(record[0]) for record in records}
        for one in names:
            if one.table == table and one.id not in known:
                with refusals:
                    raise NotFound(field=one.field)
    refusals.raise_any()


async def _log(changed: Change, actor: Actor, kind: str, view: SavedView, fields: Collection[str] = ()) -> None:
    view_log.log(changed, kind, view.id, fields)
    await audit_log.record(actor, kind, public_id_of(view), {"fields": sorted(fields)} if fields else None)
