"""Each payload's description names the codes that its mutation can give: no more and no fewer."""

from __future__ import annotations

import ast
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLObjectType, get_named_type

from models.ids import public_id, uuid7
from models.tables import ChannelConnection, ContactAddress, IdempotencyKey, ProcessorConnection
from schema.payload_codes import CODES
from services.thread import payment_links
from tests import configured as configuration
from tests import factories
from tests.flows import test_bad_input, test_roles
from tests.schema.conftest import SCHEMA, Api
from tests.schema.test_mutations import INPUTS, own_ids, owned
from tests.services.conftest import Team

TESTS = Path(__file__).parents[1]
KEYED = {"IDEMPOTENCY_CONCURRENT_REQUEST", "IDEMPOTENCY_KEY_PARAMETER_MISMATCH"}


def fields() -> dict[str, Any]:
    roots = (SCHEMA._schema.mutation_type, SCHEMA._schema.query_type)
    found = {name: field for root in roots if root is not None for name, field in root.fields.items()}
    return {name: field for name, field in found.items() if name in CODES}


def test_every_mutation_has_its_codes() -> None:
    mutations = SCHEMA._schema.mutation_type
    assert mutations is not None
    assert {*mutations.fields, "messagePreview"} == set(CODES)


@pytest.mark.parametrize("name", sorted(CODES))
def test_the_description_names_the_codes(name: str) -> None:
    payload = get_named_type(fields()[name].type)
    assert isinstance(payload, GraphQLObjectType)
    assert f"Answer of {name}." in (payload.description or "")
    _, _, listed = (payload.description or "").partition("Codes: ")
    assert set(re.findall(r"[A-Z]\w+", listed)) == CODES[name]
    kinds: Any = SCHEMA._schema.type_map["UserErrorCode"]
    assert set(kinds.values) >= CODES[name]


# ------------------------------------------------------------------------------------------------- codes of every sending
async def disconnected(team: Team, kind: str) -> None:
    await ChannelConnection.filter(id=team.channels[kind].id).update(connected=False)


async def not_installed(team: Team, kind: str) -> None:
    await ChannelConnection.filter(id=team.channels[kind].id).update(provider="carrier_pigeon")


async def without_processor(team: Team, kind: str) -> None:
    await ProcessorConnection.all().update(connected=False)


async def without_address(team: Team, kind: str) -> None:
    await ContactAddress.filter(contact_id=team.contact.id, kind=kind).delete()


async def opted_out(team: Team, kind: str) -> None:
    await ContactAddress.filter(id=team.addresses[kind].id).update(opted_out_at=datetime.now(UTC))


async def not_heard(team: Team, kind: str) -> None:
    await ContactAddress.filter(id=team.addresses[kind].id).update(
        last_inbound_at=datetime.now(UTC) - timedelta(hours=25)
    )


Break = Callable[[Team, str], Awaitable[None]]
BREAKS: dict[str, tuple[str, Break]] = {
    "CHANNEL_NOT_CONNECTED": ("SMS", disconnected),
    "CHANNEL_NOT_SUPPORTED": ("SMS", not_installed),
    "NO_PROCESSOR_CONFIGURED": ("SMS", without_processor),
    "CONTACT_HAS_NO_ADDRESS": ("SMS", without_address),
    "CONTACT_OPTED_OUT": ("SMS", opted_out),
    "MESSAGING_WINDOW_CLOSED": ("WHATSAPP", not_heard),
}
SENDING = ("sendMessage", "sendPaymentRequest", "resendMessage", "refundPayment", "messagePreview")
SENT = [(name, code) for name in SENDING for code in BREAKS if code in CODES[name]]


async def send(team: Team, api: Api, name: str, kind: str, *, status: str = "DRAFT", body: str = "") -> list[str]:
    """Send a payment request, or a message with its link, in one of the five ways: the codes."""
    request = await factories.payment_request(team.contact, conversation_id=team.conversation.id, status=status)
    text = body or f"Pay {payment_links.checkout_url(request)}"
    given: dict[str, Any] = {"channelId": public_id("chn", team.channels[kind].id), "idempotencyKey": str(uuid7())}
    if name == "refundPayment":
        paid = await factories.payment_request(team.contact, conversation_id=team.conversation.id, status="PAID")
        charge = await factories.money_fact(paid)
        given["tellContactOn"] = given.pop("channelId")
        given |= {"paymentId": public_id("pay", charge.id), "reason": "OTHER"}
    elif name == "resendMessage":
        failed = await factories.message(
            team.conversation,
            channel_connection_id=team.channels["EMAIL"].id,
            address=team.addresses["EMAIL"].address,
            direction="OUTBOUND",
            delivery_status="FAILED",
            body=text,
        )
        given["messageId"] = public_id("msg", failed.id)
    elif name == "sendPaymentRequest":
        given["paymentRequestId"] = public_id("pr", request.id)
    else:
        given |= {"conversationId": public_id("cnv", team.conversation.id), "body": text}
    if name == "messagePreview":
        given |= {"paymentRequestId": public_id("pr", request.id)} if not body else {}
        del given["idempotencyKey"]
        document = "query($input: MessagePreviewInput!) { messagePreview(input: $input) { userErrors { code } } }"
        answer = await api.one(document, {"input": given}, viewer=team.owner)
    else:
        answer = await api.run(name, given, "__typename", viewer=team.owner)
    return [error["code"] for error in answer["userErrors"]]


@pytest.mark.parametrize(("name", "code"), SENT)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_every_way_to_send_is_refused_for_the_channels_reason(team: Team, api: Api, name: str, code: str) -> None:
    kind, breaks = BREAKS[code]
    await breaks(team, kind)
    assert await send(team, api, name, kind) == [code]


CLOSED = [
    (name, code)
    for name in ("resendMessage", "messagePreview")
    for code in ("ALREADY_PAID", "ALREADY_VOID", "TOO_LONG")
]


@pytest.mark.parametrize(("name", "code"), CLOSED)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_what_cannot_be_sent_any_more_is_refused(team: Team, api: Api, name: str, code: str) -> None:
    body = "x" * 20_000 if code == "TOO_LONG" else ""
    found = await send(team, api, name, "SMS", status=code.removeprefix("ALREADY_") if not body else "DRAFT", body=body)
    assert found == [code]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_preview_gives_the_errors_of_its_text(team: Team, api: Api) -> None:
    document = "query($input: MessagePreviewInput!) { messagePreview(input: $input) { userErrors { code } } }"
    given = {
        "conversationId": public_id("cnv", team.conversation.id),
        "channelId": public_id("chn", team.channels["SMS"].id),
    }
    for more, viewer, code in (
        ({"body": " "}, team.agent, "BLANK"),
        ({"body": "a\x07b"}, team.agent, "INVALID"),
        ({"body": "Hello"}, team.viewer, "FORBIDDEN"),
    ):
        answer = await api.one(document, {"input": given | more}, viewer=viewer)
        assert [error["code"] for error in answer["userErrors"]] == [code]


CLOSED_SANDBOX = [
    (name, "PROCESSOR_UNAVAILABLE") for name in ("refundPayment", "resolveMismatch", "runSandboxScenario")
]


@pytest.mark.parametrize("name", [name for name, _ in CLOSED_SANDBOX])
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_processor_that_cannot_be_used_is_unavailable(team: Team, api: Api, name: str) -> None:
    request = await factories.payment_request(
        team.contact,
        conversation_id=team.conversation.id,
        processor_connection_id=team.processor.id,
        unresolved=name == "resolveMismatch",
    )
    payment = "pay_none"
    if name != "runSandboxScenario":
        charge = await factories.money_fact(request, counted=name == "refundPayment", amount_minor=20_000)
        payment = public_id("pay", charge.id)
    configuration.change(sandbox_open=False)
    inputs: dict[str, dict[str, Any]] = {
        "refundPayment": {"paymentId": payment, "reason": "OTHER"},
        "resolveMismatch": {"paymentRequestId": public_id("pr", request.id), "resolution": "REFUND_DIFFERENCE"},
        "runSandboxScenario": {"paymentRequestId": public_id("pr", request.id), "scenario": "DECLINED"},
    }
    key = {} if name == "runSandboxScenario" else {"idempotencyKey": str(uuid7())}
    answer = await api.run(name, inputs[name] | key, "__typename", viewer=team.owner)
    assert [error["code"] for error in answer["userErrors"]] == ["PROCESSOR_UNAVAILABLE"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_only_a_sandbox_request_plays_scenarios(team: Team, api: Api) -> None:
    stripe = await factories.processor_connection(team.account, processor="stripe")
    request = await factories.payment_request(
        team.contact, conversation_id=team.conversation.id, processor_connection_id=stripe.id
    )
    given = {"paymentRequestId": public_id("pr", request.id), "scenario": "DECLINED"}
    answer = await api.run("runSandboxScenario", given, "__typename", viewer=team.owner)
    assert [error["code"] for error in answer["userErrors"]] == ["INVALID"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_without_a_mail_server_nothing_that_needs_one_changes(team: Team, api: Api) -> None:
    given = {"email": "new@example.test", "password": factories.PASSWORD}
    answer = await api.run("requestEmailChange", given, "__typename", viewer=team.owner)
    assert [error["code"] for error in answer["userErrors"]] == ["MAIL_NOT_CONFIGURED"]
    rules = {"digest": "DAILY", "quietHours": {"from": "22:00", "until": "22:00"}}
    answer = await api.run("updateNotificationRules", rules, "__typename", viewer=team.owner)
    assert sorted(error["code"] for error in answer["userErrors"]) == ["INVALID", "MAIL_NOT_CONFIGURED"]


# ------------------------------------------------------------------------------------------------------ codes of every key
@pytest.mark.parametrize("mutation", sorted(name for name, codes in CODES.items() if codes & KEYED))
async def test_every_key_is_refused_while_it_runs_and_for_another_input(team: Team, api: Api, mutation: str) -> None:
    key = str(uuid7())
    given = owned(INPUTS[mutation], await own_ids(team)) | {"idempotencyKey": key}
    later = datetime.now(UTC) + timedelta(seconds=3)
    claim = await IdempotencyKey.create(
        id=uuid7(),
        account_id=team.account.id,
        mutation=mutation,
        key=key,
        input_hash="another",
        state="running",
        locked_until=later,
    )
    for state, code in (("running", "IDEMPOTENCY_CONCURRENT_REQUEST"), ("done", "IDEMPOTENCY_KEY_PARAMETER_MISMATCH")):
        await IdempotencyKey.filter(id=claim.id).update(state=state)
        answer = await api.run(mutation, given, "__typename", viewer=team.owner)
        assert [(e["code"], e["field"]) for e in answer["userErrors"]] == [(code, ["input", "idempotencyKey"])]


# --------------------------------------------------------------------------------------------------------- no code too many
PROCESSOR_TEST = (
    "services/connections/test_processor_settings.py"
    "::test_a_processor_is_tested_with_its_stored_credentials_and_says_what_is_wrong"
)
OTHERS_INVITATIONS = "services/team/test_invitations.py::test_an_invitation_belongs_to_its_account"
GUESSES = "services/team/test_passwords.py::test_guesses_are_limited"
INVITATIONS = "services/team/test_invitations.py::test_guessing_and_mass_invitations_are_limited"
# Codes that the walks above and those of test_bad_input.py and test_roles.py do not give: the test that does.
GIVEN_BY = {
    "acceptInvitation ALREADY_USED": (
        "services/team/test_invitations.py::test_an_address_with_a_user_anywhere_is_refused_before_and_after_inviting"
    ),
    "acceptInvitation BLANK": "services/team/test_invitations.py::test_every_wrong_field_is_named_and_the_link_stays",
    "acceptInvitation RATE_LIMITED": INVITATIONS,
    "changePassword RATE_LIMITED": (
        "services/team/test_passwords.py::test_the_current_password_is_needed_and_guesses_count_like_sign_ins"
    ),
    "configureProcessor PROCESSOR_UNAVAILABLE": "flows/test_bad_input.py::a_silent_processor",
    "confirmEmailChange ALREADY_USED": (
        "services/team/test_passwords.py"
        "::test_a_new_address_needs_the_password_and_shows_users_of_others_only_in_its_mailbox"
    ),
    "confirmEmailChange RATE_LIMITED": GUESSES,
    "createPaymentRequest PROCESSOR_UNAVAILABLE": (
        "flows/test_packages.py::test_a_package_that_is_missing_after_a_restart_takes_nothing_down"
    ),
    "createView LIMIT_REACHED": "services/lists/test_views.py::test_there_is_a_limit_also_for_calls_at_the_same_time",
    "inviteUser RATE_LIMITED": INVITATIONS,
    "refundPayment PROCESSOR_REJECTED": (
        "services/payments/test_refunds.py::test_a_refusal_of_the_vendor_is_told_to_who_asked_and_changes_nothing_else"
    ),
    "releasePaymentLink PAYMENT_IN_PROGRESS": (
        "services/payments/test_link_releases.py::test_what_may_take_seconds_only_is_released_after_an_hour"
    ),
    "releasePaymentLink PROCESSOR_UNAVAILABLE": (
        "services/payments/test_link_releases.py::test_a_silent_processor_releases_nothing_and_a_definite_no_only_marks"
    ),
    "requestEmailChange RATE_LIMITED": "services/team/test_passwords.py::test_requests_are_limited_by_address_silently_and_by_network",
    "requestPasswordReset MAIL_NOT_CONFIGURED": (
        "services/team/test_passwords.py::test_without_a_mail_server_every_address_gets_the_same_refusal"
    ),
    "requestPasswordReset RATE_LIMITED": "services/team/test_passwords.py::test_requests_are_limited_by_address_silently_and_by_network",
    "resendInvitation INVALID": OTHERS_INVITATIONS,
    "resendInvitation RATE_LIMITED": INVITATIONS,
    "revokeInvitation INVALID": OTHERS_INVITATIONS,
    "resetPassword RATE_LIMITED": GUESSES,
    "signIn RATE_LIMITED": (
        "flows/test_sign_in.py::test_too_many_attempts_are_refused_by_name_and_by_address_even_with_the_right_password"
    ),
    "testChannel INVALID": (
        "services/connections/test_channel_settings.py"
        "::test_a_channel_is_tested_with_its_stored_credentials_and_says_what_is_wrong"
    ),
    "testProcessor PROCESSOR_REJECTED": PROCESSOR_TEST,
    "testProcessor PROCESSOR_UNAVAILABLE": PROCESSOR_TEST,
}


def given() -> set[tuple[str, str]]:
    walked = {(case.mutation, case.code) for case in [*test_bad_input.CASES, *test_bad_input.by_type()]}
    limited = {name for name, roles in test_roles.MAY.items() if roles != test_roles.ALL} | test_roles.PERSONAL
    forbidden = {(name, "FORBIDDEN") for name in limited}
    keyed = {(name, code) for name, codes in CODES.items() for code in codes & KEYED}
    preview = {("messagePreview", code) for code in ("BLANK", "INVALID", "FORBIDDEN")}
    named = {(name, code) for name, _, code in (pair.partition(" ") for pair in GIVEN_BY)}
    alone = {
        ("runSandboxScenario", "INVALID"),
        ("requestEmailChange", "MAIL_NOT_CONFIGURED"),
        ("updateNotificationRules", "MAIL_NOT_CONFIGURED"),
    }
    return walked | forbidden | keyed | preview | named | alone | {*SENT, *CLOSED, *CLOSED_SANDBOX}


def test_each_code_is_given_by_a_test() -> None:
    listed = {(name, code) for name, codes in CODES.items() for code in codes}
    assert sorted(given() - listed) == []
    assert sorted(listed - given()) == []


@cache
def source(path: str) -> dict[str, str]:
    text = (TESTS / path).read_text(encoding="utf-8")
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {
        node.name: ast.get_source_segment(text, node) or ""
        for node in ast.parse(text).body
        if isinstance(node, functions)
    }


@pytest.mark.parametrize("pair", sorted(GIVEN_BY))
def test_the_named_test_exists_and_names_the_code(pair: str) -> None:
    path, _, name = GIVEN_BY[pair].partition("::")
    code = pair.partition(" ")[2]
    text = source(path)[name]
    assert code in text or code.replace("_", " ").title().replace(" ", "") in text
