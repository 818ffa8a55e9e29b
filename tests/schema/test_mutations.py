"""Every mutation: its object on success, a typed refusal with its field otherwise, and nothing changed by a refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from graphql import GraphQLObjectType

from models import tables
from models.event_log import Cursor as EventCursor
from models.ids import public_id, uuid7
from services.accounts import authentication
from tests import factories
from tests.schema.conftest import SCHEMA, Api, Failed
from tests.schema.test_reads import another_account
from tests.services.conftest import Team, counts

KEY = "0f8fad5b-d9cb-469f-a165-70867728950e"

TABLES = (
    "payment_request",
    "message",
    "activity_card",
    "note",
    "tag",
    "contact",
    "conversation_follower",
    "api_key",
    "processor_connection",
    "channel_connection",
    "notification",
    "job",
    "event",
    "idempotency_key",
)


def ids(team: Team) -> dict[str, str]:
    """The team's own objects."""
    return {
        "contact": public_id("cnt", team.contact.id),
        "conversation": public_id("cnv", team.conversation.id),
        "SMS": public_id("chn", team.channels["SMS"].id),
        "EMAIL": public_id("chn", team.channels["EMAIL"].id),
        "processor": public_id("prc", team.processor.id),
        "user": public_id("usr", team.agent.user_id or uuid7()),
    }


async def create(api: Api, team: Team, **changes: Any) -> Any:
    given = {
        "idempotencyKey": str(uuid7()),
        "for": {"contactId": ids(team)["contact"]},
        "productName": "Deep clean",
        "amount": {"amount": "120.00"},
    }
    return await api.run(
        "createPaymentRequest",
        given | changes,
        "paymentRequest { id number status version checkoutUrl amount { amount currency } dueAt description }",
    )


# ---------------------------------------------------------------------------------------------------- what they do
async def test_a_request_is_created_once_per_key(team: Team, api: Api) -> None:
    year = datetime.now(UTC).year + 2
    given = {"idempotencyKey": KEY, "description": "Two rooms", "dueAt": f"{year}-01-01T10:00:00+01:00"}
    first = await create(api, team, **given)
    again = await create(api, team, **given)
    assert first["userErrors"] == []
    assert again == first
    made = first["paymentRequest"]
    assert (made["status"], made["amount"]) == ("DRAFT", {"amount": "120.00", "currency": "USD"})
    assert made["dueAt"] == f"{year}-01-01T09:00:00Z"
    assert made["checkoutUrl"].startswith("https://pay.example.test/p/")
    assert await counts("payment_request", "message", "activity_card") == {
        "payment_request": 1,
        "message": 0,
        "activity_card": 0,
    }
    other = await create(api, team, idempotencyKey=KEY, description="Three rooms")
    assert [error["code"] for error in other["userErrors"]] == ["IDEMPOTENCY_KEY_PARAMETER_MISMATCH"]


async def test_a_sent_message_binds_the_link_in_its_text(team: Team, api: Api) -> None:
    made = (await create(api, team))["paymentRequest"]
    sent = await api.run(
        "sendMessage",
        {
            "idempotencyKey": KEY,
            "conversationId": ids(team)["conversation"],
            "channelId": ids(team)["SMS"],
            "body": f"Here you are: {made['checkoutUrl']}",
        },
        """message { id body deliveryStatus direction author { ... on User { name } } paymentRequests { id status sentVia deliveryState } }
        activityCards { kind status actor { ... on User { name } } paymentRequest { id } }""",
    )
    assert sent["userErrors"] == []
    assert sent["message"]["paymentRequests"] == [
        {"id": made["id"], "status": "SENT", "sentVia": "MESSAGE", "deliveryState": "QUEUED"}
    ]
    assert (sent["message"]["deliveryStatus"], sent["message"]["direction"]) == ("QUEUED", "OUTBOUND")
    assert sent["message"]["author"] == {"name": "Agent"}
    assert sent["activityCards"] == [
        {"kind": "PAYMENT_REQUEST", "status": "SENT", "actor": {"name": "Agent"}, "paymentRequest": {"id": made["id"]}}
    ]


async def test_a_program_sends_in_one_step_and_voids(team: Team, api: Api) -> None:
    made = (await create(api, team))["paymentRequest"]
    sent = await api.run(
        "sendPaymentRequest",
        {
            "idempotencyKey": KEY,
            "paymentRequestId": made["id"],
            "channelId": ids(team)["EMAIL"],
            "body": "Please pay {link} today",
        },
        "paymentRequest { status version } message { subject body } activityCard { kind }",
    )
    assert sent["userErrors"] == []
    assert sent["message"]["body"] == f"Please pay {made['checkoutUrl']} today"
    assert sent["message"]["subject"] is not None
    assert (sent["paymentRequest"]["status"], sent["activityCard"]["kind"]) == ("SENT", "PAYMENT_REQUEST")
    stale = await api.run(
        "voidPaymentRequest",
        {"paymentRequestId": made["id"], "expectedVersion": made["version"]},
        "paymentRequest { status }",
    )
    assert [(e["code"], e["field"]) for e in stale["userErrors"]] == [
        ("VERSION_CONFLICT", ["input", "expectedVersion"])
    ]
    void = await api.run(
        "voidPaymentRequest",
        {"paymentRequestId": made["id"], "reason": "Typo"},
        "paymentRequest { status voidReason voidPending } activityCard { kind status }",
    )
    assert void["paymentRequest"] == {"status": "VOID", "voidReason": "Typo", "voidPending": False}
    assert void["activityCard"] == {"kind": "REQUEST_VOIDED", "status": "VOID"}
    twice = await api.run("voidPaymentRequest", {"paymentRequestId": made["id"]}, "paymentRequest { status }")
    assert [error["code"] for error in twice["userErrors"]] == ["ALREADY_VOID"]


async def test_a_copied_draft_can_no_longer_be_discarded(team: Team, api: Api) -> None:
    one, other = [(await create(api, team))["paymentRequest"]["id"] for _ in range(2)]
    copied = await api.run("recordLinkCopied", {"paymentRequestId": one}, "paymentRequest { status linkCopiedAt }")
    assert copied["paymentRequest"]["status"] == "DRAFT"
    assert copied["paymentRequest"]["linkCopiedAt"].endswith("Z")
    kept = await api.run("discardPaymentRequest", {"paymentRequestId": one}, "paymentRequest { id }")
    assert [error["code"] for error in kept["userErrors"]] == ["ALREADY_SENT"]
    gone = await api.run("discardPaymentRequest", {"paymentRequestId": other}, "paymentRequest { id discardedAt }")
    assert gone["paymentRequest"]["discardedAt"] is not None
    assert (await api.one("{ paymentRequests { nodes { id } } }"))["nodes"] == [{"id": one}]


async def test_the_team_works_with_a_conversation(team: Team, api: Api) -> None:
    await tables.Conversation.filter(id=team.conversation.id).update(unread_count=3)
    given = {"conversationId": ids(team)["conversation"]}
    read = await api.run("markConversationRead", given, "conversation { unreadCount }")
    assert read["conversation"] == {"unreadCount": 0}
    done = await api.run("closeConversation", given, "conversation { closedAt }")
    assert done["conversation"]["closedAt"].endswith("Z")
    listed = "query($c: Boolean) { conversations(filter: {closed: $c}) { nodes { id } } }"
    one = [{"id": given["conversationId"]}]
    for closed, expected in ((True, one), (False, []), (None, one)):
        assert (await api.one(listed, {"c": closed}))["nodes"] == expected
    opened = await api.run("reopenConversation", given, "conversation { closedAt }")
    assert opened["conversation"] == {"closedAt": None}
    for closed, expected in ((True, []), (False, one)):
        assert (await api.one(listed, {"c": closed}))["nodes"] == expected
    draft = await api.run("saveDraft", given | {"text": "Dear Maya"}, "conversation { draft }")
    assert draft["conversation"] == {"draft": "Dear Maya"}
    none = await api.run("saveDraft", given, "conversation { draft }")
    assert none["conversation"] == {"draft": None}
    assigned = await api.run(
        "assignConversation", given | {"userId": ids(team)["user"]}, "conversation { assignee { id } }"
    )
    assert assigned["conversation"] == {"assignee": {"id": ids(team)["user"]}}
    unassigned = await api.run("assignConversation", given, "conversation { assignee { id } }")
    assert unassigned["conversation"] == {"assignee": None}
    followed = await api.run("followConversation", given | {"following": True}, "conversation { following }")
    assert followed["conversation"] == {"following": True}
    left = await api.run("followConversation", given | {"following": False}, "conversation { following }")
    assert left["conversation"] == {"following": False}


async def test_contacts_are_made_and_changed_field_by_field(team: Team, api: Api) -> None:
    made = await api.run(
        "createContact",
        {
            "name": "Ada",
            "email": "Ada@Example.test",
            "phone": "(415) 555-2671",
            "addresses": [{"kind": "MESSENGER", "address": "fb-77"}],
        },
        "contact { id email phone version conversation { id } addresses { kind address } }",
    )
    assert made["userErrors"] == []
    contact = made["contact"]
    assert (contact["email"], contact["phone"]) == ("ada@example.test", "+14155552671")
    assert {a["kind"]: a["address"] for a in contact["addresses"]} == {
        "SMS": "+14155552671",
        "WHATSAPP": "+14155552671",
        "EMAIL": "ada@example.test",
        "MESSENGER": "fb-77",
    }
    renamed = await api.run(
        "updateContact", {"contactId": contact["id"], "name": "Ada L."}, "contact { name email version }"
    )
    assert renamed["contact"] == {"name": "Ada L.", "email": "ada@example.test", "version": contact["version"] + 1}
    cleared = await api.run("updateContact", {"contactId": contact["id"], "email": None}, "contact { name email }")
    assert cleared["contact"] == {"name": "Ada L.", "email": None}
    taken = await api.run("createContact", {"name": "Eve", "phone": "+14155552671"}, "contact { id }")
    assert [(e["code"], e["field"]) for e in taken["userErrors"]] == [("ALREADY_USED", ["input", "phone"])]


async def test_settings_are_changed_by_those_who_may(team: Team, api: Api) -> None:
    changes = {"name": "Acme", "locale": "de-DE", "timeZone": "Europe/Berlin", "contactPhone": "+493012345678"}
    refused = await api.run("updateAccount", changes, "account { name }")
    assert [error["code"] for error in refused["userErrors"]] == ["FORBIDDEN"]
    done = await api.run(
        "updateAccount", changes, "account { name locale timeZone contactPhone numberPrefix }", viewer=team.owner
    )
    assert done["account"] == changes | {"numberPrefix": "PR-"}
    wrong = await api.run("updateAccount", {"linkMessageTemplate": "no link"}, "account { id }", viewer=team.owner)
    assert [(e["code"], e["field"]) for e in wrong["userErrors"]] == [("INVALID", ["input", "linkMessageTemplate"])]


async def test_processors_and_channels_are_connected_and_disconnected(team: Team, api: Api) -> None:
    owner = {"viewer": team.owner}
    named = await api.run(
        "configureProcessor",
        {"processorId": ids(team)["processor"], "displayName": "Play money", "makeDefault": True},
        "processor { id displayName isDefault connected testMode }",
        **owner,
    )
    assert named["processor"] == {
        "id": ids(team)["processor"],
        "displayName": "Play money",
        "isDefault": True,
        "connected": True,
        "testMode": True,
    }
    nothing = await api.run("configureProcessor", {}, "processor { id }", **owner)
    assert [(e["code"], e["field"]) for e in nothing["userErrors"]] == [("INVALID", ["input", "credentials"])]
    mixed = await api.run(
        "configureProcessor",
        {"processorId": ids(team)["processor"], "credentials": {"stripe": {"secretKey": "sk_test_1"}}},
        "processor { id }",
        **owner,
    )
    assert [(e["code"], e["field"]) for e in mixed["userErrors"]] == [("NOT_FOUND", ["input", "processorId"])]
    off = await api.run(
        "disconnectProcessor", {"processorId": ids(team)["processor"]}, "processor { connected }", **owner
    )
    assert off["processor"] == {"connected": False}
    assert (await api.one("{ paymentRequestDefaults { processorKind } }")) == {"processorKind": None}
    channel = await api.run(
        "connectChannel",
        {"kind": "SMS", "provider": "simulated", "displayName": "Second", "sender": "+14155550199"},
        "channel { id displayName sender connected }",
        **owner,
    )
    assert channel["channel"]["sender"] == "+14155550199"
    gone = await api.run("disconnectChannel", {"channelId": channel["channel"]["id"]}, "channel { connected }", **owner)
    assert gone["channel"] == {"connected": False}


async def test_signing_in_renewing_and_out(team: Team, api: Api) -> None:
    user = await tables.User.get(id=team.agent.user_id)
    selection = "accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt user { name role }"
    wrong = await api.run("signIn", {"email": user.email, "password": "wrong"}, selection, viewer=None)
    assert [error["code"] for error in wrong["userErrors"]] == ["SIGN_IN_FAILED"]
    assert wrong["accessToken"] is None
    signed = await api.run("signIn", {"email": user.email, "password": factories.PASSWORD}, selection, viewer=None)
    assert signed["user"] == {"name": "Agent", "role": "AGENT"}
    actor = await authentication.authenticate(signed["accessToken"])
    assert actor is not None
    assert actor.user_id == user.id
    renewed = await api.run("refreshSession", {"refreshToken": signed["refreshToken"]}, selection, viewer=None)
    assert renewed["userErrors"] == []
    assert renewed["refreshToken"] != signed["refreshToken"]
    out = await api.run("signOut", {"everywhere": True}, "signedOut", viewer=actor)
    assert out == {"signedOut": True, "userErrors": []}
    late = await api.run("refreshSession", {"refreshToken": renewed["refreshToken"]}, selection, viewer=None)
    assert [error["code"] for error in late["userErrors"]] == ["SIGN_IN_FAILED"]


async def test_an_api_key_is_shown_once_and_can_be_revoked(team: Team, api: Api) -> None:
    made = await api.run(
        "createApiKey",
        {"name": "Shop", "role": "AGENT"},
        "apiKey { id name role hint revokedAt } secret",
        viewer=team.owner,
    )
    assert made["secret"].endswith(made["apiKey"]["hint"])
    actor = await authentication.authenticate(made["secret"])
    assert actor is not None
    assert (actor.role, actor.kind) == ("AGENT", "api_key")
    gone = await api.run("revokeApiKey", {"apiKeyId": made["apiKey"]["id"]}, "apiKey { revokedAt }", viewer=team.owner)
    assert gone["apiKey"]["revokedAt"] is not None
    refused = await api.run("createApiKey", {"name": "Shop", "role": "AGENT"}, "secret")
    assert (refused["secret"], refused["userErrors"][0]["code"]) == (None, "FORBIDDEN")


async def test_notifications_are_read_up_to_a_cursor_of_either_kind(team: Team, api: Api) -> None:
    user = await tables.User.get(id=team.agent.user_id)
    rows = [await factories.notification(user) for _ in range(3)]
    document = """mutation($upTo: Cursor!) { markNotificationsRead(input: { upTo: $upTo }) {
      viewer { unreadNotificationCount } userErrors { code field } } }"""
    edges = (await api.one("{ notifications { edges { cursor node { id } } eventCursor } }"))["edges"]
    assert edges[-1]["node"]["id"] == public_id("ntf", rows[0].id)
    assert await api.one(document, {"upTo": edges[-1]["cursor"]}) == {
        "viewer": {"unreadNotificationCount": 2},
        "userErrors": [],
    }
    head = (await api.one("{ notifications { eventCursor } }"))["eventCursor"]
    assert await api.one(document, {"upTo": head}) == {"viewer": {"unreadNotificationCount": 0}, "userErrors": []}
    theirs = EventCursor("epoch", UUID(int=1), 5).encode()
    for wrong in ("nonsense", theirs):
        answer = await api.one(document, {"upTo": wrong})
        assert answer["viewer"] is None
        assert answer["userErrors"] == [{"code": "INVALID", "field": ["input", "upTo"]}]


# ------------------------------------------------------------------------------------------------ what they refuse
OPEN = ("acceptInvitation", "requestPasswordReset", "resetPassword", "confirmEmailChange")
# What every person may do.
OWN = {"changePassword", "requestEmailChange", "updateProfile", "revokeSession"}


def root_mutations() -> list[str]:
    mutation = SCHEMA._schema.mutation_type
    assert isinstance(mutation, GraphQLObjectType)
    return [
        name for name in mutation.fields if name not in ("signIn", "refreshSession", *OPEN, "markNotificationsRead")
    ]


INPUTS: dict[str, dict[str, Any]] = {
    "signOut": {},
    "createApiKey": {"name": "Key", "role": "VIEWER"},
    "revokeApiKey": {"apiKeyId": "key"},
    "createPaymentRequest": {
        "idempotencyKey": KEY,
        "for": {"contactId": "cnt"},
        "channelId": "chn",
        "productName": "Clean",
        "amount": {"amount": "10.00"},
        "processorId": "prc",
    },
    "sendPaymentRequest": {"idempotencyKey": KEY, "paymentRequestId": "pr", "channelId": "chn"},
    "voidPaymentRequest": {"paymentRequestId": "pr"},
    "refundPayment": {"idempotencyKey": KEY, "paymentId": "pay", "reason": "OTHER", "tellContactOn": "chn"},
    "recordOutsidePayment": {"idempotencyKey": KEY, "paymentRequestId": "pr", "method": "CASH"},
    "undoOutsidePayment": {"paymentId": "pay"},
    "releasePaymentLink": {"idempotencyKey": KEY, "paymentRequestId": "pr"},
    "resolveMismatch": {"idempotencyKey": KEY, "paymentRequestId": "pr", "resolution": "ACCEPT_AS_PAID"},
    "runSandboxScenario": {"paymentRequestId": "pr", "scenario": "DECLINED"},
    "recordLinkCopied": {"paymentRequestId": "pr"},
    "discardPaymentRequest": {"paymentRequestId": "pr"},
    "sendMessage": {"idempotencyKey": KEY, "conversationId": "cnv", "channelId": "chn", "body": "Hello"},
    "resendMessage": {"idempotencyKey": KEY, "messageId": "msg", "channelId": "chn"},
    "closeConversation": {"conversationId": "cnv"},
    "reopenConversation": {"conversationId": "cnv"},
    "markConversationRead": {"conversationId": "cnv"},
    "assignConversation": {"conversationId": "cnv", "userId": "usr"},
    "followConversation": {"conversationId": "cnv", "following": True},
    "saveDraft": {"conversationId": "cnv", "text": "Hello"},
    "addNote": {"idempotencyKey": KEY, "conversationId": "cnv", "body": "Hello", "mentions": []},
    "updateConversationTags": {"conversationId": "cnv", "add": ["VIP"]},
    "updateContactTags": {"contactId": "cnt", "add": ["VIP"]},
    "createContact": {"name": "Ada"},
    "updateContact": {"contactId": "cnt", "name": "Ada"},
    "mergeContacts": {"idempotencyKey": KEY, "contactId": "cnt", "mergedContactId": "cnt"},
    "updateAccount": {"name": "Acme"},
    "configureProcessor": {"credentials": {"sandbox": True}, "processorId": "prc"},
    "testProcessor": {"processorId": "prc"},
    "disconnectProcessor": {"processorId": "prc"},
    "connectChannel": {"kind": "SMS", "provider": "simulated", "channelId": "chn"},
    "testChannel": {"channelId": "chn"},
    "disconnectChannel": {"channelId": "chn"},
    "rotateIdentitySecret": {"channelId": "chn"},
    "inviteUser": {"email": "nora@example.com", "role": "AGENT"},
    "resendInvitation": {"invitationId": "inv"},
    "revokeInvitation": {"invitationId": "inv"},
    "changePassword": {"currentPassword": "wrong", "newPassword": "long-enough-2"},
    "requestEmailChange": {"email": "new@example.com", "password": "wrong"},
    "createView": {"name": "All", "list": {"conversations": {}}, "shared": True},
    "updateView": {"viewId": "prv", "name": "All"},
    "deleteView": {"viewId": "prv"},
    "updateProfile": {"name": "Ada"},
    "revokeSession": {"sessionId": "ses"},
    "updateUser": {"userId": "usr", "name": "Ada"},
    "disableUser": {"userId": "usr"},
    "enableUser": {"userId": "usr"},
    "updateNotificationRules": {"rules": [{"topic": "TEAM", "scope": "NONE"}]},
}
REFERENCES = {
    "apiKeyId": "key",
    "paymentId": "pay",
    "tellContactOn": "chn",
    "contactId": "cnt",
    "mergedContactId": "cnt",
    "conversationId": "cnv",
    "channelId": "chn",
    "messageId": "msg",
    "viewId": "prv",
    "paymentRequestId": "pr",
    "userId": "usr",
    "invitationId": "inv",
    "sessionId": "ses",
    "processorId": "prc",
}


def test_every_mutation_has_an_input_here() -> None:
    assert set(INPUTS) == set(root_mutations())


@pytest.mark.parametrize("mutation", sorted(INPUTS))
async def test_no_mutation_runs_without_a_credential(team: Team, api: Api, mutation: str) -> None:
    before = await counts(*TABLES)
    with pytest.raises(Failed) as failed:
        await api.run(mutation, INPUTS[mutation], "__typename", viewer=None)
    assert failed.value.codes == ["UNAUTHENTICATED"]
    assert await counts(*TABLES) == before


async def own_ids(team: Team) -> dict[str, str]:
    """An own object for each reference."""
    key = await factories.api_key(team.account, "ptk_one_of_our_own_keys_001")
    request = await factories.payment_request(team.contact, processor_connection_id=team.processor.id)
    fact = await factories.money_fact(request)
    failed = await factories.message(
        team.conversation,
        channel_connection_id=team.channels["SMS"].id,
        address=team.addresses["SMS"].address,
        direction="OUTBOUND",
        delivery_status="FAILED",
    )
    return {
        "pay": public_id("pay", fact.id),
        "key": public_id("key", key.id),
        "pr": public_id("pr", request.id),
        "msg": public_id("msg", failed.id),
        "cnt": public_id("cnt", team.contact.id),
        "cnv": public_id("cnv", team.conversation.id),
        "chn": public_id("chn", team.channels["SMS"].id),
        "prc": public_id("prc", team.processor.id),
        "usr": public_id("usr", team.agent.user_id or uuid7()),
        "prv": public_id("prv", (await factories.saved_view(team.account)).id),
        "ses": public_id("ses", (await factories.session(team.agent.user_id, team.account)).family_id),
        "inv": public_id("inv", (await factories.invitation(team.account)).id),
    }


CASES = [
    *((mutation, name) for mutation, given in sorted(INPUTS.items()) for name in given if name in REFERENCES),
    ("createPaymentRequest", "for.contactId"),
    ("createPaymentRequest", "for.conversationId"),
]


def owned(given: dict[str, Any], own: dict[str, str]) -> dict[str, Any]:
    """The input with the own objects' ids."""
    return {
        name: owned(value, own) if isinstance(value, dict) else own.get(value, value) if name in REFERENCES else value
        for name, value in given.items()
    }


@pytest.mark.parametrize(("mutation", "name"), CASES)
async def test_a_foreign_id_is_refused_like_one_that_does_not_exist(
    team: Team, api: Api, mutation: str, name: str
) -> None:
    own = await own_ids(team)
    _, theirs = await another_account()
    *above, leaf = name.split(".")
    prefix = REFERENCES[leaf]
    answers = []
    before = await counts(*TABLES)
    for wrong in (theirs[prefix], public_id(prefix, uuid7()), "nonsense", theirs["ntf"]):
        given = owned(INPUTS[mutation], own)
        changed = {above[0]: {leaf: wrong}} if above else {leaf: wrong}
        answer = await api.run(mutation, given | changed, "__typename", viewer=team.owner)
        answers.append(answer["userErrors"])
        assert await counts(*TABLES) == before
    assert answers[0] == answers[1]
    assert [[(e["code"], e["field"]) for e in answer] for answer in answers] == [
        [("NOT_FOUND", ["input", *above, leaf])]
    ] * 4


@pytest.mark.parametrize(
    "mutation", sorted(set(INPUTS) - OWN - {"signOut", "followConversation", "updateNotificationRules"})
)
async def test_a_viewer_changes_nothing(team: Team, api: Api, mutation: str) -> None:
    own = await own_ids(team)
    before = await counts(*TABLES)
    given = owned(INPUTS[mutation], own)
    answer = await api.run(mutation, given, "__typename", viewer=team.viewer)
    assert [error["code"] for error in answer["userErrors"]] == ["FORBIDDEN"]
    assert await counts(*TABLES) == before


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"productName": "  "}, "BLANK", ["input", "productName"]),
        ({"productName": "x" * 256}, "TOO_LONG", ["input", "productName"]),
        ({"productName": "nul\x00"}, "INVALID", ["input", "productName"]),
        ({"description": "x" * 2001}, "TOO_LONG", ["input", "description"]),
        ({"amount": {"amount": "0"}}, "AMOUNT_TOO_SMALL", ["input", "amount", "amount"]),
        ({"amount": {"amount": "-5"}}, "AMOUNT_TOO_SMALL", ["input", "amount", "amount"]),
        ({"amount": {"amount": "99999999999"}}, "AMOUNT_TOO_LARGE", ["input", "amount", "amount"]),
        ({"amount": {"amount": "10.001"}}, "INVALID", ["input", "amount", "amount"]),
        ({"amount": {"amount": "ten"}}, "INVALID", ["input", "amount", "amount"]),
        ({"amount": {"amount": "10", "currency": "XYZ"}}, "CURRENCY_NOT_SUPPORTED", ["input", "amount", "currency"]),
        ({"dueAt": "2020-01-01T00:00:00Z"}, "INVALID", ["input", "dueAt"]),
        ({"processorKind": "PAYPAL"}, "NO_PROCESSOR_CONFIGURED", ["input", "processorKind"]),
        ({"idempotencyKey": "short"}, "INVALID", ["input", "idempotencyKey"]),
    ],
)
async def test_each_wrong_field_of_a_request_is_named(
    team: Team, api: Api, change: dict[str, Any], code: str, field: list[str]
) -> None:
    before = await counts(*TABLES)
    answer = await create(api, team, **change)
    assert answer["paymentRequest"] is None
    assert [(error["code"], error["field"]) for error in answer["userErrors"]] == [(code, field)]
    assert await counts(*TABLES) == before


@pytest.mark.parametrize("amount", [12.5, 12, None, {"x": 1}])
async def test_an_amount_that_is_no_text_is_not_even_executed(team: Team, api: Api, amount: object) -> None:
    with pytest.raises(Failed):
        await create(api, team, amount={"amount": amount})
    assert await counts("payment_request") == {"payment_request": 0}


@pytest.mark.parametrize("moment", ["2030-01-01", "2030-01-01T10:00:00", "tomorrow", 5])
async def test_a_time_without_an_offset_is_not_even_executed(team: Team, api: Api, moment: object) -> None:
    with pytest.raises(Failed):
        await create(api, team, dueAt=moment)


async def test_what_follows_a_mutation_in_one_operation_sees_it(team: Team, api: Api) -> None:
    document = """mutation($a: SaveDraftInput!, $b: SaveDraftInput!) {
      first: saveDraft(input: $a) { conversation { draft contact { conversation { draft } } eventCursor } }
      second: saveDraft(input: $b) { conversation { draft contact { conversation { draft } } eventCursor } } }"""
    conversation = ids(team)["conversation"]
    answer = await api.all(
        document,
        {"a": {"conversationId": conversation, "text": "one"}, "b": {"conversationId": conversation, "text": "two"}},
    )
    drafts = [
        (a["conversation"]["draft"], a["conversation"]["contact"]["conversation"]["draft"]) for a in answer.values()
    ]
    assert drafts == [("one", "one"), ("two", "two")]
    cursors = [EventCursor.decode(a["conversation"]["eventCursor"], team.account.id).seq for a in answer.values()]
    # From before each write: its own event is repeated rather than missed.
    assert cursors == [0, 1]
