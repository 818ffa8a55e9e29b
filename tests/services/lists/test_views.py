"""Saved views: who may use and change them, how many there may be, and what the log says."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from uuid import uuid4

import pytest

from models import errors, event_log
from models.ids import uuid7
from models.tables import AuditEntry, SavedView
from services.core.permissions import Actor
from services.lists import view_log, views
from services.lists.filters import ConversationFilter, PaymentRequestFilter
from services.lists.orders import Order
from services.lists.subjects import Wanted
from services.lists.views import Content, Named
from tests import factories
from tests.services.conftest import Team, actor_of

NEWEST = Order("payment_requests", "CREATED_AT", descending=True)
ACTIVE = Order("conversations", "LAST_ACTIVITY_AT", descending=True)
PAID = Content(Wanted(PaymentRequestFilter(status=("PAID",)), NEWEST), {"status": ["PAID"]})
UNREAD = Content(Wanted(ConversationFilter(unread=True), ACTIVE), {"unread": True})


def key_of(actor: Actor, role: str) -> Actor:
    return replace(actor, role=role, user_id=None, kind="api_key", credential=str(uuid4()))


async def make(actor: Actor, *, shared: bool = False, content: Content = PAID, name: str = "Paid") -> SavedView:
    return await views.create(actor, name=name, listed=content.given, read=lambda: content, shared=shared)


async def test_a_shared_view_is_everyones_and_an_own_one_its_owners(team: Team) -> None:
    shared, own = await make(team.owner, shared=True), await make(team.agent, content=UNREAD)
    other = actor_of(await factories.user(team.account))
    stranger = actor_of(await factories.user(await factories.account(), role="OWNER"))
    everyone = (team.owner, team.agent, team.viewer, other, key_of(team.agent, "VIEWER"), key_of(team.owner, "OWNER"))
    for actor in everyone:
        assert await views.find(actor, shared.id) is not None
        assert (await views.find(actor, own.id) is not None) is (actor is team.agent)
    assert await views.find(stranger, shared.id) is None
    assert await views.find(replace(team.agent, role="VIEWER"), own.id) is None
    # Not even a key that carries the user's id.
    assert await views.find(replace(key_of(team.agent, "AGENT"), user_id=None), own.id) is None


@pytest.mark.parametrize("shared", [False, True])
async def test_who_may_create_change_and_delete(team: Team, shared: bool) -> None:
    admin = actor_of(await factories.user(team.account, role="ADMIN"))
    people = {"OWNER": team.owner, "ADMIN": admin, "AGENT": team.agent, "VIEWER": team.viewer}
    made = await make(team.owner, shared=True)
    for role, person in people.items():
        for actor in (person, key_of(person, role)):
            of_admins = role in ("OWNER", "ADMIN")
            if of_admins if shared else (role != "VIEWER" and actor.kind == "user"):
                view = await make(actor, shared=shared)
                assert view.owner_user_id == (None if shared else actor.user_id)
                assert (await views.update(actor, view.id, name="Other")).name == "Other"
                assert (await views.delete(actor, view.id)).id == view.id
            else:
                with pytest.raises(errors.Forbidden):
                    await make(actor, shared=shared)
            if not of_admins:
                for refused in (views.update(actor, made.id, name="Mine"), views.delete(actor, made.id)):
                    with pytest.raises(errors.Forbidden):
                        await refused


async def test_another_users_view_is_unknown(team: Team) -> None:
    own = await make(team.agent)
    for refused in (views.update(team.owner, own.id, name="Mine"), views.delete(team.owner, own.id)):
        with pytest.raises(errors.NotFound) as caught:
            await refused
        assert caught.value.field == ("viewId",)
    assert (await SavedView.get(id=own.id)).name == "Paid"


@pytest.mark.parametrize("shared", [False, True])
async def test_there_is_a_limit_also_for_calls_at_the_same_time(
    team: Team, shared: bool, monkeypatch: pytest.MonkeyPatch, separate_processes: None
) -> None:
    monkeypatch.setattr(views, "MOST_OWN", 3)
    monkeypatch.setattr(views, "MOST_SHARED", 3)
    made = await asyncio.gather(*(make(team.owner, shared=shared) for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(one, SavedView) for one in made) == 3
    assert sum(isinstance(one, errors.LimitReached) for one in made) == 3
    await make(team.owner, shared=not shared)
    await make(team.agent)
    await views.delete(team.owner, next(one for one in made if isinstance(one, SavedView)).id)
    await make(team.owner, shared=shared)


async def test_all_errors_are_reported_together(team: Team) -> None:
    names = [Named("contact", uuid7(), ("list", "0")), Named("user_account", None, ("list", "1"))]
    with pytest.raises(errors.Refusal) as caught:
        await make(team.owner, name=" ", shared=True, content=replace(PAID, names=names))
    assert [(one.code, one.field) for one in caught.value.all] == [
        ("BLANK", ("name",)),
        ("NOT_FOUND", ("list", "0")),
        ("NOT_FOUND", ("list", "1")),
    ]
    with pytest.raises(errors.TooLong):
        await make(team.owner, name="x" * (views.NAME_LIMIT + 1))


async def test_ids_of_another_account_are_unknown(team: Team) -> None:
    other = await factories.account()
    contact, user = await factories.contact(other), await factories.user(other)
    processor = await factories.processor_connection(other)
    assert team.agent.user_id is not None
    for table, own, foreign in (
        ("contact", team.contact.id, contact.id),
        ("user_account", team.agent.user_id, user.id),
        ("processor_connection", team.processor.id, processor.id),
    ):
        names = [Named(table, own, ("list", "0")), Named(table, foreign, ("list", "1"))]  # type: ignore[arg-type]  # its literals
        with pytest.raises(errors.NotFound) as caught:
            await make(team.owner, content=replace(PAID, names=names))
        assert caught.value.field == ("list", "1")
        await make(team.owner, content=replace(PAID, names=names[:1]))


async def test_a_change_says_what_changed_and_nothing_without_one(team: Team) -> None:
    view = await make(team.owner, shared=True)
    before = (await event_log.heads([team.account.id]))[team.account.id]
    await views.update(team.owner, view.id, name="Paid", read=lambda: PAID)
    assert (await event_log.heads([team.account.id]))[team.account.id] == before
    unpaid = Content(
        Wanted(PaymentRequestFilter(status=("SENT",)), replace(NEWEST, descending=False)), {"status": ["SENT"]}
    )
    changed = await views.update(team.owner, view.id, name="Sent", read=lambda: unpaid)
    assert (changed.name, changed.conditions, changed.descending) == ("Sent", {"status": ["SENT"]}, False)
    with pytest.raises(errors.Invalid):
        await views.update(team.owner, view.id, read=lambda: UNREAD)
    await views.delete(team.owner, view.id)
    entries = await event_log.read(team.account.id, before, 10)
    assert [(entry.kind, entry.data) for entry in entries] == [
        ("view.updated", {"view_id": str(view.id), "fields": ["conditions", "descending", "name"]}),
        ("view.deleted", {"view_id": str(view.id), "fields": []}),
    ]
    assert [view_log.changes_items(entry) for entry in entries] == [True, False]
    assert [entry.action for entry in await AuditEntry.filter(account_id=team.account.id).order_by("id")] == [
        "view.created",
        "view.updated",
        "view.deleted",
    ]


async def test_a_repeated_key_makes_one_view(team: Team) -> None:
    key = str(uuid4())
    first, second = [
        await views.create(team.agent, name="Paid", listed={}, read=lambda: PAID, shared=False, idempotency_key=key)
        for _ in range(2)
    ]
    assert first.id == second.id
    with pytest.raises(errors.IdempotencyKeyParameterMismatch):
        await views.create(team.agent, name="Other", listed={}, read=lambda: PAID, shared=False, idempotency_key=key)
