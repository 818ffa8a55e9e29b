"""One idempotency key creates one object: repeated, concurrent, or with other input, for every mutation that takes a key."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from graphql import GraphQLEnumType, GraphQLInputObjectType

from models.ids import parse_public_id, public_id, uuid7
from models.tables import ApiKey, ChannelConnection, Contact, Message
from tests.flows import documents as d
from tests.flows import harness, probes
from tests.flows.conftest import Team
from tests.flows.harness import Product, key

CREATE, SEND, WRITE = "createPaymentRequest", "sendPaymentRequest", "sendMessage"
RESEND, REFUND, OUTSIDE = "resendMessage", "refundPayment", "recordOutsidePayment"
RESOLVE, RELEASE = "resolveMismatch", "releasePaymentLink"
CONTACT, CHANNEL, KEY, ROTATE = "createContact", "connectChannel", "createApiKey", "rotateIdentitySecret"
DOCUMENTS = {
    CREATE: d.CREATE,
    SEND: d.SEND_REQUEST,
    WRITE: d.SEND_MESSAGE,
    RESEND: d.RESEND,
    REFUND: d.REFUND,
    OUTSIDE: d.RECORD_OUTSIDE,
    RESOLVE: d.RESOLVE,
    RELEASE: d.RELEASE,
    CONTACT: d.CREATE_CONTACT,
    CHANNEL: d.CONNECT_CHANNEL,
    KEY: f"mutation($input: CreateApiKeyInput!) {{ createApiKey(input: $input) {{ apiKey {{ id }} {d.ERRORS} }} }}",
    ROTATE: f"""mutation($input: RotateIdentitySecretInput!) {{
      rotateIdentitySecret(input: $input) {{ channel {{ id }} secret {d.ERRORS} }} }}""",
}
MERGE, NOTE, INVITE, VIEW = "mergeContacts", "addNote", "inviteUser", "createView"
DOCUMENTS[NOTE] = f"mutation($input: AddNoteInput!) {{ addNote(input: $input) {{ note {{ id }} {d.ERRORS} }} }}"
DOCUMENTS[INVITE] = (
    f"mutation($input: InviteUserInput!) {{ inviteUser(input: $input) {{ invitation {{ id }} {d.ERRORS} }} }}"
)
DOCUMENTS[VIEW] = f"mutation($input: CreateViewInput!) {{ createView(input: $input) {{ view {{ id }} {d.ERRORS} }} }}"
DOCUMENTS[MERGE] = (
    f"mutation($input: MergeContactsInput!) {{ mergeContacts(input: $input) {{ contact {{ id }} {d.ERRORS} }} }}"
)
AGAIN = "IDEMPOTENCY_CONCURRENT_REQUEST"


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    probes.hash_quickly(monkeypatch)


@pytest.fixture
async def product(database: str, events_url: str) -> AsyncIterator[Product]:
    """The server without its job runner: nothing changes by itself."""
    async with harness.in_process(database, events_url, RUN_JOBS="false") as running:
        yield running


async def given(team: Team, contact: dict[str, Any], request: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Complete inputs of the mutations, each with a fresh key; what is given back is another request's, which is paid."""
    sms, whatsapp = team.channels["SMS"], team.channels["WHATSAPP"]
    thread = {"idempotencyKey": key(), "conversationId": contact["conversation"]["id"], "channelId": sms}
    failed = (await team.product.ok(d.SEND_MESSAGE, {**thread, "body": "Hello"}, token=team.agent))["message"]
    await Message.filter(id=parse_public_id(failed["id"], "msg")).update(delivery_status="FAILED")
    paid = await team.request(contact)
    await team.send(paid)
    await team.pay(paid)
    (charge,) = (await team.read(paid))["payments"]
    held = await team.request(contact)
    await team.pay(held, "Take a voucher")
    widget = (await team.product.ok(d.CONNECT_CHANNEL, {"kind": "WEB_CHAT", "provider": "web_chat"}, token=team.owner))[
        "channel"
    ]
    emails = [f"{name}-{key()}@example.com" for name in ("eve", "eva")]
    pair = [
        (await team.product.ok(d.CREATE_CONTACT, {"name": "Eve", "email": email}, token=team.agent))["contact"]
        for email in emails
    ]
    return {
        CREATE: {
            **team.ask(contact),
            "channelId": sms,
            "amount": {"amount": "120.00", "currency": "USD"},
            "description": "All rooms",
            "dueAt": probes.DUE,
            "processorKind": "SANDBOX",
            "processorId": team.processor["id"],
        },
        SEND: {
            "idempotencyKey": key(),
            "paymentRequestId": request["id"],
            "channelId": whatsapp,
            "body": "Please: {link}",
            "template": {"id": "HX1", "variables": [{"name": "1", "value": "{link}"}]},
        },
        WRITE: {
            "idempotencyKey": key(),
            "conversationId": contact["conversation"]["id"],
            "channelId": whatsapp,
            "body": f"Here: {request['checkoutUrl']}",
            "subject": "About",
            "template": {"id": "HX1", "variables": [{"name": "1", "value": request["checkoutUrl"]}]},
        },
        RESEND: {
            "idempotencyKey": key(),
            "messageId": failed["id"],
            "channelId": sms,
            "confirmPossibleDuplicate": False,
        },
        REFUND: {
            "idempotencyKey": key(),
            "paymentId": charge["id"],
            "amount": "10.00",
            "reason": "OTHER",
            "tellContactOn": sms,
        },
        OUTSIDE: {
            "idempotencyKey": key(),
            "paymentRequestId": request["id"],
            "method": "CASH",
            "amount": "10.00",
            "note": "At the door",
            "receivedAt": "2026-01-02T03:04:05Z",
        },
        RELEASE: {"idempotencyKey": key(), "paymentRequestId": held["id"]},
        RESOLVE: {
            "idempotencyKey": key(),
            "paymentRequestId": (await probes.mismatched(team, contact))["id"],
            "resolution": "ACCEPT_AS_PAID",
        },
        CONTACT: {
            "idempotencyKey": key(),
            "name": "Zoe",
            "email": "zoe@example.com",
            "phone": "+14155550177",
            "addresses": [{"kind": "MESSENGER", "address": "zoe"}],
        },
        CHANNEL: {
            "idempotencyKey": key(),
            "kind": "WEB_CHAT",
            "provider": "web_chat",
            "displayName": "Chat",
            "sender": "us",
            "allowedOrigins": ["https://shop.example"],
        },
        KEY: {
            "idempotencyKey": key(),
            "name": "Till",
            "role": "AGENT",
            "expiresAt": (datetime.now(UTC) + timedelta(days=30)).isoformat(),
            "managesKeys": False,
        },
        ROTATE: {"idempotencyKey": key(), "channelId": widget["id"]},
        NOTE: {"idempotencyKey": key(), "conversationId": contact["conversation"]["id"], "body": "Call back"},
        INVITE: {"idempotencyKey": key(), "email": f"{key()}@example.com", "name": "Nora", "role": "AGENT"},
        VIEW: {
            "idempotencyKey": key(),
            "name": "Paid",
            "list": {"paymentRequests": {"filter": {"contactIds": [contact["id"]]}}},
            "shared": True,
        },
        MERGE: {
            "idempotencyKey": key(),
            "contactId": pair[0]["id"],
            "mergedContactId": pair[1]["id"],
            "addresses": [{"kind": "EMAIL", "address": emails[1]}],
        },
    }


async def run(team: Team, mutation: str, input: dict[str, Any]) -> dict[str, Any]:
    payload: dict[str, Any] = await team.product.one(DOCUMENTS[mutation], {"input": input}, token=team.owner)
    return payload


def codes(payload: dict[str, Any]) -> list[tuple[str, list[str] | None]]:
    return [(error["code"], error["field"]) for error in payload["userErrors"]]


def test_every_mutation_with_a_key_is_tried() -> None:
    with_key = {
        name
        for name, one in probes.root("Mutation").items()
        if any(leaf.name == "idempotencyKey" for leaf in probes.leaves(one.args))
    }
    assert with_key == set(DOCUMENTS)


async def test_the_same_key_again_gives_the_same_object_and_does_nothing(team: Team) -> None:
    maria = await team.contact()
    for mutation, input in (await given(team, maria, await team.request(maria))).items():
        first = await run(team, mutation, input)
        assert codes(first) == [], mutation
        before = await probes.snapshot()
        for _ in range(3):
            assert await run(team, mutation, input) == first, mutation
        assert probes.changed(before, await probes.snapshot()) == [], mutation


async def test_ten_at_once_with_one_key_make_one_object(team: Team) -> None:
    maria = await team.contact()
    for mutation, input in (await given(team, maria, await team.request(maria))).items():
        count = await objects(team, maria)
        payloads = await asyncio.gather(*(run(team, mutation, input) for _ in range(10)))
        told = {str(codes(payload)) for payload in payloads}
        assert told <= {"[]", str([(AGAIN, ["input", "idempotencyKey"])])}, (mutation, told)
        made = [payload for payload in payloads if not codes(payload)]
        assert made, mutation
        assert all(payload == made[0] for payload in made), mutation
        assert await run(team, mutation, input) == made[0], mutation
        now = await objects(team, maria)
        # One request more; or one message, whose link is carried for the first time by the first sending only.
        more = {
            CREATE: (1, 0, 0, 0, 0, 0),
            SEND: (0, 1, 1, 0, 0, 0),
            WRITE: (0, 1, 0, 0, 0, 0),
            RESEND: (0, 1, 0, 0, 0, 0),
            REFUND: (0, 1, 1, 0, 0, 0),
            OUTSIDE: (0, 0, 1, 0, 0, 0),
            RESOLVE: (0, 0, 1, 0, 0, 0),
            RELEASE: (0, 0, 1, 0, 0, 0),
            CONTACT: (0, 0, 0, 1, 0, 0),
            CHANNEL: (0, 0, 0, 0, 1, 0),
            KEY: (0, 0, 0, 0, 0, 1),
            ROTATE: (0, 0, 0, 0, 0, 0),
            MERGE: (0, 0, 0, 0, 0, 0),
            NOTE: (0, 0, 0, 0, 0, 0),
            INVITE: (0, 0, 0, 0, 0, 0),
            VIEW: (0, 0, 0, 0, 0, 0),
        }[mutation]
        assert tuple(b - a for a, b in zip(count, now, strict=True)) == more, mutation


async def objects(team: Team, contact: dict[str, Any]) -> tuple[int, ...]:
    """The numbers of requests, messages, cards, contacts, channels and API keys."""
    payments = (await team.product.one(d.CONTACT, {"id": contact["id"]}, token=team.agent))["paymentRequests"][
        "totalCount"
    ]
    kinds = [item["__typename"] for item in await team.thread(contact)]
    others = [await table.all().count() for table in (Contact, ChannelConnection, ApiKey)]
    return payments, kinds.count("Message"), kinds.count("ActivityCard"), *others


async def test_the_same_key_with_any_other_input_is_a_mismatch_and_changes_nothing(team: Team) -> None:
    maria = await team.contact()
    wrong = []
    for mutation, input in (await given(team, maria, await team.request(maria))).items():
        assert codes(await run(team, mutation, input)) == []
        before = await probes.snapshot()
        one = probes.root("Mutation")[mutation]
        for leaf in probes.leaves(one.args):
            if leaf.name == "idempotencyKey":
                continue
            if ".credentials." in leaf.path:  # none are given: a list with one is another input
                changed_to: dict[str, Any] = {"input.credentials": [{"name": "secret", "value": "another"}]}
            else:
                changed_to = {leaf.path: other_than(leaf, input)}
            variants = [probes.nested(path, v, {"input": input}, one.args) for path, v in changed_to.items()]
            if leaf.nullable and leaf.name in input:
                variants.append(probes.without(leaf.path, {"input": input}))
            for variant in variants:
                payload = await run(team, mutation, variant["input"])
                if codes(payload) != [("IDEMPOTENCY_KEY_PARAMETER_MISMATCH", ["input", "idempotencyKey"])]:
                    wrong.append(f"{mutation} {leaf.path}: {payload}")
        wrong += [f"{mutation} CHANGED {row}" for row in probes.changed(before, await probes.snapshot())]
    assert not wrong, "\n".join(wrong)


def other_than(leaf: probes.Leaf, input: dict[str, Any]) -> Any:
    """Another value of the leaf's type."""
    value: Any = input
    for name in leaf.path.split(".")[1:]:
        value = value[0] if isinstance(value, list) else value
        value = value.get(name) if isinstance(value, dict) else None
    kind = probes.schema().get_type(leaf.type)
    if isinstance(kind, GraphQLEnumType):
        return next(word for word in kind.values if word != value)
    if isinstance(value, bool):
        return not value
    if isinstance(kind, GraphQLInputObjectType):  # of a view's list, as a whole
        return {"field": "CREATED_AT", "direction": "DESC"} if leaf.type.endswith("Order") else {}
    if leaf.type == "Boolean":
        return True
    fixed = {"Decimal": "120.01", "CurrencyCode": "EUR", "DateTime": "2199-01-01T00:00:01Z"}
    if leaf.type in fixed:
        return fixed[leaf.type]
    if leaf.type == "ID" and value is None:
        return public_id("chn", uuid7())
    if leaf.type == "String" and value is None:
        return "other"
    if isinstance(value, list):
        return [*value, "https://other.example"]
    return probes.foreign_to(value) if leaf.type == "ID" else value + "!"


async def test_a_refused_run_gives_its_key_back(team: Team) -> None:
    maria = await team.contact()
    whatsapp = team.channels["WHATSAPP"]
    wrong: dict[str, dict[str, Any]] = {
        CREATE: {"productName": ""},
        SEND: {"template": None},
        WRITE: {"body": " "},
        RESEND: {"channelId": whatsapp},
        REFUND: {"tellContactOn": whatsapp},
        OUTSIDE: {"amount": "0"},
        RESOLVE: {"resolution": "REFUND_DIFFERENCE"},
        RELEASE: {"paymentRequestId": "pr_none"},
        CONTACT: {"name": " "},
        CHANNEL: {"kind": "SMS"},
        KEY: {"name": ""},
        ROTATE: {"channelId": whatsapp},
        MERGE: {"contactId": "cnt_none"},
        NOTE: {"body": " "},
        INVITE: {"email": "nora"},
        VIEW: {"name": ""},
    }
    for mutation, input in (await given(team, maria, await team.request(maria))).items():
        before = await probes.snapshot()
        assert codes(await run(team, mutation, {**input, **wrong[mutation]})) != []
        assert probes.changed(before, await probes.snapshot()) == []
        assert codes(await run(team, mutation, input)) == []


async def test_without_a_key_each_call_is_a_new_one_and_a_repeat_shows_a_stored_secret_only(team: Team) -> None:
    maria = await team.contact()
    inputs = await given(team, maria, await team.request(maria))
    new = "mutation($input: CreateApiKeyInput!) { createApiKey(input: $input) { apiKey { id } secret userErrors { code } } }"
    first, again = [await team.product.ok(new, inputs[KEY], token=team.owner) for _ in range(2)]
    assert first["secret"] is not None
    assert (again["apiKey"], again["secret"]) == (first["apiKey"], None)  # the API key's secret is not stored
    rotated = await run(team, ROTATE, inputs[ROTATE])
    later = await run(team, ROTATE, {**inputs[ROTATE], "idempotencyKey": key()})
    assert len({rotated["secret"], later["secret"]}) == 2
    assert (await run(team, ROTATE, inputs[ROTATE]))["secret"] is None  # it counts no more
    for mutation in (CHANNEL, KEY, ROTATE):
        unkeyed = probes.without("input.idempotencyKey", {"input": inputs[mutation]})["input"]
        count = await objects(team, maria)
        secrets = {str(await run(team, mutation, unkeyed)) for _ in range(2)}
        made = sum(await objects(team, maria)) - sum(count)
        assert (codes(await run(team, mutation, unkeyed)), len(secrets)) == ([], 2), mutation
        assert made == (0 if mutation == ROTATE else 2), mutation


async def test_one_key_serves_each_mutation_and_each_account_by_itself(team: Team) -> None:
    other = await probes.newcomer(team.product, "Other")
    await other.connect_sandbox()
    await other.connect_channels()
    shared = key()
    answers = []
    for one in (team, other):
        contact = await one.contact()
        for mutation, input in (await given(one, contact, await one.request(contact))).items():
            payload = await run(one, mutation, {**input, "idempotencyKey": shared})
            assert codes(payload) == []
            named = (
                "payment",
                "paymentRequest",
                "message",
                "contact",
                "channel",
                "apiKey",
                "note",
                "invitation",
                "view",
            )
            made = next(payload[name] for name in named if payload.get(name))
            answers.append(str(made["id"]))
    # Creating made a request per account, sending sent another one, writing a message, and so on.
    assert len(set(answers)) == 2 * len(DOCUMENTS)


async def test_a_repeat_shows_the_object_as_it_is_now(team: Team) -> None:
    maria = await team.contact()
    inputs = await given(team, maria, await team.request(maria))
    created = (await run(team, CREATE, inputs[CREATE]))["paymentRequest"]
    sent = await run(team, SEND, inputs[SEND])
    await team.product.ok(d.VOID, {"paymentRequestId": created["id"]}, token=team.agent)
    await team.pay(sent["paymentRequest"])
    again, resent = await run(team, CREATE, inputs[CREATE]), await run(team, SEND, inputs[SEND])
    assert (again["paymentRequest"]["id"], again["paymentRequest"]["status"]) == (created["id"], "VOID")
    assert codes(resent) == []
    assert (resent["message"]["id"], resent["paymentRequest"]["status"]) == (sent["message"]["id"], "PAID")
    assert resent["activityCard"] == sent["activityCard"]
