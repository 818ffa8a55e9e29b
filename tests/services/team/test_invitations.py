"""Invitations: who may invite whom; a link works once, for seven days, and says nothing else."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest

from models.errors import AlreadyUsed, Blank, Forbidden, Invalid, LinkInvalid, NotFound, RateLimited, Refusal
from models.ids import public_id, uuid7
from models.tables import AuditEntry, Invitation, Job, Notification, User
from services.accounts import accounts, login, users
from services.core.permissions import ROLES, Actor, system_actor
from services.team import invitations
from tests.configured import configure
from tests.contracts.smtp_server import MailServer
from tests.flows import probes
from tests.services.conftest import kinds_logged
from tests.services.team.conftest import BASE, PASSWORD, actor_of, run_jobs, settings, token_in, with_mail


async def invite(actor: Actor, email: str = "nora@acme.test", role: str = "AGENT", name: str | None = None) -> str:
    """The token."""
    invited = await invitations.invite(actor, email=email, name=name, role=role)
    assert invited.link is not None
    assert invited.link.startswith(f"{BASE}/join#")
    return invited.link.partition("#")[2]


async def accept(token: str, name: str | None = "Nora", password: str = PASSWORD) -> User:
    return await invitations.accept(token, name=name, password=password, client_address="203.0.113.7")


async def refusal_of(token: str) -> tuple[str, str, object]:
    with pytest.raises(Refusal) as refused:
        await accept(token)
    return refused.value.code, refused.value.message, refused.value.field


async def test_an_invited_person_chooses_name_and_password_and_signs_in(owner: User) -> None:
    actor = actor_of(owner)
    user = await accept(await invite(actor, " NORA@Acme.test", name="Nora B."), name=None)
    assert (user.email, user.name, user.role, user.account_id) == (
        "nora@acme.test",
        "Nora B.",
        "AGENT",
        owner.account_id,
    )
    await login.sign_in("nora@acme.test", PASSWORD, client_address=None)
    row = await Invitation.get()
    assert (row.user_id, row.accepted_at is not None) == (user.id, True)
    entries = await AuditEntry.filter(subject__startswith="inv_").order_by("id")
    assert [(e.action, e.actor_id) for e in entries] == [
        ("invitation.created", owner.id),
        ("invitation.accepted", user.id),
    ]
    assert await kinds_logged(owner.account_id) == ["user.updated", "user.updated", "notification.created"]
    told = await Notification.get()
    assert (told.user_id, told.kind, told.title) == (owner.id, "JOINED", "Nora B. has joined")


async def test_unknown_used_revoked_replaced_and_expired_links_give_one_answer(owner: User) -> None:
    actor = actor_of(owner)
    used = await invite(actor, "used@acme.test")
    await accept(used)
    revoked = await invite(actor, "revoked@acme.test")
    row = await Invitation.get(email="revoked@acme.test")
    await invitations.revoke(actor, row.id)
    replaced = await invite(actor, "replaced@acme.test")
    resent = await invitations.resend(actor, (await Invitation.get(email="replaced@acme.test")).id)
    expired = await invite(actor, "expired@acme.test")
    past = datetime.now(UTC) - timedelta(seconds=1)
    await Invitation.filter(email="expired@acme.test").update(expires_at=past)
    answers = [
        await refusal_of(token) for token in (used, revoked, replaced, expired, "A" * 43, "", "x" * 5000, "\x00")
    ]
    assert answers == [("LINK_INVALID", LinkInvalid.__doc__, ("token",))] * 8
    assert await User.all().count() == 2
    assert resent.link is not None
    assert (await accept(resent.link.partition("#")[2])).email == "replaced@acme.test"


async def test_two_accepts_at_once_make_one_user(owner: User) -> None:
    token = await invite(actor_of(owner))
    ended = await asyncio.gather(*(accept(token, f"Nora {n}") for n in range(5)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["LinkInvalid"] * 4 + ["User"]
    assert await User.filter(email="nora@acme.test").count() == 1


async def test_every_wrong_field_is_named_and_the_link_stays(owner: User) -> None:
    token = await invite(actor_of(owner))
    for name, password, codes in (
        (None, "short", [("BLANK", ("name",)), ("INVALID", ("password",))]),
        ("N" * 121, PASSWORD, [("TOO_LONG", ("name",))]),
        ("Nora", "x" * 257, [("INVALID", ("password",))]),
    ):
        with pytest.raises(Refusal) as refused:
            await accept(token, name, password)
        assert [(each.code, each.field) for each in refused.value.all] == codes
    await accept(token)


async def test_an_address_with_a_user_anywhere_is_refused_before_and_after_inviting(owner: User) -> None:
    actor = actor_of(owner)
    other, _ = await accounts.create_account(
        name="Other", currency="USD", email="o@other.test", password=PASSWORD, user_name="O"
    )
    with pytest.raises(AlreadyUsed):
        await invite(actor, "O@other.test")
    token = await invite(actor)
    with pytest.raises(AlreadyUsed, match="open invitation"):
        await invite(actor, "Nora@acme.test")
    await users.add(system_actor(other.id), email="nora@acme.test", name="N", role="AGENT", password=PASSWORD)
    assert (await refusal_of(token))[0] == "ALREADY_USED"
    assert (await Invitation.get()).accepted_at is None


async def test_an_expired_invitation_makes_room_for_a_new_one_and_invites_at_once_make_one(owner: User) -> None:
    actor = actor_of(owner)
    await invite(actor)
    await Invitation.all().update(expires_at=datetime.now(UTC))
    ended = await asyncio.gather(*(invite(actor) for _ in range(4)), return_exceptions=True)
    assert sorted(type(one).__name__ for one in ended) == ["AlreadyUsed"] * 3 + ["str"]
    assert await Invitation.filter(revoked_at=None).count() == 1


@pytest.mark.parametrize("role", ROLES)
async def test_who_may_invite_whom(owner: User, role: str) -> None:
    user = await users.add(actor_of(owner), email="me@acme.test", name="Me", role=role, password=PASSWORD)
    may = {"OWNER": set(ROLES), "ADMIN": {"AGENT", "VIEWER"}}.get(role, set())
    done = set()
    for wanted in ROLES:
        await invite(actor_of(owner), f"theirs-{wanted.lower()}@acme.test", wanted)
        row = await Invitation.get(email=f"theirs-{wanted.lower()}@acme.test")
        for attempt in (
            lambda wanted=wanted: invite(actor_of(user), f"{wanted.lower()}@acme.test", wanted),
            lambda row=row: invitations.resend(actor_of(user), row.id),
            lambda row=row: invitations.revoke(actor_of(user), row.id),
        ):
            if wanted in may:
                await attempt()
                done.add(wanted)
            else:
                with pytest.raises(Forbidden):
                    await attempt()
    assert done == may


async def test_who_loses_a_role_loses_the_invitations_that_it_allowed(owner: User) -> None:
    actor = actor_of(owner)
    other = await users.add(actor, email="second@acme.test", name="B", role="OWNER", password=PASSWORD)
    tokens = {role: await invite(actor_of(other), f"{role.lower()}@acme.test", role) for role in ROLES}
    await users.set_role(actor, other.id, "ADMIN")
    kept = await Invitation.filter(revoked_at=None)
    assert sorted(row.role for row in kept) == ["AGENT", "VIEWER"]
    with pytest.raises(Forbidden):  # the cached role of a moment ago
        await invite(actor_of(other), "late@acme.test", "OWNER")
    await users.disable(actor, other.id)
    assert [(await refusal_of(token))[0] for token in tokens.values()] == ["LINK_INVALID"] * 4


async def test_an_invitation_belongs_to_its_account(owner: User) -> None:
    await invite(actor_of(owner))
    row = await Invitation.get()
    other, _ = await accounts.create_account(
        name="Other", currency="USD", email="o@other.test", password=PASSWORD, user_name="O"
    )
    for attempt in (invitations.resend, invitations.revoke):
        for id in (row.id, uuid7()):
            with pytest.raises(NotFound):
                await attempt(system_actor(other.id), id)
    await accept(await invite(actor_of(owner), "b@acme.test"))
    accepted = await Invitation.get(email="b@acme.test")
    for attempt in (invitations.resend, invitations.revoke):
        with pytest.raises(Invalid):
            await attempt(actor_of(owner), accepted.id)


async def test_a_repeat_with_the_same_key_invites_once_and_shows_no_link(owner: User) -> None:
    given = {"email": "nora@acme.test", "name": None, "role": "AGENT", "idempotency_key": "key-of-one-invitation"}
    first = await invitations.invite(actor_of(owner), **given)  # type: ignore[arg-type]  # a dict of keywords
    again = await invitations.invite(actor_of(owner), **given)  # type: ignore[arg-type]  # a dict of keywords
    assert (first.row.id, again.link) == (again.row.id, None)
    assert first.link is not None
    assert await Invitation.all().count() == 1
    with pytest.raises(Blank):
        await invitations.invite(actor_of(owner), email=" ", name=None, role="AGENT")


async def test_guessing_and_mass_invitations_are_limited(owner: User) -> None:
    configure(settings(token_limit="3/minute", invitation_limit="2/day"))
    for _ in range(3):
        assert (await refusal_of("A" * 43))[0] == "LINK_INVALID"
    assert (await refusal_of("A" * 43))[0] == "RATE_LIMITED"
    actor = actor_of(owner)
    await invite(actor, "a@acme.test")
    await invitations.resend(actor, (await Invitation.get()).id)
    with pytest.raises(RateLimited):
        await invite(actor, "b@acme.test")
    assert await Invitation.all().count() == 1


# ------------------------------------------------------------------------------------------------------------- email
async def test_the_link_goes_out_by_email_and_is_nowhere_else(
    owner: User, mail: MailServer, capsys: pytest.CaptureFixture[str]
) -> None:
    invited = await invitations.invite(actor_of(owner), email="nora@acme.test", name="Nora", role="AGENT")
    assert invited.link is None
    assert await run_jobs() == []
    (letter,) = mail.letters
    token = token_in(mail)
    assert (letter.recipients, letter.message["Subject"]) == (["nora@acme.test"], "Invitation to Acme")
    assert letter.message["From"] == "Paythread <desk@installation.test>"
    row = await Invitation.get()
    assert (row.emailed_at is not None, row.email_error) == (True, None)
    assert token not in json.dumps(await probes.snapshot())
    captured = capsys.readouterr()
    assert token not in captured.out + captured.err
    await accept(token)


async def test_a_replaced_or_revoked_invitation_is_not_emailed(owner: User, mail: MailServer) -> None:
    actor = actor_of(owner)
    invited = await invitations.invite(actor, email="nora@acme.test", name=None, role="AGENT")
    await invitations.resend(actor, invited.row.id)
    assert await run_jobs() == []
    assert len(mail.letters) == 1
    again = await invitations.invite(actor, email="b@acme.test", name=None, role="AGENT")
    await invitations.revoke(actor, again.row.id)
    assert await run_jobs() == []
    assert len(mail.letters) == 1


async def test_a_busy_server_is_tried_again_and_a_refused_address_is_shown(owner: User, mail: MailServer) -> None:
    actor = actor_of(owner)
    mail.refusals["nora@acme.test"] = "451 4.3.0 later"
    await invitations.invite(actor, email="nora@acme.test", name=None, role="AGENT")
    assert await run_jobs() == ["MailUnavailable"]
    assert await Job.filter(status="queued", kind="team.send_mail").count() == 1
    mail.refusals.clear()
    assert await run_jobs() == []
    assert len(mail.letters) == 1
    mail.refusals["gone@acme.test"] = "550 5.1.1 no such user"
    await invitations.invite(actor, email="gone@acme.test", name=None, role="AGENT")
    assert await run_jobs() == ["Permanent"]
    row = await Invitation.get(email="gone@acme.test")
    assert row.email_error is not None
    mail.refusals.clear()
    await invitations.resend(actor, row.id)
    assert await run_jobs() == []
    assert (await Invitation.get(id=row.id)).email_error is None


async def test_the_server_may_need_a_login(owner: User) -> None:
    async with MailServer() as server:
        configure(with_mail(server, smtp_username="mailer"))
        await invitations.invite(actor_of(owner), email="nora@acme.test", name="N", role="AGENT")
        assert await run_jobs() == ["MailUnavailable"]  # this one has none
    assert public_id("inv", (await Invitation.get()).id).startswith("inv_")
