"""Accounts and their settings."""

from __future__ import annotations

import pytest

from models.errors import AlreadyUsed, Forbidden, Invalid
from models.tables import Account, AuditEntry, User
from services.accounts import accounts, login, users
from services.core.permissions import system_actor
from settings import Settings
from tests.services.conftest import Team


async def test_a_new_account_has_an_owner_who_can_sign_in(configured: Settings) -> None:
    account, owner = await accounts.create_account(
        name="Acme", currency="eur", email="Owner@Acme.test", password="long-enough-1", user_name="Olga"
    )
    assert (account.default_currency, owner.role, owner.email) == ("EUR", "OWNER", "owner@acme.test")
    assert "long-enough-1" not in owner.password_hash
    tokens = await login.sign_in("owner@acme.test", "long-enough-1", client_address=None)
    assert tokens.user_id == owner.id


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"name": " "}, "BLANK", "name"),
        ({"name": "x" * 121}, "TOO_LONG", "name"),
        ({"currency": "EURO"}, "TOO_LONG", "currency"),
        ({"currency": "XYZ"}, "CURRENCY_NOT_SUPPORTED", "currency"),
        ({"email": "nobody"}, "INVALID", "email"),
        ({"email": ""}, "BLANK", "email"),
        ({"password": "short"}, "INVALID", "password"),
        ({"locale": "xx-YY-zz-"}, "INVALID", "locale"),
        ({"time_zone": "Mars/Olympus"}, "INVALID", "timeZone"),
        ({"time_zone": "../etc/passwd"}, "INVALID", "timeZone"),
        ({"time_zone": "posixrules"}, "INVALID", "timeZone"),
        ({"time_zone": "Factory"}, "INVALID", "timeZone"),
        ({"time_zone": "localtime"}, "INVALID", "timeZone"),
    ],
)
async def test_a_bad_account_is_refused_field_by_field(
    configured: Settings, change: dict[str, str], code: str, field: str
) -> None:
    given = {"name": "Acme", "currency": "USD", "email": "o@acme.test", "password": "long-enough-1", "user_name": "O"}
    with pytest.raises(Exception) as refused:  # noqa: PT011 (any refusal: its code is asserted)
        await accounts.create_account(**(given | change))
    assert (getattr(refused.value, "code", None), getattr(refused.value, "field", None)) == (code, (field,))
    assert await Account.all().count() == 0


async def test_an_email_address_signs_in_one_user(team: Team) -> None:
    user = await users.add(team.owner, email="new@example.test", name="New", role="AGENT", password="long-enough-1")
    assert user.account_id == team.account.id
    with pytest.raises(AlreadyUsed):
        await users.add(team.owner, email="NEW@example.test", name="Other", role="AGENT", password="long-enough-1")
    with pytest.raises(Forbidden):
        await users.add(team.agent, email="x@example.test", name="X", role="OWNER", password="long-enough-1")
    assert await User.filter(account_id=team.account.id).count() == 4


async def test_settings_change_only_what_is_given_and_valid(team: Team) -> None:
    changed = await accounts.update_account(
        team.owner,
        changes={"name": "New name", "contact_phone": "(415) 555-0133", "link_message_template": "{amount}: {link}"},
    )
    assert (changed.name, changed.contact_phone, changed.default_currency) == ("New name", "+14155550133", "USD")
    entry = await AuditEntry.get()
    assert entry.detail == {"fields": ["contact_phone", "link_message_template", "name"]}
    for changes, field in (
        ({"link_message_template": "no mark"}, "linkMessageTemplate"),
        ({"link_message_template": "{link} {link}"}, "linkMessageTemplate"),
        ({"link_message_template": "{link} {secret}"}, "linkMessageTemplate"),
        ({"number_prefix": "<b>"}, "numberPrefix"),
        ({"contact_phone": "call me"}, "contactPhone"),
        ({"contact_email": "nobody"}, "contactEmail"),
    ):
        with pytest.raises(Invalid) as refused:
            await accounts.update_account(team.owner, changes={"name": "Other", **changes})
        assert refused.value.field == (field,)
    with pytest.raises(Forbidden):
        await accounts.update_account(team.agent, changes={"name": "Mine"})
    assert (await Account.get(id=team.account.id)).name == "New name"
    assert await AuditEntry.all().count() == 1


async def test_changing_settings_never_turns_back_the_counters(team: Team) -> None:
    await Account.filter(id=team.account.id).update(event_seq=41, request_count=7)
    await accounts.update_account(system_actor(team.account.id), changes={"name": "Later"})
    row = await Account.get(id=team.account.id)
    assert (row.event_seq, row.request_count, row.name) == (42, 7, "Later")  # one entry: account.updated
